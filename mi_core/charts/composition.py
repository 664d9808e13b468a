"""Composition scores: writing heads down, reading heads across; pairs of layers; the strongest pairs."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mi_core.analyses.composition_result import CompositionKind, CompositionResult
from mi_core.charts.bars import Bar, bars
from mi_core.charts.colours import ColourScale, symmetric_bound
from mi_core.charts.heatmap import Axis, Panel, describe, heatmap

Spec = dict[str, Any]
Head = tuple[int, int]

TITLES: dict[CompositionKind, str] = {"Q": "Q-composition", "K": "K-composition", "V": "V-composition"}
ALL_HEADS = 80
"""Up to this many heads a side all pairs are drawn at once."""


def head_name(head: Head) -> str:
    """A head as every figure shows it, for example `L3H2`."""
    return f"L{head[0]}H{head[1]}"


def pair_heatmap(
    result: CompositionResult,
    kind: CompositionKind,
    *,
    layers: tuple[int, int] | None = None,
    excess: bool = False,
    chosen: tuple[Head, Head] | None = None,
) -> Spec:
    """One kind: rows are heads that write, columns heads that read.

    Args:
        result: the scores.
        kind: one of its kinds.
        layers: only the heads of these two layers (from, to); None = all.
        excess: draw score minus baseline, white at 0.
        chosen: (writer, reader) to outline.

    Returns:
        Specification without looks; clicks select `cell` with fields kind, writer and reader (indices into
        `result.writers` and `result.readers`).
    """
    panel, rows, columns = _pairs(result, kind, layers, excess=excess)
    place = None
    if chosen is not None and chosen[0] in result.writers and chosen[1] in result.readers:
        place = (kind, result.writers.index(chosen[0]), result.readers.index(chosen[1]))
    scale = _scale(result, [panel], TITLES[kind], excess=excess)
    return heatmap([panel], rows, columns, scale, chosen=place)


def describe_pairs(
    result: CompositionResult,
    kind: CompositionKind,
    *,
    layers: tuple[int, int] | None = None,
    excess: bool = False,
) -> str:
    """The text alternative of `pair_heatmap`."""
    panel, rows, columns = _pairs(result, kind, layers, excess=excess)
    told = describe([panel], rows, columns, _scale(result, [panel], TITLES[kind], excess=excess))
    return told.replace("cells were not run", "pairs have no score")


def layer_heatmap(
    result: CompositionResult,
    *,
    excess: bool = False,
    chosen: tuple[CompositionKind, int, int] | None = None,
) -> Spec:
    """Pairs of layers, the largest score among their heads, a panel per kind.

    Args:
        result: the scores.
        excess: draw score minus baseline, white at 0.
        chosen: (kind, from layer, to layer) of the cell to outline.

    Returns:
        Specification without looks; clicks select `cell` with fields kind, from and to (layers).
    """
    panels, rows, columns = _layers(result, excess=excess)
    return heatmap(panels, rows, columns, _scale(result, panels, excess=excess), chosen=chosen)


def describe_layers(result: CompositionResult, *, excess: bool = False) -> str:
    """The text alternative of `layer_heatmap`."""
    panels, rows, columns = _layers(result, excess=excess)
    told = describe(panels, rows, columns, _scale(result, panels, excess=excess))
    return told.replace("cells were not run", "pairs of layers have no score")


def top_pairs(
    result: CompositionResult, kind: CompositionKind, n: int = 15, *, chosen: tuple[Head, Head] | None = None
) -> Spec:
    """The strongest pairs as bars, with the baseline.

    Returns:
        Specification without looks; clicks select `cell` with field index, the place in `result.top`.
    """
    best = result.top(kind, n)
    pairs = [(writer, reader) for writer, reader, _ in best]
    items = [Bar(f"{head_name(writer)} \u2192 {head_name(reader)}", score) for writer, reader, score in best]
    return bars(
        items,
        title=f"{TITLES[kind]} score",
        unit="",
        chosen=pairs.index(chosen) if chosen in pairs else None,
        marks=((result.baseline, "random"),),
        diverging=False,
    )


def _pairs(
    result: CompositionResult, kind: CompositionKind, layers: tuple[int, int] | None, *, excess: bool
) -> tuple[Panel, Axis, Axis]:
    rows = [i for i, head in enumerate(result.writers) if layers is None or head[0] == layers[0]]
    columns = [i for i, head in enumerate(result.readers) if layers is None or head[0] == layers[1]]
    values = result.of(kind, excess=excess)[np.ix_(rows, columns)]
    notes = tuple(
        tuple(_note(result, result.writers[row], result.readers[column]) for column in columns)
        for row in rows
    )
    panel = Panel(kind, "", values.astype(np.float64), notes=notes, missing="none")
    return (
        panel,
        _heads("writer", "Writing head", result.writers, rows),
        _heads("reader", "Reading head", result.readers, columns),
    )


def _note(result: CompositionResult, writer: Head, reader: Head) -> str:
    pair = f"{head_name(writer)} \u2192 {head_name(reader)}"
    return pair if writer[0] < reader[0] else f"{pair}: the writer is not earlier"


def _heads(field: str, title: str, heads: Sequence[Head], shown: Sequence[int]) -> Axis:
    return Axis(field, title, tuple(head_name(heads[i]) for i in shown), ids=tuple(shown), whole=True)


def _layers(result: CompositionResult, *, excess: bool) -> tuple[list[Panel], Axis, Axis]:
    panels = [
        Panel(kind, TITLES[kind], result.by_layer(kind, excess=excess).astype(np.float64))
        for kind in result.inputs.kinds
    ]
    rows = Axis(
        "from", "From layer", tuple(f"L{n}" for n in result.from_layers), result.from_layers, whole=True
    )
    return panels, rows, Axis("to", "To layer", tuple(str(n) for n in result.to_layers), result.to_layers)


def _scale(
    result: CompositionResult, panels: Sequence[Panel], name: str = "composition", *, excess: bool
) -> ColourScale:
    """From 0 up to the largest score, the baseline marked; or white at the baseline."""
    known = [v for panel in panels for v in panel.values.ravel().tolist() if math.isfinite(v)]
    if excess:
        bound = symmetric_bound(max((abs(v) for v in known), default=0.0))
        marks = ((0.0, "as random"),)
        return ColourScale(f"{name} score \u2212 random", "", (-bound, bound), diverging=True, marks=marks)
    bound = symmetric_bound(max([*known, result.baseline]))
    return ColourScale(f"{name} score", "", (0.0, bound), marks=((result.baseline, "random"),))
