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

LOOP_FORMULA = r"""
$$
H = B(B(\ldots B(H_0)))\;\text{(depth times)}
\qquad\text{or, with a strength } s\text{:}\quad H = B(H_0 + s\, d)
$$

$H_0$: what enters the first layer of the block $B$; $d$: mean embedding of the rhymes, of length 1. The
experiment is that of candle-mi's recurrent feedback.
"""

LOOP_METHOD = f"""
**Question.** Does a model that runs some of its layers again write a better second line?

**What is done.** A block of layers runs several times, on its own output, or with the direction of the wanted
rhymes added to its input. Our own couplets are continued greedily, before and after; a hit is a second line
whose last word is one of the rhymes. Running the block once is the model itself, bit for bit, and
that is checked.

{LOOP_FORMULA}

**Limits.** Eight couplets are few. With feedback every round begins at the same input, so the depth changes
nothing. Feeding in the rhymes and then counting them shows that the direction works, not that the model
plans.
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
