"""One neuron drawn: text in its colours, contexts, histogram, kinds of text, vocabulary."""

from collections.abc import Sequence
from typing import Any

from mi_core.analyses.attribution_inputs import neuron_name
from mi_core.analyses.neuron_result import Context, NeuronResult
from mi_core.analyses.neuron_text_result import NeuronTextResult
from mi_core.charts.bars import Bar, bars
from mi_core.charts.colours import ColourScale
from mi_core.charts.histogram import Series, histogram
from mi_core.charts.text import legible, number
from mi_core.charts.token_text import TokenRow, token_rows, token_text

Spec = dict[str, Any]

UNIT = "activation"


def activation_scale(bound: float, layer: int, neuron: int) -> ColourScale:
    """The fixed scale of one neuron: 0 white, the set's largest |activation| at both ends, linear."""
    end = bound or 1.0
    return ColourScale(f"{neuron_name(layer, neuron)} activation", "", (-end, end), diverging=True)


def text_chart(result: NeuronTextResult, *, chosen: int | None = None) -> Spec:
    """The text, a box per token, on the fixed scale; clicks select `cell` with the field position."""
    inputs = result.inputs
    return token_text(
        result.tokens,
        result.shown.astype(float).tolist(),
        activation_scale(result.bound, inputs.layer, inputs.neuron),
        chosen=chosen,
    )


def describe_text(result: NeuronTextResult) -> str:
    """A sentence that stands for the coloured text."""
    counted = list(enumerate(result.activations.tolist()))[result.first :]
    name = neuron_name(result.inputs.layer, result.inputs.neuron)
    if not counted:
        return f"{name}: the text has no token that counts."
    position, value = max(counted, key=lambda item: abs(item[1]))
    return (
        f"{len(result.tokens)} tokens coloured by {name}; strongest {number(value)} at position {position}, "
        f"{legible(result.tokens[position])}."
    )


def context_rows(result: NeuronResult, contexts: Sequence[Context]) -> Spec:
    """Contexts under each other on the fixed scale; clicks select `cell` with row and position."""
    return token_rows(
        [
            TokenRow(
                f"{context.text} {context.category}",
                context.tokens,
                list(context.values),
                centre=context.position - context.start,
                start=context.start,
            )
            for context in contexts
        ],
        activation_scale(result.bound, result.inputs.layer, result.inputs.neuron),
    )


def describe_contexts(contexts: Sequence[Context]) -> str:
    """A sentence that stands for the contexts."""
    if not contexts:
        return "No token has such an activation."
    shown = [
        f"{legible(context.tokens[context.position - context.start])} {number(context.value)}"
        for context in contexts[:5]
    ]
    return f"{len(contexts)} contexts; the first: {', '.join(shown)}."


def activation_histogram(result: NeuronResult, *, marks: Sequence[tuple[float, str]] = ()) -> Spec:
    """Activations over the set, in bins that the set's range fixes; heights follow log(1 + count)."""
    inside = [(v, n) for v, n in marks if result.edges[0] <= v <= result.edges[-1]]
    return histogram(
        result.edges.tolist(),
        [Series("all kinds of text", result.counts.sum(axis=0).tolist())],
        x_title="Activation",
        unit="",
        y_title="tokens",
        marks=inside,
        logarithmic_counts=True,
    )


def describe_histogram(result: NeuronResult) -> str:
    """A sentence that stands for the histogram."""
    return (
        f"Histogram of {int(result.counts.sum()):,} activations from {number(float(result.edges[0]))} to "
        f"{number(float(result.edges[-1]))}; {100 * result.share_active:.3g} % are above 0."
    )


def category_bars(result: NeuronResult) -> Spec:
    """Mean activation on each kind of text, with its band and n."""
    texts, tokens = result.text_counts, result.token_counts
    return bars(
        [
            Bar(
                f"{name} (n = {int(texts[kind])})",
                float(result.category_mean[kind]),
                float(result.category_low[kind]),
                float(result.category_high[kind]),
                note=f"{int(texts[kind])} texts, {int(tokens[kind]):,} tokens",
            )
            for kind, name in enumerate(result.categories)
        ],
        title="mean activation",
        unit="",
    )


def describe_categories(result: NeuronResult) -> str:
    """A sentence that stands for the bars."""
    shown = [
        f"{legible(name)} {number(float(mean))}"
        for name, mean in zip(result.categories, result.category_mean, strict=True)
    ]
    return f"Mean activation by kind of text: {', '.join(shown)}."


def vocabulary_bars(result: NeuronResult) -> Spec:
    """Tokens that one unit of activation promotes and suppresses most."""
    words = result.vocabulary
    made = [
        Bar(token, float(effect), group=name, note=f"id {int(token_id)}")
        for name in ("promoted", "suppressed")
        for token, effect, token_id in zip(
            getattr(words, name),
            getattr(words, f"{name}_effects"),
            getattr(words, f"{name}_ids"),
            strict=True,
        )
    ]
    return bars(
        made,
        title="effect on the logit",
        unit="logits per unit of activation",
        marks=[(words.mean, "vocabulary mean")],
    )


def describe_vocabulary(result: NeuronResult) -> str:
    """A sentence that stands for the bars."""
    words = result.vocabulary
    high, low = (", ".join(legible(t) for t in part[:5]) for part in (words.promoted, words.suppressed))
    return f"Promoted: {high}. Suppressed: {low}."
