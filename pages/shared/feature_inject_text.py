"""Formulas, limits and papers of interventions on features, in Markdown."""

from pages.shared.feature_graph_text import AMEISEN, DUNEFSKY

EDIT_FORMS = """
| write | it does |
|---|---|
| `L5F102@7:set=3` | the activation of feature 102 of layer 5 becomes 3 at token 7 |
| `L5F102@3+4:add=2` | it becomes 2 more than it is, at tokens 3 and 4 |
| `L5F102@-1:scale=-1` | it is multiplied, at the last token; -1 turns it round |
| `L5F102@all:ablate` | it becomes 0 wherever it is active, in new tokens of the continuation, too |
| `L5F102@7:suppress=2` | 2 of its decoder rows are taken away, **also where it is not active** |

Pieces are separated by commas. Layers, features and tokens count from 0; `5:102` and `5/102` are
read, too.
"""

INJECT_FORMULA = rf"""
$$
\delta_m[t] = \sum_{{f \text{{ edited at }} t}}
(a_f^\text{{to}} - a_f^\text{{from}})\, W_\text{{dec}}^{{f \to m}},
\qquad y_m[t] \leftarrow y_m[t] + \delta_m[t]
$$

$$
\text{{effect}} = \text{{edited}} - \text{{baseline}}, \qquad
\mathrm{{KL}} = \sum_v p_v \,(\log p_v - \log p'_v)
$$

- $y_m$: what the transcoder writes at layer $m$, for a cross-layer transcoder the outputs of all later MLPs
- $a^\text{{from}}$: what the encoder says once the edits of earlier layers act, so that `set` holds
- suppress: $\delta_m = -s\, W_\text{{dec}}$, whatever the activation is
- nothing frozen: the rest of the model answers; attention frozen: patterns of the baseline, MLPs answer
- everything frozen: patterns, norm scales and MLP outputs of the baseline; what is left is linear: the
  edges of an attribution graph

Methods: {AMEISEN}; {DUNEFSKY}.
"""

INJECT_METHOD = f"""
**Question.** What does a feature do when it is set, pushed, scaled or taken away?

**What is done.** The prompt is run once as it is and once with the edits. An edit adds the difference of
activations, times the feature's decoder rows, where the transcoder writes. What the transcoder does not
explain of the prompt stays as it is. Effects are always edited minus baseline, at the last token; other
features are read again in the edited run. A third run without the list must give the baseline bit for bit,
and the activations that the edits were computed for must be those of the edited run; both are checked every
time.

{INJECT_FORMULA}

{EDIT_FORMS}

**Limits.** A large push takes the model where it never was: watch ||delta|| / ||residual||. Adding a feature
can move words by its decoder row alone, without any use of it by the model; compare with everything frozen.
An effect of one feature can be made up by others, and effects of several need not add up.
"""
