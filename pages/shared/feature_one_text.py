"""Formulas and longer texts of the tabs of one feature and of the word search."""

WRITES_FORMULA = r"""
$$\text{effect}_t = \Big(g \odot \sum_m W_\text{dec}[f, m]\Big) \cdot W_U[:, t]
\;-\; \text{mean over tokens}$$

$m$ runs over the target layers, $g$ is the final norm's gain (LayerNorms also take the mean off the row). See
Ameisen et al. 2025, *Circuit Tracing*; Dunefsky et al. 2024.
"""

READS_FORMULA = r"""
$$\text{read}_t = W_E[t] \cdot W_\text{enc}[f]$$

With a norm in front of the feature its gain is in it, at scale 1.
"""

VIRTUAL_FORMULA = r"""
$$V(s \to t) = \sum_{m} W_\text{dec}[s, m] \cdot W_\text{enc}[t]$$

over the target layers $m$ of $s$ that $t$ can see. No input is in it.
"""

ALIKE_FORMULA = r"""
$$\cos\big(W_\text{enc}[f], W_\text{enc}[g]\big) \qquad
\cos\Big(\sum_m W_\text{dec}[f, m], \sum_m W_\text{dec}[g, m]\Big)$$
"""

SEARCH_FORMULA = r"""
$$\text{effect} = r \cdot (x_t - \bar{x}) \qquad \text{stands out} = \frac{\text{effect}}{\sqrt{r\, C\, r}}$$

$r$ is the feature's row, $x_t$ the direction of word $t$, $\bar{x}$ and $C$ mean and covariance of all words'
directions. For features that write, the best of their target layers counts.
"""

INDEPENDENT = (
    "Independent of the input: virtual weights say what could happen on some text, not what happens here."
)
