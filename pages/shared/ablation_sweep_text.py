"""How sweeps of ablations and dose curves of attention are made, in Markdown, for Help."""

SWEEP_METHOD = r"""
**Question.** Which parts of the model does the answer need, and how much of one edge of attention?

**What is done.** Every part is taken out once, one at a time: every head, every layer's attention and MLP,
every edge from the last token to another token, or every token as something that is read (from a layer on;
the token itself does not read itself either). A head or a module is set to zero, to its mean over the
bundled reference prompts, or to its value in a second prompt of equal length; edges are cut before the
softmax, so the rest of the row still sums to 1. The figure shows, at the last token,

$$
\text{effect}_p = m(\text{run without } p) - m(\text{baseline})
$$

**Noise floor.** The median of |effect| over all parts: half of them do no more. The runs themselves have no
randomness.

**Sum and joint effect.** The list of interventions is also run one by one and all together. If the parts do
not interact, the joint effect is the sum of the single ones. Parts that can stand in for each other have a
larger joint effect. Probabilities and ranks do not add up even without interaction; logits are fairer here.

**Dose of an edge.** The attention $a$ of one query to one key is multiplied by $f$ and the row is divided
by its sum, $a \to fa / (1 - a + fa)$; or it is set to $s$ and the rest of the row is multiplied by $(1 - s)
/ (1 - a)$. Between the levels the curve is straight, and a wished effect outside the curve has no level.

**Limits.** A part without effect may still do the work when another one steps in. Zero is a value that the
model has never seen; mean and resample are milder. Half precision adds an error of its own, which a warning
names.

Method: [Wang et al. 2023, *Interpretability in the Wild*](https://arxiv.org/abs/2211.00593); [Heimersheim
and Nanda 2024](https://arxiv.org/abs/2404.15255).
"""
