"""Formulas, limits and papers of attribution graphs, in Markdown."""

AMEISEN = (
    "[Ameisen et al. 2025, *Circuit Tracing*]"
    "(https://transformer-circuits.pub/2025/attribution-graphs/methods.html)"
)
DUNEFSKY = (
    "[Dunefsky et al. 2024, *Transcoders Find Interpretable LLM Feature Circuits*]"
    "(https://arxiv.org/abs/2406.11944)"
)

GRAPH_FORMULA = rf"""
$$
A[t, s] = a_s \sum_{{m = l_s}}^{{l_t - 1}} W_\text{{dec}}^{{s \to m}} \,
J^\top_{{(l_t, p_t) \to (m, p_s)}} \, v_t
\qquad
\sum_s A[t, s] + \text{{remainder}}_t = \text{{value}}_t
$$

- $a_s$: activation of the source; errors and tokens: their vector in place of $a_s W_\text{{dec}}$
- $J$: the model from layer $m$ to layer $l_t$, attention patterns and norm scales held fixed, MLPs left out
- $v_t$: the encoder's row of a feature; for a logit its unembedding minus the mean over the vocabulary
- remainder: biases, and what the masked first token's MLPs add; the sum rule is checked in every row
- influence of a node: the share of paths from the targets that pass it, edges normalised by row
- pruning keeps nodes, then edges, until their influence reaches the share that is set

Method: {AMEISEN}; {DUNEFSKY}.
"""

EFFECTS_FORMULA = rf"""
$$
\text{{change}}_s = -1
\qquad
\text{{change}}_t = \frac{{1}}{{a_t}} \sum_u A[t, u] \, \text{{change}}_u
\qquad
\text{{predicted}} = \sum_k w_k \sum_u A[k, u] \, \text{{change}}_u
$$

- $s$: the node that is taken away; $t$: features above it, which answer along their own edges
- $k$: logits of the graph; $w_k$: 1 for the chosen token; 1 and $-1$ for a difference; in the weighted sum
  what each counts in the graph, its probability
- actual: the model runs without what $s$ writes, and the same sum of its logits is read
- effects are edited minus baseline
- logits before the softcap, each minus the vocabulary's mean, which cancels in a difference
- nothing frozen, or all attention patterns held at those of this prompt

Method: {AMEISEN}.
"""

GRAPH_METHOD = f"""
**Question.** Which features, at which tokens, made the model say this, and by which way?

**What is done.** One pass gives the active features of the transcoder, its errors and the tokens.
Attention patterns and norm scales are then held at their values on this prompt, and the MLPs are replaced
by the features' outputs. What is left is linear: every feature, error and token adds a definite number to
the pre-activation of every later feature and to the logits. These numbers are the edges. Together with
one explicit remainder (biases and the masked first token) they add up to each pre-activation, which is
checked in every row.

{GRAPH_FORMULA}

**Your own subgraph.** Pin nodes, group those that mean the same, and read the two scores: how much of the
output your nodes explain when every other feature counts as error.

**Dense features.** Features that are active on many tokens of a corpus can be hidden. They are only not
drawn: pruning, influence and scores keep them, and the caption says how many there are.

**Does the model agree?** Every shown node is taken away in the real model, one at a time, and what the
graph predicts stands against what happens. Both are read on the same target: any token that the graph
explains, the difference of two of them, the weighted sum of all, or the logit difference that the graph
was made for. Effects are edited minus baseline, in logits.

**Limits.** Attention is taken as given: why a head attends where it does is not in the graph; the head
loadings of an edge say only which heads carry it. Errors are what the transcoder misses, and a graph with
a low replacement score is mostly about errors. Edges are effects in the frozen model; the scatter of
predicted against actual effects shows how far the real model agrees.
"""
