"""Formulas, papers and limits of the neurons page, in Markdown, for its cards and for the help page."""

GEVA = (
    "[Geva et al. 2022, *Transformer Feed-Forward Layers Build Predictions by Promoting Concepts in the "
    "Vocabulary Space*](https://arxiv.org/abs/2203.14680)"
)
BOLUKBASI = (
    "[Bolukbasi et al. 2021, *An Interpretability Illusion for BERT*](https://arxiv.org/abs/2104.07143)"
)
SUN = "[Sun et al. 2024, *Massive Activations in Large Language Models*](https://arxiv.org/abs/2402.17762)"

SURVEY_FORMULA = rf"""
$$
a_{{l,j}}[t] = \text{{mlp\_post}}_l[t, j],
\qquad
\text{{selectivity}} = \frac{{\overline a_\text{{kind}} - \overline a_\text{{others}}}}
{{\text{{sd}}_t\, a[t]}}
$$

First tokens and BOS do not count: {SUN}.
"""

VOCABULARY_FORMULA = rf"""
$$
\text{{effect}}_w = \frac{{\partial\, \text{{logit}}_w}}{{\partial a_{{l,j}}}}
= \Big(g \odot \frac{{C\, W_\text{{out}}[j]}}{{s}}\Big) \cdot W_U[:, w]
$$

$g$ is the final norm's gain, $C$ takes off the mean (LayerNorm only), $s$ is the norm's scale at one token,
held fixed; in models with a norm after the MLP, $W_\text{{out}}[j]$ goes through that norm's gain and scale
first. Direct path only, before any softcap. Method: {GEVA}.
"""

METHOD = f"""
**Question.** What makes single neurons of the MLPs fire, and what do they write?

**What is shown.** A neuron is one coordinate of `mlp_post`, what enters an MLP's down projection: after the
non-linearity, in gated MLPs the product of both branches (it can be negative). Texts are read once; of every
neuron only sums and its strongest tokens are kept, so memory does not grow with the texts. A neuron's colours
have one scale, fixed by the set of texts: white is 0, the ends are its largest absolute activation. A text of
your own never changes it.

{SURVEY_FORMULA}

**What it writes.** {VOCABULARY_FORMULA}

**Limits.** The strongest contexts say what drives a neuron to its maximum, not what it does the rest of the
time, and a pattern seen in ten maxima can be an accident of the texts ({BOLUKBASI}). The leaders of a ranking
of thousands lead partly by luck. Most neurons do several unrelated things. An active neuron need not matter
for the answer: knock it out, or look at its attribution. In early layers the direct path is a small part of
what a neuron does.
"""
