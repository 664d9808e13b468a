"""Formulas, papers and limits of the attention page, in Markdown."""

OLSSON = "[Olsson et al. 2022, *In-context Learning and Induction Heads*](https://arxiv.org/abs/2209.11895)"
WANG = "[Wang et al. 2023, *Interpretability in the Wild*](https://arxiv.org/abs/2211.00593)"
KOBAYASHI = "[Kobayashi et al. 2020, *Attention is Not Only a Weight*](https://arxiv.org/abs/2004.10102)"
ELHAGE = (
    "[Elhage et al. 2021, *A Mathematical Framework for Transformer Circuits*]"
    "(https://transformer-circuits.pub/2021/framework/index.html)"
)
JAIN = "[Jain & Wallace 2019, *Attention is not Explanation*](https://arxiv.org/abs/1902.10186)"

SQUARE_FORMULA = {
    "weights": rf"""
$$
A_{{qk}} = \mathrm{{softmax}}_k\big(\mathrm{{softcap}}(q_q \cdot k_k\, s) + \text{{mask}}\big),
\qquad \textstyle\sum_k A_{{qk}} = 1
$$

Notation: {ELHAGE}. Limits: {JAIN}.
""",
    "value_weighted": rf"""
$$
\lVert A_{{qk}}\, v_k W_O \rVert_2 = A_{{qk}}\, \lVert v_k W_O \rVert_2
$$

Method: {KOBAYASHI}. Its length in the residual stream, not its effect.
""",
    "contribution": rf"""
$$
A_{{qk}}\, (v_k W_O) \cdot d_q,
\qquad \textstyle\sum_k A_{{qk}} (v_k W_O) \cdot d_q = (z_q W_O) \cdot d_q
$$

$d_q$ reads the target's logit from the residual stream at the query, with the norm's scale frozen at that
query. Before the final softcap, where a family has one. Method: {ELHAGE}.
""",
}

HEADS_FORMULA = rf"""
- entropy $-\sum_k A_{{qk}} \ln A_{{qk}}$, distance $\sum_k A_{{qk}} (q - k)$
- previous token $A_{{q,q-1}}$, first token $A_{{q0}}$
- duplicate token $\sum_{{k<q,\, t_k = t_q}} A_{{qk}}$, induction $\sum_{{k<q,\, t_{{k-1}} = t_q}} A_{{qk}}$

Means over queries $q \geq 1$. Effect: $(z W_O) \cdot d$ at the last token. {OLSSON}; {WANG}.
"""

SCORES_FORMULA = rf"""
On BOS $+\,R + R$ with $L$ random tokens in $R$: induction $A_{{q,\,q-L+1}}$, duplicate token $A_{{q,\,q-L}}$,
each for $q$ in the second $R$; previous token $A_{{q,\,q-1}}$, current token $A_{{qq}}$, first token
$A_{{q0}}$. Means over queries and sequences. {OLSSON}.
"""

ATTENTION_METHOD = f"""
**Question.** Which tokens does each head read, and what does it move from there?

**What is shown.** The pattern of every head over the prompt, from one forward pass. *Weights*: how a query
divides its attention. *Value-weighted*: how long the vector is that is moved, because a large weight on a
small value moves nothing ({KOBAYASHI}). *Contribution to target*: that vector read directly as the answer's
logit, which adds up to the head's direct effect ({ELHAGE}). Two prompts of equal length can be compared.

**Heads by a number.** Entropy, distance, attention to the previous token, to earlier copies (duplicate token)
and to what followed them (induction), to the first token, and the direct effect on the target.

{HEADS_FORMULA}

**Head types.** The same habits on random tokens that are repeated, where no meaning can help: {OLSSON}.
Labels are thresholds.

**Limits.** Attention says where a head reads, not what that does ({JAIN}). Many heads rest on the first token
when they have nothing to do: mask it. Of prompts over 256 tokens a window is drawn; the numbers per head are
over all of it.
"""
