"""Formulas of the planning tab, our own Markdown."""

PLANNING_FORMULA = r"""
At one token $p$, in every layer $m$ that the features write to:

$$y_m[p] \leftarrow y_m[p] + s\Big(\sum_{f\,\in\,\mathrm{inject}} W^{f}_{m}
  - \sum_{f\,\in\,\mathrm{suppress}} W^{f}_{m}\Big)$$

with $W^f_m$ the decoder row of feature $f$ for layer $m$ and $s$ the strength. Direct: only
$\mathrm{unembed}\big(\mathrm{norm}(x_{\mathrm{out}} + \textstyle\sum_m \Delta_m)\big)$; mediated: the rest.
Experiment: Lindsey et al., *On the Biology of a Large Language Model* (2025), planning in poems.
"""

ROUTING_FORMULA = r"""
$\Delta_{l,h} = A^{\mathrm{pushed}}_{l,h}[q, p] - A_{l,h}[q, p]$, $A$ = attention after the softmax, $p$ = the
pushed token, $q$ = the reading one; total $= \sum_{l,h} |\Delta_{l,h}|$.
"""
