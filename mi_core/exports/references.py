"""The papers behind the methods, as BibTeX."""

from collections.abc import Iterable, Mapping

BIBTEX: Mapping[str, str] = {
    "meng2022locating": """@inproceedings{meng2022locating,
  title = {Locating and Editing Factual Associations in {GPT}},
  author = {Meng, Kevin and Bau, David and Andonian, Alex and Belinkov, Yonatan},
  booktitle = {Advances in Neural Information Processing Systems},
  volume = {35},
  year = {2022},
  eprint = {2202.05262},
  archiveprefix = {arXiv}
}""",
    "vig2020investigating": """@inproceedings{vig2020investigating,
  title = {Investigating Gender Bias in Language Models Using Causal Mediation Analysis},
  author = {Vig, Jesse and Gehrmann, Sebastian and Belinkov, Yonatan and Qian, Sharon and Nevo, Daniel
    and Singer, Yaron and Shieber, Stuart},
  booktitle = {Advances in Neural Information Processing Systems},
  volume = {33},
  year = {2020}
}""",
    "zhang2024towards": """@inproceedings{zhang2024towards,
  title = {Towards Best Practices of Activation Patching in Language Models: Metrics and Methods},
  author = {Zhang, Fred and Nanda, Neel},
  booktitle = {International Conference on Learning Representations},
  year = {2024},
  eprint = {2309.16042},
  archiveprefix = {arXiv}
}""",
    "heimersheim2024use": """@misc{heimersheim2024use,
  title = {How to use and interpret activation patching},
  author = {Heimersheim, Stefan and Nanda, Neel},
  year = {2024},
  eprint = {2404.15255},
  archiveprefix = {arXiv}
}""",
    "hase2023does": """@inproceedings{hase2023does,
  title = {Does Localization Inform Editing? Surprising Differences in Causality-Based Localization
    vs. Knowledge Editing in Language Models},
  author = {Hase, Peter and Bansal, Mohit and Kim, Been and Ghandeharioun, Asma},
  booktitle = {Advances in Neural Information Processing Systems},
  volume = {36},
  year = {2023},
  eprint = {2301.04213},
  archiveprefix = {arXiv}
}""",
    "elhage2021mathematical": """@article{elhage2021mathematical,
  title = {A Mathematical Framework for Transformer Circuits},
  author = {Elhage, Nelson and Nanda, Neel and Olsson, Catherine and Henighan, Tom and Joseph, Nicholas
    and Mann, Ben and Askell, Amanda and Bai, Yuntao and Chen, Anna and Conerly, Tom and DasSarma, Nova
    and Drain, Dawn and Ganguli, Deep and Hatfield-Dodds, Zac and Hernandez, Danny and Jones, Andy
    and Kernion, Jackson and Lovitt, Liane and Ndousse, Kamal and Amodei, Dario and Brown, Tom
    and Clark, Jack and Kaplan, Jared and McCandlish, Sam and Olah, Chris},
  journal = {Transformer Circuits Thread},
  year = {2021},
  url = {https://transformer-circuits.pub/2021/framework/index.html}
}""",
    "nostalgebraist2020interpreting": """@misc{nostalgebraist2020interpreting,
  title = {interpreting {GPT}: the logit lens},
  author = {nostalgebraist},
  howpublished = {LessWrong},
  year = {2020},
  url = {https://www.lesswrong.com/posts/AcKRB8wDpdaN6v6ru/interpreting-gpt-the-logit-lens}
}""",
    "nanda2023attribution": """@misc{nanda2023attribution,
  title = {Attribution Patching: Activation Patching At Industrial Scale},
  author = {Nanda, Neel},
  year = {2023},
  url = {https://www.neelnanda.io/mechanistic-interpretability/attribution-patching}
}""",
    "syed2023attribution": """@misc{syed2023attribution,
  title = {Attribution Patching Outperforms Automated Circuit Discovery},
  author = {Syed, Aaquib and Rager, Can and Conmy, Arthur},
  year = {2023},
  eprint = {2310.10348},
  archiveprefix = {arXiv}
}""",
    "belrose2023eliciting": """@misc{belrose2023eliciting,
  title = {Eliciting Latent Predictions from Transformers with the Tuned Lens},
  author = {Belrose, Nora and Ostrovsky, Igor and McKinney, Lev and Furman, Zach and Smith, Logan and
    Halawi, Danny and Biderman, Stella and Steinhardt, Jacob},
  year = {2023},
  eprint = {2303.08112},
  archiveprefix = {arXiv}
}""",
    "geva2022transformer": """@inproceedings{geva2022transformer,
  title = {Transformer Feed-Forward Layers Build Predictions by Promoting Concepts in the Vocabulary Space},
  author = {Geva, Mor and Caciularu, Avi and Wang, Kevin Ro and Goldberg, Yoav},
  booktitle = {Proceedings of the 2022 Conference on Empirical Methods in Natural Language Processing},
  year = {2022},
  eprint = {2203.14680},
  archiveprefix = {arXiv}
}""",
    "bolukbasi2021interpretability": """@misc{bolukbasi2021interpretability,
  title = {An Interpretability Illusion for {BERT}},
  author = {Bolukbasi, Tolga and Pearce, Adam and Yuan, Ann and Coenen, Andy and Reif, Emily and
    Vi{\\'e}gas, Fernanda and Wattenberg, Martin},
  year = {2021},
  eprint = {2104.07143},
  archiveprefix = {arXiv}
}""",
    "sun2024massive": """@misc{sun2024massive,
  title = {Massive Activations in Large Language Models},
  author = {Sun, Mingjie and Chen, Xinlei and Kolter, J. Zico and Liu, Zhuang},
  year = {2024},
  eprint = {2402.17762},
  archiveprefix = {arXiv}
}""",
    "olsson2022context": """@article{olsson2022context,
  title = {In-context Learning and Induction Heads},
  author = {Olsson, Catherine and Elhage, Nelson and Nanda, Neel and others},
  journal = {Transformer Circuits Thread},
  year = {2022},
  eprint = {2209.11895},
  archiveprefix = {arXiv}
}""",
    "goldowskydill2023localizing": """@misc{goldowskydill2023localizing,
  title = {Localizing Model Behavior with Path Patching},
  author = {Goldowsky-Dill, Nicholas and MacLeod, Chris and Sato, Lucas and Arora, Aryaman},
  year = {2023},
  eprint = {2304.05969},
  archiveprefix = {arXiv}
}""",
    "wang2023interpretability": """@inproceedings{wang2023interpretability,
  title = {Interpretability in the Wild: a Circuit for Indirect Object Identification in {GPT}-2 Small},
  author = {Wang, Kevin and Variengien, Alexandre and Conmy, Arthur and Shlegeris, Buck and
    Steinhardt, Jacob},
  booktitle = {International Conference on Learning Representations},
  year = {2023},
  eprint = {2211.00593},
  archiveprefix = {arXiv}
}""",
    "kobayashi2020attention": """@inproceedings{kobayashi2020attention,
  title = {Attention is Not Only a Weight: Analyzing Transformers with Vector Norms},
  author = {Kobayashi, Goro and Kuribayashi, Tatsuki and Yokoi, Sho and Inui, Kentaro},
  booktitle = {Proceedings of EMNLP},
  year = {2020},
  eprint = {2004.10102},
  archiveprefix = {arXiv}
}""",
    "turner2023activation": """@misc{turner2023activation,
  title = {Steering Language Models With Activation Engineering},
  author = {Turner, Alexander Matt and Thiergart, Lisa and Leech, Gavin and Udell, David and Vazquez, Juan J.
    and Mini, Ulisse and MacDiarmid, Monte},
  year = {2023},
  eprint = {2308.10248},
  archiveprefix = {arXiv}
}""",
    "geva2023dissecting": """@inproceedings{geva2023dissecting,
  title = {Dissecting Recall of Factual Associations in Auto-Regressive Language Models},
  author = {Geva, Mor and Bastings, Jasmijn and Filippova, Katja and Globerson, Amir},
  booktitle = {Proceedings of EMNLP},
  year = {2023},
  eprint = {2304.14767},
  archiveprefix = {arXiv}
}""",
    "jain2019attention": """@inproceedings{jain2019attention,
  title = {Attention is not Explanation},
  author = {Jain, Sarthak and Wallace, Byron C.},
  booktitle = {Proceedings of NAACL},
  year = {2019},
  eprint = {1902.10186},
  archiveprefix = {arXiv}
}""",
    "rimsky2024steering": """@inproceedings{rimsky2024steering,
  title = {Steering Llama 2 via Contrastive Activation Addition},
  author = {Rimsky, Nina and Gabrieli, Nick and Schulz, Julian and Tong, Meg and Hubinger, Evan and
    Turner, Alexander Matt},
  booktitle = {Proceedings of ACL},
  year = {2024},
  eprint = {2312.06681},
  archiveprefix = {arXiv}
}""",
    "gurnee2025manifolds": """@article{gurnee2025manifolds,
  title = {When Models Manipulate Manifolds: The Geometry of a Counting Task},
  author = {Gurnee, Wes and others},
  journal = {Transformer Circuits Thread},
  year = {2025},
  url = {https://transformer-circuits.pub/2025/linebreaks/index.html}
}""",
    "lindsey2025biology": """@article{lindsey2025biology,
  title = {On the Biology of a Large Language Model},
  author = {Lindsey, Jack and Gurnee, Wes and Ameisen, Emmanuel and others},
  journal = {Transformer Circuits Thread},
  year = {2025},
  url = {https://transformer-circuits.pub/2025/attribution-graphs/biology.html}
}""",
    "ameisen2025circuit": """@article{ameisen2025circuit,
  title = {Circuit Tracing: Revealing Computational Graphs in Language Models},
  author = {Ameisen, Emmanuel and Lindsey, Jack and others},
  journal = {Transformer Circuits Thread},
  year = {2025},
  url = {https://transformer-circuits.pub/2025/attribution-graphs/methods.html}
}""",
    "dunefsky2024transcoders": """@inproceedings{dunefsky2024transcoders,
  title = {Transcoders Find Interpretable {LLM} Feature Circuits},
  author = {Dunefsky, Jacob and Chlenski, Philippe and Nanda, Neel},
  booktitle = {Advances in Neural Information Processing Systems},
  volume = {37},
  year = {2024},
  eprint = {2406.11944},
  archiveprefix = {arXiv}
}""",
}
LOGIT_LENS = ("nostalgebraist2020interpreting", "belrose2023eliciting")
CAUSAL_TRACE = (
    "meng2022locating",
    "vig2020investigating",
    "zhang2024towards",
    "heimersheim2024use",
    "hase2023does",
)
NEURONS = ("geva2022transformer", "bolukbasi2021interpretability", "sun2024massive")


def bibliography(keys: Iterable[str]) -> str:
    """The contents of a .bib file; unknown keys are an error, not a gap."""
    return "\n\n".join(BIBTEX[key] for key in keys) + "\n"
