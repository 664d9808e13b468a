"""Histograms of counts that were made before: bars for one series, outlines for several.

Outlines do not hide each other and differ in colour and dash; pointing at a bin tells the counts of all.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from mi_core.charts.layers import dashes, mark_layer, name_channel, number_channel, shown_number
from mi_core.charts.rules import beside_rules, levels, name_layers
from mi_core.charts.text import isolated, legible, pick_expression

Spec = dict[str, Any]
Record = dict[str, Any]

HEIGHT, NAME_ROW, LEGEND = 250, 16, 22


@dataclass(frozen=True, slots=True)
class Series:
    """Counts of one quantity.

    Attributes:
        name: in the legend and the tooltip.
        counts: one per bin, 0 or more.
    """

    name: str
    counts: Sequence[float]


def histogram(
    edges: Sequence[float],
    series: Sequence[Series],
    *,
    x_title: str,
    unit: str,
    y_title: str = "count",
    marks: Sequence[tuple[float, str]] = (),
    logarithmic_counts: bool = False,
) -> Spec:
    """Counts over bins.

    Args:
        edges: ends of the bins, rising, one more than there are bins.
        series: counts in these bins, up to six.
        x_title: the quantity.
        unit: of the quantity.
        y_title: what is counted.
        marks: values with names, drawn as vertical rules.
        logarithmic_counts: heights follow log(1 + count), so that 0 stays 0.

    Returns:
        Specification without looks.

    Raises:
        ValueError: edges that do not rise, or not one count per bin.
    """
    _check(edges, series)
    ends = [edges[0], edges[-1], *(value for value, _ in marks if math.isfinite(value))]
    low, high = min(ends), max(ends)
    rules = beside_rules(marks, low, high)
    top = max((count for one in series for count in one.counts), default=0) or 1
    heading = legible(f"{x_title} [{unit}]" if unit else x_title)
    x_scale = {"domain": [low, high], "nice": False, "zero": False}
    x = number_channel("x", scale=x_scale, axis={"title": heading, "grid": False, "tickCount": 8})
    y = _count_channel(top, y_title, logarithmic=logarithmic_counts)
    return {
        "height": HEIGHT + NAME_ROW * levels(rules) + (LEGEND if len(series) > 1 else 0),
        "datasets": {
            "bins": [_bin(index, edges, series, top) for index in range(len(edges) - 1)],
            "steps": [step for index, one in enumerate(series) for step in _steps(index, edges, one)],
            "rules": [{**rule, "dy": -4 - NAME_ROW * rule["level"]} for rule in rules],
        },
        "layer": [
            *(_outlines(series, x, y) if len(series) > 1 else [_bars(x, y)]),
            _hover(series, heading, legible(y_title), x, y),
            mark_layer("rules", "rule", "reference", x={**x, "field": "value"}),
            *name_layers({**x, "field": "value"}, {"value": 0}, dy={"expr": "datum.dy"}),
        ],
    }


def _check(edges: Sequence[float], series: Sequence[Series]) -> None:
    if len(edges) < 2 or any(after <= before for before, after in pairwise(edges)):
        raise ValueError("the edges of a histogram must rise")
    for one in series:
        if len(one.counts) != len(edges) - 1:
            raise ValueError(f"{one.name!r} has {len(one.counts)} counts for {len(edges) - 1} bins")


def _count_channel(top: float, title: str, *, logarithmic: bool) -> Spec:
    if not logarithmic:
        scale: Spec = {"domain": [0, top * 1.04], "nice": False}
        return number_channel("count", scale=scale, axis={"title": legible(title), "tickCount": 5})
    scale = {"type": "symlog", "domain": [0, math.expm1(math.log1p(top) * 1.04)], "nice": False}
    ticks = [0.0, *(10.0**power for power in range(math.floor(math.log10(max(top, 1))) + 1))]
    return number_channel(
        "count", scale=scale, axis={"title": legible(title), "values": ticks, "format": ",.0f"}
    )


def _bin(index: int, edges: Sequence[float], series: Sequence[Series], top: float) -> Record:
    """One bin with the counts of all series."""
    counts = {f"count{number}": one.counts[index] for number, one in enumerate(series)}
    return {"x": edges[index], "x1": edges[index + 1], "floor": 0, "top": top, **counts}


def _steps(index: int, edges: Sequence[float], one: Series) -> list[Record]:
    """Corners of an outline, from the floor and back to it."""
    corners = [(edges[0], 0.0)]
    for (left, right), count in zip(pairwise(edges), one.counts, strict=True):
        corners += [(left, count), (right, count)]
    corners.append((edges[-1], 0.0))
    return [{"series": str(index), "x": x, "count": y, "order": step} for step, (x, y) in enumerate(corners)]


def _bars(x: Spec, y: Spec) -> Spec:
    return mark_layer(
        "bins", "rect", "bin", x=x, x2={"field": "x1"}, y={**y, "field": "floor"}, y2={"field": "count0"}
    )


def _outlines(series: Sequence[Series], x: Spec, y: Spec) -> list[Spec]:
    keys = [str(index) for index in range(len(series))]
    names = [isolated(legible(one.name)) for one in series]
    legend = {
        "title": None,
        "labelExpr": pick_expression(names),
        "symbolType": "stroke",
        "symbolStrokeWidth": 3,
    }
    colour = name_channel("series", scale={"domain": keys}, legend=legend)
    order = {"field": "order", "type": "quantitative"}
    return [
        mark_layer(
            "steps", "line", "trend", x=x, y=y, color=colour, strokeDash=dashes("series", keys), order=order
        )
    ]


def _hover(series: Sequence[Series], heading: str, y_title: str, x: Spec, y: Spec) -> Spec:
    """A bin over its whole height, unseen, with all its counts."""
    names = [legible(one.name) or y_title for one in series]
    told = [shown_number("x", f"{heading} from"), shown_number("x1", "to")]
    told += [shown_number(f"count{index}", name) for index, name in enumerate(names)]
    box = {"x": x, "x2": {"field": "x1"}, "y": {**y, "field": "floor"}, "y2": {"field": "top"}}
    return mark_layer("bins", "rect", look={"fillOpacity": 0}, **box, tooltip=told)
