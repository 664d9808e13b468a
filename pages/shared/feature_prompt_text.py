"""Formulas, limits and papers of the features of a prompt and of the probe, in Markdown."""

from pages.shared.attribution_text import NANDA
from pages.shared.feature_graph_text import AMEISEN, DUNEFSKY

PROMPT_FORMULA = r"""
$$
a_l[t] = \phi(W_\text{enc}^l\, x_l[t] + b_\text{enc}^l) \qquad
\hat y_m[t] = b_\text{dec}^m + \sum_{l \le m} a_l[t]\, W_\text{dec}^{l \to m}
$$
"""
EFFECT_FORMULA = r"""
$$
\text{effect} = a_s[t] \sum_m W_\text{dec}^{s \to m} \cdot \frac{\partial\, \text{logit}}{\partial\, y_m[t]}
$$
"""
PROBE_FORMULA = r"""
$$
\ell_2[t] = \big\lVert \text{logits}(y_m[t] \mathrel{+}= s\, W_\text{dec}^{f \to m}\ \forall m) -
\text{logits} \big\rVert \qquad
\text{concentration} = \frac{\ell_2[\text{last}]}{\text{upper median of } \ell_2}
$$
"""

PROMPT_METHOD = f"""
**Question.** Which features of a transcoder are active on this prompt, where, and how well do they account
for what the MLPs write?

**What is done.** Every layer's encoder reads the model's state at every token; features above 0 (above their
threshold, where the transcoder has thresholds) are listed, and what they write is compared with what the MLPs
write. The list can be sorted by the largest activation, by the sum over chosen tokens, or by the effect on
the target's logit: activation times the slope of the logit, to first order, with attention, norms and later
MLPs answering. Without a token to compare with, the logit is taken above the mean of all logits.

{PROMPT_FORMULA}

{EFFECT_FORMULA}

**Limits.** Leading special tokens are masked: hundreds of features answer to them, and no answer means much.
Activations of two features are not in one unit. An effect is a slope, not what the logit loses when the
feature is taken off; the Intervene tab takes it off. Densities are known only where a corpus pass was made.
Methods: {AMEISEN}; {DUNEFSKY}; {NANDA}.

**Probe.** One layer's strongest features at every token, how many of them the first and last token share
(Jaccard index), and how far the logits at the last token move when one feature's rows are added at each token
in turn; candle-mi's position-sweep files are read, checked and written. A large change by the last token is
expected, because it reaches the logits through the stream itself, and is no sign of planning.

{PROBE_FORMULA}
"""
