"""Formula, limits and paper of generation with edits, in Markdown."""

TURNER = (
    "[Turner et al. 2023, *Steering Language Models With Activation Engineering*]"
    "(https://arxiv.org/abs/2308.10248)"
)

GENERATION_FORMULA = rf"""
$$
\mathrm{{KL}}_s = \sum_v P(v)\,\log\frac{{P(v)}}{{P_{{\text{{edited}}}}(v)}}
\quad\text{{after the prompt and the default tokens before step }} s
$$

$$
\text{{resid}}_l \mathrel{{+}}= c\,(r_+ - r_-),\qquad r = \text{{state after layer }} l
\text{{ at the last token, mean over texts}}
$$

Steering by a difference of activations: {TURNER}.
"""

GENERATION_METHOD = f"""
**Question.** What does the model write while it is edited?

**What is done.** The prompt is continued twice with the same seed: by the model as it is, and with
interventions, a steering vector or both, live at every step. An edit at named tokens of the prompt stays
there; one that names no tokens acts on the prompt, on generated tokens, or on all, as you choose. The last
token of the prompt chooses the first new token, so edits of generated tokens show from the second one on.
Keys and values are kept from step to step, which gives exactly what a whole pass over the text so far would
give; each figure has a check of it.

{GENERATION_FORMULA}

**Limits.** Tokens count as changed where the two texts differ at the same step: after the first difference
nothing is realigned, so one inserted word marks all that follows. KL follows the default text only, so that
it compares like with like. A large steering vector leaves the states that the model knows, and any text that
follows says little about it; compare several coefficients. One greedy text is one sample: look at several
seeds.
"""
