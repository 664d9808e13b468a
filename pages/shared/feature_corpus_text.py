"""Formulas and longer texts about features over a corpus."""

FORMULA = r"""
$$
\text{density} = \frac{\text{tokens at which it is active}}{\text{tokens that count}}\qquad
\text{excess} = P(\text{other} \mid \text{this}) - P(\text{other})
$$
"""

CORPUS_METHOD = rf"""
**Question.** On which texts is a feature active, how often, and together with which others?

**What is done.** `python -m mi_core corpus-pass` runs a text of any size through model and transcoder. It
counts for every feature the tokens at which it is active, keeps its largest activation, a histogram of
logarithms, its strongest examples (one per row of text) and examples drawn at random from equal parts of its
active tokens, so that weak activations are seen, too. Leading special tokens never count.
{FORMULA}
What is active together with a feature is counted at a random sample of its active tokens (their number is
shown) and compared with how often the other is active anyway. A feature that is never active is called dead
on this text; another text may wake it.

**Files.** `features/index.json.gz` and `layer_*.bin` are those that circuit-tracer's viewer reads, so files
of others are read as well, feature by feature. Densities and largest activations lie beside them in a file
of Lantern's own, with the fingerprint of the weights: made for other weights, they are refused.

**Limits.** Everything here is about one corpus; its name and size stand in every caption. Strongest examples
alone make a feature look cleaner than it is: read the ones over its whole range.
"""
