"""One feature over a corpus and in a text, drawn: contexts, histogram, co-active features."""

import math
from collections.abc import Sequence
from typing import Any

from mi_core.charts.bars import Bar, bars
from mi_core.charts.colours import ColourScale
from mi_core.charts.histogram import Series, histogram
from mi_core.charts.text import legible, number
from mi_core.charts.theme import DIVERGING
from mi_core.charts.token_text import TokenRow, token_rows, token_text
from mi_core.transcoders.corpus_view_result import FeatureCorpusResult
from mi_core.transcoders.feature_files_record import ExampleGroup
from mi_core.transcoders.feature_text_result import FeatureTextResult
from mi_core.visible import visible

Spec = dict[str, Any]

_BLUES = DIVERGING[len(DIVERGING) // 2 :]


def feature_scale(bound: float, feature: str) -> ColourScale:
    """White at 0, which is most of every text, and blue up to the feature's largest activation, linear."""
    return ColourScale(f"{feature} activation", "", (0.0, bound if bound > 0 else 1.0), hues=_BLUES)


def text_chart(result: FeatureTextResult, *, chosen: int | None = None) -> Spec:
    """A text, a box per token; clicks select `cell` with the field position."""
    notes = [f"before the threshold: {number(float(value))}" for value in result.pre_activations]
    return token_text(
        result.tokens,
        result.shown.astype(float).tolist(),
        feature_scale(result.bound, result.inputs.feature),
        chosen=chosen,
        notes=notes,
    )


def describe_text(result: FeatureTextResult) -> str:
    """A sentence that stands for the coloured text."""
    name = result.inputs.feature
    if not result.active:
        return f"{name} is active at none of {len(result.tokens)} tokens."
    position = int(result.activations.argmax())
    return (
        f"{name} is active at {result.active} of {len(result.tokens)} tokens; strongest "
        f"{number(float(result.activations[position]))} at position {position}, "
        f"{legible(result.tokens[position])}."
    )


def example_rows(
    result: FeatureCorpusResult, groups: Sequence[ExampleGroup], around: int | None, *, named: bool
) -> Spec:
    """Examples under each other on the feature's scale.

    Args:
        result: the feature.
        groups: which of its groups.
        around: tokens on each side; None = all that is stored.
        named: whether lines carry the group's name, else their number.
    """
    rows = []
    for group in groups:
        for rank, stored in enumerate(group.examples, 1):
            one = stored.around(around)
            label = short_name(group.name) if named else str(rank)
            tokens = [visible(token) for token in one.tokens]
            rows.append(TokenRow(label, tokens, list(one.activations), centre=one.peak, start=-one.peak))
    return token_rows(rows, feature_scale(result.largest, result.inputs.feature))


def short_name(name: str) -> str:
    """`80 to 100 %` of `Active tokens, 80 to 100 %`; other makers' names as they are."""
    return name.removeprefix("Active tokens, ")


def describe_examples(groups: Sequence[ExampleGroup]) -> str:
    """A sentence that stands for the examples."""
    shown = [
        f"{legible(visible(one.tokens[one.peak]))} {number(one.activations[one.peak])}"
        for group in groups
        for one in group.examples
    ]
    return f"{len(shown)} examples; the first: {', '.join(shown[:5])}." if shown else "There is no example."


def corpus_histogram(result: FeatureCorpusResult, *, marks: Sequence[tuple[float, str]] = ()) -> Spec:
    """Active tokens by activation, on a logarithmic axis, as the bins are.

    Args:
        result: the feature; its file must tell the bins' ends.
        marks: activations with names, above 0.
    """
    # The chart writes the place on the axis behind the name, so the activation itself stands in the name.
    placed = [(math.log10(value), f"{name}: {number(value)}, log10") for value, name in marks if value > 0]
    return histogram(
        [math.log10(edge) for edge in result.edges],
        [Series("active tokens", result.histogram.tolist())],
        x_title="log10 of the activation",
        unit="",
        y_title="active tokens",
        marks=placed,
    )


def describe_histogram(result: FeatureCorpusResult) -> str:
    """A sentence that stands for the histogram."""
    return (
        f"Histogram of {int(result.histogram.sum()):,} activations from {number(float(result.edges[0]))} to "
        f"{number(float(result.edges[-1]))}."
    )


def coactive_bars(result: FeatureCorpusResult) -> Spec:
    """Share of this feature's tokens at which others are active too; clicks select the field index."""
    rows = zip(result.coactive, result.coactive_shares, result.coactive_densities, strict=True)
    return bars(
        [
            Bar(
                feature.text,
                float(share),
                note=f"active at {number(100 * float(density))} % of all tokens, {_times(share, density)}",
            )
            for feature, share, density in rows
        ],
        title="active at the same token",
        unit="share of tokens looked at",
        diverging=False,
    )


def _times(share: float, density: float) -> str:
    return f"{number(float(share / density))} times chance" if density > 0 else "never seen elsewhere"


def describe_coactive(result: FeatureCorpusResult) -> str:
    """A sentence that stands for the bars."""
    shown = [
        f"{feature.text} {number(float(share))}"
        for feature, share in zip(result.coactive[:5], result.coactive_shares[:5], strict=True)
    ]
    return f"Active at the same tokens: {', '.join(shown)}." if shown else "Nothing is active with it."
