"""Formulas, limits and papers of steering, in Markdown."""

TURNER = "[Turner et al. 2023, *Activation Engineering*](https://arxiv.org/abs/2308.10248)"
RIMSKY = "[Rimsky et al. 2024, *Contrastive Activation Addition*](https://arxiv.org/abs/2312.06681)"

STEERING_FORMULA = rf"""
$$
x_p \leftarrow x_p + c\,v \qquad
v = \frac{{1}}{{|P|}}\sum_{{a \in P}} x(a) - \frac{{1}}{{|N|}}\sum_{{b \in N}} x(b)
$$

- $x_p$: the state (or what attention or the MLP adds to it) at token $p$, at one layer; $c$: the coefficient
- $P$, $N$: positive and negative prompts; $x(a)$: the last token's value, or the mean over tokens
- length of the edit: $\lVert c v \rVert$ over the median of $\lVert x_p \rVert$ over the steered tokens
- control: directions drawn evenly, each as long as $v$

Methods: {TURNER}, {RIMSKY}.
"""

CONVERGENCE_FORMULA = r"""
$$
M_{i,o} = \cos(x_o, x'_o) \qquad D_{i,o} = \frac{\lVert x'_o - x_o \rVert}{\lVert x_o \rVert}
$$

- $x_o$: the last token's state after layer $o$ without steering; $x'_o$: with the vector added at layer $i$
- absorbed at: the first $o > i$ with $M_{i,o}$ at or above the threshold
"""

STEERING_METHOD = f"""
**Question.** Which direction in the model's stream changes the answer, and how much of it is needed?

Make a vector from prompts, a token or a file, add it at one layer, and read what the model says at the last
token for a list of coefficients. The band shows random directions of the same length: what lies inside it is
what any push of that size does. The layer sweep adds it at each layer in turn; the convergence matrix shows
whether the state comes back, as direction and as distance; the routing map shows which heads change their
attention to the steered tokens.

**Limits.** An edit that is longer than the way between two tokens of the prompt is off the distribution, and
marked. That a vector moves an answer does not show that the model uses this direction by itself.

Papers: {TURNER}; {RIMSKY}.
"""
