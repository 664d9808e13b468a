"""One feature drawn from its weights: words written, by layer and in all; rows; words read; relatives."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mi_core.charts.bars import Bar, bars
from mi_core.charts.colours import ColourScale, symmetric_bound
from mi_core.charts.heatmap import Axis, Panel, heatmap
from mi_core.charts.histogram import Series, histogram
from mi_core.charts.text import MINUS, isolated, legible, number
from mi_core.transcoders.weights_neighbours_result import ALIKE, FeatureNeighboursResult, Relative
from mi_core.transcoders.weights_result import READ_UNIT, WRITE_UNIT, FeatureWeightsResult

Spec = dict[str, Any]

WRITTEN = ("promoted", "suppressed")
READ = ("read most", "read least")
GROUPS = {
    "upstream": {"+": "raise it", MINUS: "lower it"},
    "downstream": {"+": "raised by it", MINUS: "lowered by it"},
}
"""What the two signs of a virtual weight mean."""


def column_name(result: FeatureWeightsResult, column: int) -> str:
    """What a column of the result is, for people."""
    if column == 0:
        return "all target layers together" if len(result.targets) > 1 else f"layer {result.targets[0]}"
    return f"layer {result.targets[column - 1]}"


def column_short(result: FeatureWeightsResult, column: int) -> str:
    """The same in a title."""
    return "all layers" if column == 0 and len(result.targets) > 1 else column_name(result, column)


def written_bars(result: FeatureWeightsResult, column: int = 0) -> Spec:
    """Words that are promoted and suppressed; column 0 = all target layers, else one of them."""
    return bars(
        _words(result, result.top_ids[column], result.top_values[column], WRITTEN),
        title="effect on the logit",
        unit=WRITE_UNIT,
    )


def describe_written(result: FeatureWeightsResult, column: int = 0) -> str:
    """A sentence that stands for the bars."""
    high, low = _listed(result, result.top_ids[column])
    return f"{result.feature.text}, {column_name(result, column)}: promotes {high}; suppresses {low}."


def read_bars(result: FeatureWeightsResult) -> Spec:
    """Words whose embeddings the encoder answers to most and least."""
    return bars(
        _words(result, result.read_ids, result.read_values, READ),
        title="embedding times encoder",
        unit=READ_UNIT,
        marks=[(result.read_mean, "vocabulary mean")],
    )


def describe_read(result: FeatureWeightsResult) -> str:
    """A sentence that stands for the bars."""
    high, low = _listed(result, result.read_ids)
    return f"{result.feature.text} reads {high} most, and {low} least."


def _words(
    result: FeatureWeightsResult, ids: np.ndarray, values: np.ndarray, names: tuple[str, str]
) -> list[Bar]:
    """One bar per word; each word once, where both ends of a small vocabulary meet."""
    made, seen = [], set()
    for end, name in enumerate(names):
        for token, value in zip(ids[end].tolist(), values[end].tolist(), strict=True):
            if token not in seen:
                made.append(Bar(result.visible(token), value, group=name, note=f"id {token}"))
                seen.add(token)
    return made


def _listed(result: FeatureWeightsResult, ids: np.ndarray) -> tuple[str, str]:
    high, low = (
        ", ".join(isolated(legible(result.visible(int(token)))) for token in ids[end, :5]) for end in (0, 1)
    )
    return high, low


def words_by_layer(result: FeatureWeightsResult, *, chosen: int | None = None) -> Spec:
    """Columns are target layers, rows ranks from both ends; words in the cells, effects as colours.

    Args:
        result: with at least one target layer.
        chosen: column to outline at its top word.

    Returns:
        Specification without looks; clicks select `cell` with fields row and column.
    """
    ids, values = (_in_rows(array) for array in (result.top_ids, result.top_values))
    bound = symmetric_bound(float(np.abs(values).max(initial=0.0)))
    colours = ColourScale("effect on the logit", WRITE_UNIT, (-bound, bound), diverging=True)
    k = result.top_ids.shape[2]
    labels = [f"+{rank + 1}" for rank in range(k)] + [f"{MINUS}{rank + 1}" for rank in reversed(range(k))]
    texts = tuple(tuple(result.visible(token) for token in row) for row in ids.tolist())
    names = tuple(column_name(result, column) for column in range(len(result.columns)))
    return heatmap(
        [Panel("words", "", values, texts=texts, notes=texts)],
        Axis("row", "Rank from both ends", tuple(labels), whole=True),
        Axis("column", "Target layer", result.columns, names=names, whole=True),
        colours,
        chosen=None if chosen is None else ("words", 0, chosen),
    )


def _in_rows(tops: np.ndarray) -> np.ndarray:
    """[column, end, rank] -> [row, column]: most promoted first, most suppressed last."""
    high, low = tops[:, 0].T, tops[:, 1].T
    return np.concatenate([high, low[::-1]])


def describe_by_layer(result: FeatureWeightsResult) -> str:
    """A sentence that stands for the table of words."""
    tops = [
        f"{name} {isolated(legible(result.visible(int(result.top_ids[column, 0, 0]))))}"
        for column, name in enumerate(result.columns)
    ]
    return f"The word that {result.feature.text} promotes most, by target layer: {', '.join(tops)}."


def row_bars(result: FeatureWeightsResult, *, chosen: int | None = None) -> Spec:
    """Lengths of the rows by target layer; clicks select `cell` with the field index."""
    shares, reached, made = result.write_shares, 0.0, []
    for column, layer in enumerate(result.targets.tolist()):
        reached += float(shares[column])
        note = f"{shares[column]:.1%} of the squared length, {reached:.1%} up to here"
        made.append(Bar(f"L{layer}", float(result.decoder_norms[column]), note=note))
    return bars(
        made, title="length of the decoder row", unit="per unit of activation", chosen=chosen, diverging=False
    )


def describe_rows(result: FeatureWeightsResult) -> str:
    """A sentence that stands for the bars of lengths."""
    shown = [
        f"L{layer} {number(norm)}"
        for layer, norm in zip(result.targets.tolist(), result.decoder_norms.tolist(), strict=True)
    ]
    return f"Length of what {result.feature.text} writes, by target layer: {', '.join(shown)}."


def cosine_map(result: FeatureWeightsResult) -> Spec:
    """Cosines between the rows of all pairs of target layers."""
    names = tuple(f"L{layer}" for layer in result.targets.tolist())
    ids = tuple(result.targets.tolist())
    colours = ColourScale("cosine", "", (-1.0, 1.0), diverging=True, marks=((0.0, "unrelated"),))
    return heatmap(
        [Panel("cosines", "", result.row_cosines, missing="a row of zeros")],
        Axis("row", "Target layer", names, ids=ids),
        Axis("column", "Target layer", names, ids=ids),
        colours,
        show_values=len(names) <= 12,
    )


def describe_cosines(result: FeatureWeightsResult) -> str:
    """A sentence that stands for the map of cosines."""
    pairs = result.row_cosines[np.triu_indices(len(result.targets), 1)]
    pairs = pairs[np.isfinite(pairs)]
    if not len(pairs):
        return f"{result.feature.text} has no two rows to compare."
    return (
        f"Cosines between what {result.feature.text} writes to its {len(result.targets)} target layers: "
        f"from {number(float(pairs.min()))} to {number(float(pairs.max()))}, mean "
        f"{number(float(pairs.mean()))}."
    )


def effect_histogram(result: FeatureWeightsResult) -> Spec:
    """Effects on all words, all target layers together; heights follow log(1 + count)."""
    return histogram(
        result.edges.tolist(),
        [Series("words", result.counts.tolist())],
        x_title="Effect on the logit",
        unit=WRITE_UNIT,
        y_title="words",
        logarithmic_counts=True,
    )


def describe_histogram(result: FeatureWeightsResult) -> str:
    """A sentence that stands for the histogram."""
    return (
        f"Effects of {result.feature.text} on {int(result.counts.sum()):,} words, from "
        f"{number(float(result.edges[0]))} to {number(float(result.edges[-1]))}; skew "
        f"{number(float(result.effect_skew[0]))}, excess kurtosis {number(float(result.effect_kurtosis[0]))}."
    )


def relative_bars(result: FeatureNeighboursResult, relation: str) -> Spec:
    """One relation's features, list by list; clicks select `cell` with the field index."""
    named = GROUPS.get(relation, {})
    made = [
        Bar(
            f"{one.feature.text}  {one.word}".rstrip(),
            one.value,
            group=named.get(one.group, one.group),
            note=f"rank {one.rank}",
        )
        for one in related(result, relation)
    ]
    if relation in ALIKE:
        return bars(made, title="cosine", unit="")
    return bars(made, title="virtual weight", unit="pre-activation per unit of activation")


def related(result: FeatureNeighboursResult, relation: str) -> Sequence[Relative]:
    """The features of one relation, in the order of the bars."""
    return [one for one in (*result.alike(), *result.virtual()) if one.relation == relation]


def describe_relatives(result: FeatureNeighboursResult, relation: str) -> str:
    """A sentence that stands for the bars."""
    shown = [f"{one.feature.text} {number(one.value)}" for one in related(result, relation)]
    if not shown:
        return f"{result.feature.text}: no feature {relation}."
    return f"{result.feature.text}, {relation}: {', '.join(shown[:12])}."
