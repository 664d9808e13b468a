"""What the help page says about the model page."""

MODEL_METHOD = r"""
**Question.** What is the model made of, and what does it say next?

**Weights.** Every parameter is counted exactly once; the card checks the sum, and that the squares of all
rows add up to those of the parameters. Names and shapes are those of TransformerLens; fused matrices are
split, and nothing is folded: norms keep their gains.

$$
\lVert W\rVert_F=\sqrt{\textstyle\sum_{ij}W_{ij}^2}\qquad \sigma_{\max}=\max_x\lVert Wx\rVert/\lVert x\rVert
\qquad \text{stable rank}=\lVert W\rVert_F^2/\sigma_{\max}^2
$$

Singular values are exact (no power iteration), in float64, and only computed when you ask for them.

**Next token and surprise.** Natural logarithms, in float64, from the model's own logits with every softcap:

$$P(x\mid x_{\le t})=\mathrm{softmax}(\text{logits}_t/T)_x\qquad \text{surprise}(t)=-\log P(x_t\mid x_{<t})$$

The mean surprise is the model's loss on the text. The temperature changes the table of next tokens only.

**Config.** A key of config.json that neither Lantern nor transformers reads is named: the model may have
been meant to compute something else.

**Limits.** A large norm is not importance: a norm before or behind a matrix can undo it. Tokens at the
start of a text are surprising because little is known yet.
"""
