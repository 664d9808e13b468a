"""Formulas of the circuits section, shown beside its figures and on the help page, in Markdown."""

ELHAGE = (
    "[Elhage et al. 2021, *A Mathematical Framework for Transformer Circuits*]"
    "(https://transformer-circuits.pub/2021/framework/index.html)"
)

COPYING_FORMULA = rf"""
$$
\text{{score}} = \frac{{\sum_i \operatorname{{Re}} \lambda_i}}{{\sum_i |\lambda_i|}}, \qquad
\lambda_i \text{{ the eigenvalues of }} W_E\, W_V W_O\, W_U
$$

Exact, through a matrix of $d_\text{{head}} \times d_\text{{head}}$ with the same nonzero eigenvalues.
Method: {ELHAGE}.
"""

HEAD_VIEWS_FORMULA = rf"""
$$
W_V W_O = \sum_i s_i\, u_i v_i^\top \;\;(\text{{OV}}), \qquad
W_Q W_K^\top = \sum_i s_i\, u_i v_i^\top \;\;(\text{{QK}})
$$

- left reading of token $a$: $W_E[a] \cdot u_i$
- right reading of token $b$: $v_i\, W_U[:, b]$ (OV, through the final norm's gain) or $W_E[b] \cdot v_i$
  (QK), minus its mean over the vocabulary

Circuits: {ELHAGE}.
"""

COMPOSITION_FORMULA = rf"""
$$
\text{{Q}}: \frac{{\|\text{{OV}}_1\, \text{{QK}}_2\|}}{{\|\text{{OV}}_1\| \|\text{{QK}}_2\|}} \qquad
\text{{K}}: \frac{{\|\text{{OV}}_1\, \text{{QK}}_2^\top\|}}{{\|\text{{OV}}_1\| \|\text{{QK}}_2\|}} \qquad
\text{{V}}: \frac{{\|\text{{OV}}_1\, \text{{OV}}_2\|}}{{\|\text{{OV}}_1\| \|\text{{OV}}_2\|}}
$$

for row vectors $x W$, with Frobenius norms, $\text{{OV}} = W_V W_O$, $\text{{QK}} = W_Q W_K^\top$. Random:
$1/\sqrt{{d_\text{{model}}}}$. Method: {ELHAGE}.
"""

CIRCUITS_METHOD = f"""
**Question.** What can a head do, by its weights alone: does it copy, what does it read and write, where does
it look, and which later heads read what it writes?

**Copying score.** {COPYING_FORMULA}

**Directions of a head.** {HEAD_VIEWS_FORMULA}

**Composition.** {COMPOSITION_FORMULA}

**Folded in**: gains (and centring) of the norms before the heads, on queries and keys, behind the heads and
before the unembedding. **Left out**: the scales of these norms, biases (a query's bias can prefer some keys
whatever the query), position embeddings, MLPs, and for QK what rotary embeddings make of the distance. Later
layers read far more than token embeddings, so readings through the vocabulary are a first look, best in early
(read) and late (write) layers.
"""
