"""Captions of figures of neurons, and how to read them."""

from collections.abc import Sequence

from mi_core.analyses.attribution_inputs import neuron_name
from mi_core.analyses.neuron_inputs import Measure
from mi_core.analyses.neuron_prompt_result import NeuronPromptResult
from mi_core.analyses.neuron_result import Context, NeuronResult, Sign
from mi_core.analyses.neuron_survey_result import MEASURE_INFO, NeuronSurveyResult
from mi_core.analyses.neuron_text_result import NeuronTextResult
from mi_core.charts.grid import window
from mi_core.charts.neuron_prompt import WINDOW
from mi_core.charts.text import legible, number, token_label
from mi_core.exports.captions import model_sentence, quoted

_FIRST = "The first token of a text and BOS never count: many models put massive activations there."

SURVEY = (
    "A neuron is one coordinate of mlp_post, what enters the MLP's down projection; in a gated MLP it is "
    "the product of two branches and can be negative. Every cell is a neuron: its number, and the token "
    "of the texts that fires it most. Neurons are ranked within their layer; activations of two layers "
    "are not on one scale, because what a unit of activation does depends on the layer's W_out. A neuron "
    "that leads a ranking of thousands does so partly by luck on these very texts: look at its contexts, "
    "and try texts of your own. Selectivity = (mean on one kind of text minus mean on all others) / "
    "standard deviation over all tokens. An active neuron need not matter for the answer, and most "
    "neurons do several things (superposition)."
)
LAYERS = (
    "How often neurons are above 0, layer by layer. For ReLU the share above 0 is the share that is on; "
    "for GELU and gated MLPs every neuron is nearly always a little on or off, and about half is above 0."
)
MAP = (
    "In every layer and at every token the number of the neuron with the largest absolute activation. "
    "Click a cell to see that neuron's page. Late layers often have larger activations than early ones; "
    "compare within a layer."
)
CELL = "The neurons with the largest absolute activation in one layer at one token of the prompt."
TEXT = (
    "Every token is coloured by the neuron's activation there: white is 0, blue above, orange below, on "
    "a linear scale that ends at the neuron's largest absolute activation over the set of texts. The "
    "scale does not depend on the text, so a pale text means that this neuron is quiet in it."
)
CONTEXTS = (
    "The tokens of the set at which the neuron is most active (framed), each with its surroundings on "
    "the neuron's fixed scale. Only the strongest cases are shown: they say what drives the neuron to "
    "its maximum, not what it does at ordinary strength, and a pattern in ten maxima can mislead "
    "(Bolukbasi et al., 2021)."
)
HISTOGRAM = (
    "The neuron's activation at every token of the set. The bins are those of the set. Heights follow "
    "log(1 + count), or the rare strong activations would not be seen."
)
CATEGORIES = (
    "Mean activation over the tokens of each kind of text. Bands are 95 % bootstraps that draw whole "
    "texts again, because tokens of one text are alike. A mean near 0 can hide strong activations at a "
    "few tokens: look at the contexts too."
)
VOCABULARY = (
    "What one unit of activation writes, read through the unembedding: W_out of the neuron, through the "
    "final norm's gain (and centring) at the scale that the norm has at one token, times W_U, in logits "
    "before any softcap. At another token all effects change by one positive factor, so the order stays. "
    "A negative activation turns the effects round. Only the direct path to the logits is shown: later "
    "layers read the neuron too, and in early layers that is most of what it does. Adding the vocabulary "
    "mean to all logits would change no probability (Geva et al., 2022)."
)


def survey_caption(result: NeuronSurveyResult, measure: Measure, category: str | None) -> str:
    """Caption of the map of leading neurons."""
    info = MEASURE_INFO[measure]
    on = f" on {legible(category)} against all other kinds" if category else ""
    kinds = ", ".join(
        f"{legible(name)} {int(tokens):,} in {int(texts)}"
        for name, tokens, texts in zip(
            result.categories, result.token_counts, result.text_counts, strict=True
        )
    )
    parts = [
        f"Leading neurons of every layer by {info.label}{on} [{info.unit}]. {info.meaning}",
        f"Set: {legible(result.inputs.set_name)}, n = {result.n_tokens:,} tokens ({kinds} texts).",
        f"In the cell: number of the neuron and the token with its largest |activation|. {_FIRST}",
        f"Of {result.n_layers} x {result.d_mlp:,} neurons.",
    ]
    return " ".join([*parts, model_sentence(result.provenance)]).strip()


