"""Formulas and papers of the methods, shown beside figures and on the help page, in Markdown."""

ROME = (
    "[Meng et al. 2022, *Locating and Editing Factual Associations in GPT*](https://arxiv.org/abs/2202.05262)"
)
ZHANG_NANDA = (
    "[Zhang & Nanda 2023, *Towards Best Practices of Activation Patching*](https://arxiv.org/abs/2309.16042)"
)
HEIMERSHEIM = (
    "[Heimersheim & Nanda 2024, *How to use and interpret activation patching*]"
    "(https://arxiv.org/abs/2404.15255)"
)
HASE = "[Hase et al. 2023, *Does Localization Inform Editing?*](https://arxiv.org/abs/2301.04213)"

TRACE_FORMULA = rf"""
$$P[l, t] = \frac1n \sum_{{i=1}}^{{n}} P\big(\text{{answer}} \mid \text{{corrupted run }} i,\; h_t^{{(l)}}
\leftarrow \text{{clean}}\big)$$

- indirect effect = $P[l,t] - P_\text{{corrupted}}$, total effect = $P_\text{{clean}} - P_\text{{corrupted}}$
- recovered share = indirect effect / total effect (0 = corrupted run, 1 = clean run)
- KL recovery = $1 - \mathrm{{KL}}(\text{{clean}}\,\|\,\text{{patched}}) /
\mathrm{{KL}}(\text{{clean}}\,\|\,\text{{corrupted}})$

Method: {ROME}.
"""
