"""Formulas and longer texts of the tabs of one feature and of the word search."""

WRITES_FORMULA = r"""
$$
\text{effect}_t = \Big(g \odot \sum_m W_\text{dec}[f, m]\Big) \cdot W_U[:, t]
\;-\; \text{mean over tokens}
$$

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
$$
\cos\big(W_\text{enc}[f], W_\text{enc}[g]\big) \qquad
\cos\Big(\sum_m W_\text{dec}[f, m], \sum_m W_\text{dec}[g, m]\Big)
$$
"""

SEARCH_FORMULA = r"""
$$\text{effect} = r \cdot (x_t - \bar{x}) \qquad \text{stands out} = \frac{\text{effect}}{\sqrt{r\, C\, r}}$$

$r$ is the feature's row, $x_t$ the direction of word $t$, $\bar{x}$ and $C$ mean and covariance of all words'
directions. For features that write, the best of their target layers counts.
"""

INDEPENDENT = (
    "Independent of the input: virtual weights say what could happen on some text, not what happens here."
)

WEIGHTS_METHOD = rf"""
**What a feature writes.** A feature of layer $l$ has one decoder row per target layer; a cross-layer
transcoder has rows for all layers from $l$ on. Each row, and their sum, is put through the final norm's
gain and the unembedding, relative to the mean over the vocabulary:
{WRITES_FORMULA}
The final norm has scale 1: the order of the words is right at every token, their size has to be divided by
the scale there. **What it reads** is its encoder row against the embeddings:
{READS_FORMULA}
Deeper than the first layers that is a hint at most; the texts on which it is active say more.

**Relatives.** Features whose encoder (or summed decoder) rows point the same way, in the same layer and in
others:
{ALIKE_FORMULA}
and virtual weights, what a unit of one feature adds straight to the pre-activation of another at the same
token:
{VIRTUAL_FORMULA}
These are **independent of the input**. Attention, norms and later MLPs are left out, and two features may
never be active together; the attribution graph has the weights of a prompt.

**Find by word.** Every row of every feature is compared with a word's direction, in one pass over all
decoders (or encoders), piece by piece:
{SEARCH_FORMULA}
A feature that writes a word does not cause it unless it is active. Several features of a layer with
practically one direction (cosine above 0.999, mostly features that died in training) are listed once.
Nothing of this goes over the network: where decoders are not on this machine, the page says how large they
are.
"""
"""For Help."""
