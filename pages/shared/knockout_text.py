"""Formulas, limits and papers of the knock-out, in Markdown."""

GEVA = "[Geva et al. 2023, *Dissecting Recall of Factual Associations*](https://arxiv.org/abs/2304.14767)"
WANG = "[Wang et al. 2023, *Interpretability in the Wild*](https://arxiv.org/abs/2211.00593)"

FORMS = """
| write | it does |
|---|---|
| `L1H2:zero`, `:mean`, `:resample`, `:scale=0.5` | head 2 of layer 1 (its output before W_O) |
| `L1H2@3+4:zero` | only at tokens 3 and 4 |
| `L4attn:zero`, `L4mlp:mean` | all that a layer's attention, or its MLP, adds |
| `L4R@5:mean` | the residual stream after layer 4 at token 5 |
| `L3N102:0`, `L3N102:mean` | neuron 102 of layer 3, held at a number or at its mean |
| `e14-2@L1H2`, `@L1H2+L1H3`, `@L1`, `@all` | token 14 no longer reads token 2: one head, some, a layer, all |
| `r14@L1H2`, `c2@all` | cut a whole row (token 14 reads nothing) or column (nobody reads token 2) |
| `e14-2@L1H2:scale=2`, `:set=0.7` | after the softmax: times 2 and the row divided by its sum; exactly 0.7 |

Pieces are separated by commas. Layers, heads, tokens and neurons count from 0.
"""

KNOCKOUT_FORMULA = rf"""
$$
\text{{effect}} = m(\text{{edited}}) - m(\text{{baseline}}), \qquad
\mathrm{{KL}} = \sum_v p_v \,(\log p_v - \log p'_v)
$$

- cut: score $= -\infty$ before the softmax, after a softcap; the row is the softmax of the others
- scale: $a_k \leftarrow f a_k$, then the row is divided by its sum; set: $a_k \leftarrow v$, the others
  times $(1-v)/\sum_{{j \neq k}} a_j$
- mean: over the reference prompts, per position if all are as long as the prompt, else over all positions;
  resample: the value that prompt B has at the same position

Methods: {GEVA}; {WANG}.
"""

KNOCKOUT_METHOD = f"""
**Question.** What changes when parts of the model are taken away?

**What is done.** The prompt is run once as it is and once with the list of interventions. Probabilities,
logits and ranks are those of the last position; effects are always edited minus baseline. Both are also
continued greedily, with the edits live at every step. The list works the same in any order: cuts come first,
then factors, then values, and two values for one activation are refused. A third run without the list must
give the baseline bit for bit, which is checked every time.

{KNOCKOUT_FORMULA}

{FORMS}

**Limits.** Zero is not "nothing": models rely on the mean of what a part writes, so zeroing breaks more than
it removes; mean and resample ask more gently. Without an effect a part can still matter, because others stand
in for it (backup heads). The effects of single interventions need not add up to their joint effect. A row of
attention that lost all its keys gives zero, which no model was trained for; such rows are counted and named.
"""
