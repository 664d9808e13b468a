"""A knock-out: the tokens whose probability changed most, and attention of pinned heads before and after."""

import math
from dataclasses import replace
from typing import Any

import numpy as np

from mi_core.analyses.attribution_inputs import parse_head
from mi_core.analyses.knockout_result import KnockoutResult
from mi_core.charts.attention import plain_future
from mi_core.charts.attention_heads import scale_of
from mi_core.charts.bars import Bar, bars
from mi_core.charts.colours import ColourScale
from mi_core.charts.grid import Axis, Panel
from mi_core.charts.heatmap import describe, heatmap
from mi_core.charts.text import MINUS, number, token_label

Spec = dict[str, Any]

CHANGE = f"probability, edited {MINUS} baseline"


def changed_bars(result: KnockoutResult) -> Spec:
    """Signed bars of the tokens whose probability changed most.

    Returns:
        Specification without looks; clicks select `cell` with the field index.
    """
    return bars(_changed(result), title=CHANGE, unit="probability")


def _changed(result: KnockoutResult) -> list[Bar]:
    read = {result.target.id: "target"}
    if result.distractor is not None:
        read[result.distractor.id] = "distractor"
    items = []
    for token, before, after in zip(
        result.changed_ids.tolist(), *result.changed_probabilities.tolist(), strict=True
    ):
        role = f" ({read[token]})" if token in read else ""
        items.append(
            Bar(
                f"{result.vocabulary[token]}{role}",
                after - before,
                note=f"token {token}: baseline {number(before)}, edited {number(after)}",
            )
        )
    return items


def describe_changed(result: KnockoutResult) -> str:
    """The text alternative of `changed_bars`."""
    said = "; ".join(f"{bar.label} {number(bar.value)} ({bar.note})" for bar in _changed(result))
    return f"Bars of the change of probability, edited minus baseline: {said}."


def attention_squares(result: KnockoutResult, *, difference: bool) -> Spec:
    """Pinned heads: baseline beside edited on one scale, or edited minus baseline about a white zero.

    Returns:
        Specification without looks; clicks select `cell` with the fields kind ("L2H3:edited"), query and key.
    """
    panels, rows, columns, colours = _squares(result, difference=difference)
    return plain_future(heatmap(panels, rows, columns, colours))


def describe_squares(result: KnockoutResult, *, difference: bool) -> str:
    """The text alternative of `attention_squares`."""
    panels, rows, columns, colours = _squares(result, difference=difference)
    whole = [replace(panel, values=np.nan_to_num(panel.values)) for panel in panels]
    return describe(whole, rows, columns, colours)


def _squares(result: KnockoutResult, *, difference: bool) -> tuple[list[Panel], Axis, Axis, ColourScale]:
    start, end = result.window
    labels = tuple(token_label(token.position, token.visible) for token in result.tokens[start:end])
    ids = tuple(range(start, end))
    panels: list[Panel] = []
    for index, name in enumerate(result.inputs.pinned_heads):
        before, after = (_past(square) for square in result.patterns[:, index])
        if difference:
            panels.append(_panel(f"{name}:difference", name, after - before))
        else:
            panels.append(_panel(f"{name}:baseline", f"{name}, baseline", before))
            panels.append(_panel(f"{name}:edited", f"{name}, edited", after))
    title = f"attention, edited {MINUS} baseline" if difference else "attention"
    colours = scale_of(title, "share of the row", [panel.values for panel in panels], signed=difference)
    return panels, Axis("query", "Query", labels, ids=ids), Axis("key", "Key", labels, ids=ids), colours


def _panel(key: str, title: str, values: np.ndarray) -> Panel:
    return Panel(key, title, values, missing="a query cannot read what comes later")


def _past(square: np.ndarray) -> np.ndarray:
    """The square with nothing where a query cannot see."""
    return np.where(np.tril(np.ones(square.shape, bool)), square.astype(float), math.nan)


def cell_of(cell: dict[str, Any]) -> tuple[int, int, int, int] | None:
    """(layer, head, query, key) of a clicked cell of `attention_squares`."""
    name = str(cell.get("kind", "")).partition(":")[0]
    query, key = cell.get("query"), cell.get("key")
    if not isinstance(query, int) or not isinstance(key, int) or "H" not in name:
        return None
    return (*parse_head(name), query, key)
