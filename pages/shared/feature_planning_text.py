"""Formulas of the planning tab, our own Markdown."""

PLANNING_FORMULA = r"""
At one token $p$, in every layer $m$ that the features write to:

$$
y_m[p] \leftarrow y_m[p] + s\Big(\sum_{f\,\in\,\mathrm{inject}} W^{f}_{m}
  - \sum_{f\,\in\,\mathrm{suppress}} W^{f}_{m}\Big)
$$

with $W^f_m$ the decoder row of feature $f$ for layer $m$ and $s$ the strength. Direct: only
$\mathrm{unembed}\big(\mathrm{norm}(x_{\mathrm{out}} + \textstyle\sum_m \Delta_m)\big)$; mediated: the rest.
Experiment: Lindsey et al., *On the Biology of a Large Language Model* (2025), planning in poems.
"""

ROUTING_FORMULA = r"""
$\Delta_{l,h} = A^{\mathrm{pushed}}_{l,h}[q, p] - A_{l,h}[q, p]$, $A$ = attention after the softmax, $p$ = the
pushed token, $q$ = the reading one; total $= \sum_{l,h} |\Delta_{l,h}|$.
"""

PLANNING_METHOD = r"""
**Planning.** Features are pushed at one token at a time: what they write, times a strength, is added to every
layer that they write to, and what the model then says at the last token is read. Candidates come from you, or
are picked: features of a second prompt that make it say its word, by activation times slope, before its last
token. Suppressing pushes the other way, even where a feature is not active.

A rise at the **output position** is no plan: there the features write into the state that is read. The figure
marks it, and splits the change of the logit: *direct* = straight to the final norm and the unembedding,
*mediated* = the rest; the *linear* line holds attention, norms and MLPs as the attribution graph does.
Controls are other features of the same layers, and the push turned at random (all lengths and the angles
between layers kept). Injected and suppressed features are also shown alone, as taking one word away is
sometimes enough.

**Limits.** Strengths far above what features reach in text push the model off its distribution; the card
warns where the push is longer than the state. Picking is first order. One prompt is one example.

**Steering by features** edits at every token, or at the prompt's or the new ones, while the text grows. Add
and suppress push the same everywhere. Set, scale and ablate read the feature anew at every token, once all
edits before it act, and push by the difference; a figure shows what was read. Every step equals a whole pass
over the text so far with the same edits, and each run checks that on its finished text.
"""
