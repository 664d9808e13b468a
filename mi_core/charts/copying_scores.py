"""Copying scores of all heads: layers down, heads across, blue for copying, orange for the reverse."""

from typing import Any

from mi_core.analyses.copying_scores_result import CopyingScoresResult
from mi_core.charts.colours import ColourScale
from mi_core.charts.heatmap import Axis, Panel, describe, heatmap
from mi_core.charts.text import number

Spec = dict[str, Any]

KEY = "copying"
_SCALE = ColourScale("copying score", "", (-1.0, 1.0), diverging=True, marks=((0.0, "neither"),))


def copying_heatmap(result: CopyingScoresResult, *, chosen: tuple[int, int] | None = None) -> Spec:
    """A cell per head.

    Args:
        result: the scores.
        chosen: (layer, head) to outline.

    Returns:
        Specification without looks; clicks select `cell` with fields row (the layer) and head.
    """
    place = None if chosen is None else (KEY, *chosen)
    return heatmap([_panel(result)], *_axes(result), _SCALE, chosen=place)


def describe_copying(result: CopyingScoresResult) -> str:
    """The text alternative of `copying_heatmap`."""
    return describe([_panel(result)], *_axes(result), _SCALE)


def _panel(result: CopyingScoresResult) -> Panel:
    notes = tuple(
        tuple(f"sum of |eigenvalues| {number(total)} logits" for total in row)
        for row in result.totals.tolist()
    )
    return Panel(KEY, "", result.scores, notes=notes)


def _axes(result: CopyingScoresResult) -> tuple[Axis, Axis]:
    layers = tuple(f"L{layer}" for layer in range(result.n_layers))
    heads = tuple(str(head) for head in range(result.n_heads))
    return Axis("row", "Layer", layers, whole=True), Axis("head", "Head", heads)