def layers_caption(result: NeuronSurveyResult) -> str:
    """Caption of the lines over layers."""
    return " ".join(
        [
            f"Shares over the {result.d_mlp:,} neurons of each layer and n = {result.n_tokens:,} tokens "
            f"({legible(result.inputs.set_name)}). {_FIRST}",
            model_sentence(result.provenance),
        ]
    ).strip()


def map_caption(result: NeuronPromptResult, position: int) -> str:
    """Caption of the map over a prompt."""
    shown = window(len(result.tokens), position, WINDOW)
    parts = [
        "Neuron with the largest |activation| in each layer at each token of "
        f"{quoted(result.inputs.prompt)}. Colour: its activation, 0 white.",
    ]
    if len(shown) < len(result.tokens):
        parts.append(f"Tokens {shown.start} to {shown.stop - 1} of {len(result.tokens)} are shown.")
    if shown.start < result.first:
        parts.append(f"Hatched: {_FIRST[0].lower()}{_FIRST[1:]}")
    return " ".join([*parts, model_sentence(result.provenance)]).strip()


def cell_caption(result: NeuronPromptResult, layer: int, position: int) -> str:
    """Caption of the neurons of one cell."""
    token = token_label(position, result.tokens[position])
    held = 100 * float(result.share[layer, position].sum())
    return " ".join(
        [
            f"The {result.top} neurons of layer {layer} with the largest |activation| at token {token} of "
            f"{quoted(result.inputs.prompt)}. They hold {held:.3g} % of the squared length of the layer's "
            f"{result.d_mlp:,} activations.",
            model_sentence(result.provenance),
        ]
    ).strip()


def text_caption(result: NeuronTextResult) -> str:
    """Caption of a coloured text."""
    inputs = result.inputs
    name = neuron_name(inputs.layer, inputs.neuron)
    fixed = "fixed by the set of texts" if inputs.bound else "fitted to this text"
    clipped = (
        f"{100 * result.clipped:.3g} % of the tokens lie beyond it and are drawn in the colour of its end."
        if result.clipped
        else "No token lies beyond it."
    )
    return " ".join(
        [
            f"Activation of {name} at every token. Linear scale from {number(-result.bound)} to "
            f"{number(result.bound)}, {fixed}; 0 white. {clipped} Grey: does not count (first token, BOS).",
            model_sentence(result.provenance),
        ]
    ).strip()


def contexts_caption(result: NeuronResult, contexts: Sequence[Context], sign: Sign) -> str:
    """Caption of the contexts."""
    which = {"strongest": "largest |activation|", "positive": "largest activation above 0"}.get(
        sign, "lowest activation below 0"
    )
    return " ".join(
        [
            f"The {len(contexts)} texts of {legible(result.inputs.set_name)} with the {which} of "
            f"{_name(result)}, one token per text (framed; its activation at the left). {_whole(result)}",
            f"Scale from {number(-result.bound)} to {number(result.bound)}, fixed by the set; 0 white.",
            model_sentence(result.provenance),
        ]
    ).strip()


def histogram_caption(result: NeuronResult) -> str:
    """Caption of the histogram."""
    return " ".join(
        [
            f"Activation of {_name(result)}. {_whole(result)}",
            f"{100 * result.share_active:.3g} % of the tokens are above 0; heights follow log(1 + count).",
            model_sentence(result.provenance),
        ]
    ).strip()


def categories_caption(result: NeuronResult) -> str:
    """Caption of the bars by kind of text."""
    inputs = result.inputs
    return " ".join(
        [
            f"Mean activation of {_name(result)} on each kind of text (n = texts). {_whole(result)}",
            f"Bands: 95 % bootstrap over texts ({inputs.resamples:,} resamples, seed {inputs.seed}).",
            model_sentence(result.provenance),
        ]
    ).strip()


def vocabulary_caption(result: NeuronResult) -> str:
    """Caption of the promoted and suppressed tokens."""
    words = result.vocabulary
    through = "the norm after the MLP and the final norm" if words.post_norm else "the final norm"
    return " ".join(
        [
            f"Direct effect of one unit of activation of {_name(result)} on the logits (before any softcap), "
            f"with the scale of {through} frozen at the neuron's strongest token, token {words.position} of "
            f"text {words.text}. 0 = no effect; vocabulary mean {number(words.mean)}, standard deviation "
            f"{number(words.deviation)}.",
            model_sentence(result.provenance),
        ]
    ).strip()


def _name(result: NeuronResult) -> str:
    return neuron_name(result.inputs.layer, result.inputs.neuron)


def _whole(result: NeuronResult) -> str:
    texts, tokens = int(result.text_counts.sum()), int(result.token_counts.sum())
    return f"n = {tokens:,} tokens of {texts} texts ({legible(result.inputs.set_name)}). {_FIRST}"
