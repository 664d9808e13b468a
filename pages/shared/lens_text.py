"""Formulas and papers of the logit lens, shown beside figures and on the help page, in Markdown."""

LENS = (
    "[nostalgebraist 2020, *interpreting GPT: the logit lens*]"
    "(https://www.lesswrong.com/posts/AcKRB8wDpdaN6v6ru/interpreting-gpt-the-logit-lens)"
)
TUNED = (
    "[Belrose et al. 2023, *Eliciting Latent Predictions from Transformers with the Tuned Lens*]"
    "(https://arxiv.org/abs/2303.08112)"
)

LENS_FORMULA = rf"""
$$
\text{{lens}}[l, t] = \text{{softmax}}\big(\text{{softcap}}(W_U\,\text{{norm}}(x^{{(l)}}_t) + b_U)\big)
$$

- entropy $= -\sum_v p(v) \log p(v)$, in nats: 0 = certain
- KL $= \sum_v p_\text{{final}}(v) \log \frac{{p_\text{{final}}(v)}}{{p_\text{{lens}}(v)}}$, in nats, from the
  model's final output to the lens; 0 = the same
- rank = 1 + number of tokens whose logit is higher than the target's: 1 = top; tied tokens share the best
  rank

Norm, unembedding and softcap are the model's own. Method: {LENS}; limits: {TUNED}.
"""

LENS_STEPS_FORMULA = r"""
$$
\Delta_\text{attention}[l] = \log p(\text{lens of resid\_mid}_l) - \log p(\text{lens of resid\_pre}_l),
\qquad
\Delta_\text{MLP}[l] = \log p(\text{lens of resid\_post}_l) - \log p(\text{lens of resid\_mid}_l)
$$

All changes add up from the lens of the embedding to the model's own output.
"""

SWEEP_FORMULA = rf"""
- appears = first layer whose top token is the right answer (its first token)
- stabilises = first layer from which on it is the top token in every layer, to the last
- crystallisation depth = stabilises / number of layers: 0 = after the first block; never, if the model itself
  says something else

Method: {LENS}.
"""

LENS_METHOD = f"""
**Question.** What would the model say if it stopped at this layer?

**What is done.** The vector at a layer and a token goes through the model's own final norm, unembedding,
scales and softcaps, as if no further block came. The last row of the stream is then the model's output
itself; this is checked on every prompt, and a model for which it fails is refused.

{LENS_FORMULA}

**Sites.** The residual stream before, inside and after each block; or what attention or the MLP alone adds.
The norm brings such an output to full size: its lens says in which direction the component writes, not how
much. Parallel blocks have nothing between attention and MLP.

**Limits.** Early layers need not use the language of the last one: a lens that shows nonsense there does not
prove that nothing is there. A tuned lens ({TUNED}) translates first. And a prediction that can be read is not
thereby used: for causes, see the causal trace.

**Prediction sweep.** The same lens at the last token of many prompts.

{SWEEP_FORMULA}
"""
