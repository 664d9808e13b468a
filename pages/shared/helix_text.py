"""Formula, paper and limits of the character-count helix, in Markdown, for its cards and for Help."""

GURNEE = (
    "[Gurnee et al. 2025, *When Models Manipulate Manifolds: The Geometry of a Counting Task*]"
    "(https://transformer-circuits.pub/2025/linebreaks/index.html)"
)

HELIX_FORMULA = rf"""
$$
m_l[c] = \operatorname{{mean}}_{{t:\ \text{{count}}(t) = c}}\ \text{{resid}}_l[t],
\qquad
C = M - \overline m,
\qquad
C C^\top = U \Lambda U^\top,
\qquad
\text{{PC}}_k[c] = \sqrt{{\lambda_k}}\, U_{{ck}}
$$

$\text{{count}}(t)$ is the number of characters (Unicode code points) between the start of the line and the
start of token $t$. Exact eigendecomposition in float64. Paper: {GURNEE}.
"""

HELIX_METHOD = f"""
**Question.** Does the model know how far into the line it is, and what shape has that knowledge?

**What is shown.** Texts are joined and wrapped anew at every width; existing line breaks become spaces. Every
piece that is run starts at a line's start, with the BOS token where the tokenizer has one. A letter with a
combining mark is two characters, a joined emoji several; bytes and columns play no part. Tokens that reach
over a line break and the first token of a piece are not averaged. One pass gives the sums of all layers, so
another layer needs no new run.

{HELIX_FORMULA}

**Control.** The same sums with the counts shuffled among the tokens: as many tokens per count, no counting
in them. What a layer shows beyond it is not noise; it still need not be counting, because kinds of words
differ along a line.

**Limits.** Means hide the spread of the single tokens. Large counts come from wide lines only. A model that
was hardly trained on wrapped lines has no reason to count: what you see then is what follows a line break.
"""
