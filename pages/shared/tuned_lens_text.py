"""What Help says about the tuned lens."""

FORMULA = (
    r"$$\mathrm{KL}_l = \frac{1}{n}\sum_{i}\sum_{v} p_{iv}\,\log\frac{p_{iv}}{q^{(l)}_{iv}},\qquad "
    r"q^{(l)} = \mathrm{softmax}\,\mathrm{unembed}\!\left(h_l + h_l W_l^\top + b_l\right)$$"
)
BELROSE = "[Belrose et al., 2023](https://arxiv.org/abs/2303.08112)"

TUNED_METHOD = f"""
**Question.** What does an early layer know, once its words are translated into those of the last layer?

**What is done.** The plain lens reads a residual state as if it were the last one. Layers need not keep
their knowledge in the same directions, so an early reading can be wrong although the knowledge is there. A
tuned lens ({BELROSE}) has one affine map per layer, trained so that the reading comes close to the model's
final output. Translator *l* belongs to what enters block *l* (`resid_pre`, or `resid_post` of the block
before); the output of the last block needs none. With all maps zero it is the plain lens.

{FORMULA}

**Training.** All layers at once, on the text that you give, by SGD with Nesterov momentum (or Adam), from
zero. A part of the text is held out: half of it decides which step each layer keeps, the other half is what
the quality is measured on. The first token of each context is left out of both: models rest attention
there.

**Files.** A folder with `config.json` and `params.safetensors`, in the layout of the tuned-lens package.
Its published lenses are pickles (`params.pt`), which can run code when they are opened, so they are not
read; the message says how to convert one. A lens is saved into `lenses/` of the model's folder if that can
be written, otherwise into your own data folder. If it was trained on other weights than the loaded ones,
the figure says so.

**Limits.** A translator can find what the layer holds but the model never uses. It is only as good as its
text: on other text it can be worse than the plain lens. It says nothing about positions that it was not
trained on.
"""
