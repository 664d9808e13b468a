"""The probe of one layer's features drawn: the strongest at every token, how many, and the injections.

Special tokens are hatched: their activations would be the only colour to be seen.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mi_core.charts.bars import Bar, bars
from mi_core.charts.colours import ColourScale
from mi_core.charts.grid import window
from mi_core.charts.heatmap import Axis, Panel, describe, heatmap
from mi_core.charts.text import number, token_label
from mi_core.transcoders.names import Feature
from mi_core.transcoders.probe_result import CltProbeResult

Spec = dict[str, Any]

WINDOW = 40
"""Tokens at most; a longer prompt shows the ones around the chosen token."""
RANKS = 10
"""Features per token at most; the table has all."""
OUTPUT = "output"
"""Marks the last token, whose logits are read."""


def labels(result: CltProbeResult, shown: Sequence[int]) -> tuple[str, ...]:
    """Position and text of some tokens."""
    return tuple(token_label(at, result.tokens[at]) for at in shown)


def top_map(result: CltProbeResult, position: int, *, chosen: tuple[int, int] | None = None) -> Spec:
    """Tokens down, ranks across; in every cell the feature's number, coloured by activation.

    Args:
        result: the probe.
        position: token around which a long prompt is shown.
        chosen: (position, rank from 0) of the cell to outline.

    Returns:
        Specification without looks; clicks select `cell` with the fields position and rank.
    """
    panel, rows, columns, colours = _top(result, position)
    place = None if chosen is None else (panel.key, chosen[0], chosen[1] + 1)
    return heatmap([panel], rows, columns, colours, chosen=place)


def describe_top(result: CltProbeResult, position: int) -> str:
    """A sentence or two that stand for the map of the strongest features."""
    panel, rows, columns, colours = _top(result, position)
    return describe([panel], rows, columns, colours)


def _top(result: CltProbeResult, position: int) -> tuple[Panel, Axis, Axis, ColourScale]:
    shown = window(len(result), position, WINDOW)
    ranks = max(1, min(RANKS, result.top_features.shape[1]))
    part = result.top_features[shown.start : shown.stop, :ranks]
    values = np.full((len(shown), ranks), np.nan)
    values[:, : part.shape[1]] = result.top_activations[shown.start : shown.stop, :ranks]
    texts = tuple(tuple(str(one) if one >= 0 else "" for one in row) for row in part.tolist())
    texts = texts if part.shape[1] == ranks else None
    values[[row for row, at in enumerate(shown) if at in set(result.masked)]] = np.nan
    panel = Panel("top", "", values, texts=texts, missing="not active, or a special token")
    high = float(np.nanmax(values, initial=0.0)) or 1.0
    rows = Axis("position", "Token", labels(result, shown), tuple(shown))
    columns = Axis("rank", "Rank", tuple(map(str, range(1, ranks + 1))), tuple(range(1, ranks + 1)))
    return panel, rows, columns, ColourScale("activation", "", (0.0, high))


def count_bars(result: CltProbeResult, position: int) -> Spec:
    """Active features at every token but special ones, whose bars would dwarf all others."""
    shown = [at for at in window(len(result), position, WINDOW) if at not in result.masked]
    items = [
        Bar(label, float(result.n_active[at])) for at, label in zip(shown, labels(result, shown), strict=True)
    ]
    return bars(items, title="active features", unit="", diverging=False)


def describe_counts(result: CltProbeResult, position: int) -> str:
    """A sentence that stands for the bars of counts."""
    shown = window(len(result), position, WINDOW)
    told = ", ".join(
        f"{label} {int(result.n_active[at]):,}"
        for at, label in zip(shown, labels(result, shown), strict=True)
    )
    return f"Active features of layer {result.layer} at every token: {told}."


def injection_bars(result: CltProbeResult, position: int, *, chosen: int | None = None) -> Spec:
    """How far an injection at every token moves the logits; clicks select `cell` with the field index.

    Args:
        result: the probe.
        position: token around which a long prompt is shown.
        chosen: position to outline.
    """
    shown = window(len(result), position, WINDOW)
    last = len(result) - 1
    items = [
        Bar(f"{label} ({OUTPUT})" if at == last else label, float(result.l2[at]))
        for at, label in zip(shown, labels(result, shown), strict=True)
    ]
    marks = [(result.median_l2, "upper median")] if result.has_injection else []
    outlined = shown.index(chosen) if chosen is not None and chosen in shown else None
    return bars(
        items,
        title="length of the change of all logits",
        unit="logits",
        marks=marks,
        diverging=False,
        chosen=outlined,
    )


def describe_injection(result: CltProbeResult) -> str:
    """A sentence that stands for the bars of injections."""
    if result.max_pos is None:
        return "Not every injection was run."
    where = token_label(result.max_pos, result.tokens[result.max_pos])
    return (
        f"Bars of the change of the logits by {feature_name(result)} at every token: largest "
        f"{number(result.max_l2)} at {where}; {number(result.last_l2)} at the last token, rank "
        f"{result.last_rank} of {len(result)}."
    )


def feature_name(result: CltProbeResult) -> str:
    """The feature that was injected."""
    return "no feature" if result.feature is None else Feature(result.layer, result.feature).text
