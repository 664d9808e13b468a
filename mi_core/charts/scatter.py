"""Points over two numbers, with the line y = x where the two should agree."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mi_core.charts.layers import (
    cell_selection,
    mark_layer,
    name_channel,
    number_channel,
    shown_name,
    shown_number,
)
from mi_core.charts.text import isolated, legible, pick_expression
from mi_core.charts.theme import POSITIVE

Spec = dict[str, Any]
Record = dict[str, Any]

HEIGHT, LEGEND = 400, 22
CROWDED_FROM = 400  # points; more are drawn smaller


@dataclass(frozen=True, slots=True)
class Point:
    """One point.

    Attributes:
        label: for the tooltip; may repeat.
        x: NaN or an infinity = not drawn.
        y: NaN or an infinity = not drawn.
        group: points of one group share colour and shape; up to six groups.
    """

    label: str
    x: float
    y: float
    group: str = ""


def scatter(
    points: Sequence[Point],
    *,
    x_title: str,
    y_title: str,
    unit: str = "",
    diagonal: bool = False,
    notes: Sequence[str] = (),
    chosen: int | None = None,
) -> Spec:
    """Points on two axes.

    Args:
        points: what to draw.
        x_title: of the horizontal axis.
        y_title: of the vertical axis.
        unit: of both.
        diagonal: draw y = x, and give both axes the same ends.
        notes: lines in the upper left corner, such as a correlation and n.
        chosen: index of the point to ring.

    Returns:
        Specification without looks; clicks select `cell` with the field index.
    """
    across, up = (legible(f"{title} [{unit}]" if unit else title) for title in (x_title, y_title))
    groups = list(dict.fromkeys(point.group for point in points))
    records = [_record(index, point, groups) for index, point in enumerate(points) if _drawn(point)]
    x_ends, y_ends = (_ends([record[axis] for record in records]) for axis in "xy")
    if diagonal:
        x_ends = y_ends = (min(x_ends[0], y_ends[0]), max(x_ends[1], y_ends[1]))
    x, y = _channel("x", x_ends, across), _channel("y", y_ends, up)
    return {
        "height": HEIGHT + (LEGEND if len(groups) > 1 else 0),
        "datasets": {
            "points": records,
            "diagonal": [{"x": end, "y": end} for end in x_ends] if diagonal else [],
            "notes": [{"lines": "\n".join(legible(note) for note in notes)}] if notes else [],
            "chosen": [record for record in records if record["index"] == chosen],
        },
        "layer": [
            mark_layer("diagonal", "line", "reference", x=x, y=y),
            _points_layer(groups, len(records), x, y, across, up),
            mark_layer("chosen", "point", "ring", x=x, y=y),
            *_note_layers(),
        ],
    }


def _drawn(point: Point) -> bool:
    return math.isfinite(point.x) and math.isfinite(point.y)


def _record(index: int, point: Point, groups: Sequence[str]) -> Record:
    return {
        "index": index, "name": isolated(legible(point.label)), "x": point.x, "y": point.y,
        "group": str(groups.index(point.group)), "kind": isolated(legible(point.group)),
    }  # fmt: skip


def _ends(values: Sequence[float]) -> tuple[float, float]:
    """Ends of an axis with a little air."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    air = 0.05 * (high - low) or 0.5
    return low - air, high + air


def _channel(field: str, ends: tuple[float, float], title: str) -> Spec:
    scale = {"domain": list(ends), "nice": False, "zero": False}
    return number_channel(field, scale=scale, axis={"title": title, "tickCount": 6})


def _points_layer(groups: Sequence[str], count: int, x: Spec, y: Spec, across: str, up: str) -> Spec:
    tooltip = [shown_name("name", "point"), shown_number("x", across), shown_number("y", up)]
    looks: Spec = {"color": {"value": POSITIVE}}
    if len(groups) > 1:
        names = [isolated(legible(group)) for group in groups]
        legend = {"title": None, "labelExpr": pick_expression(names), "symbolOpacity": 1}
        keys = [str(index) for index in range(len(groups))]
        channel = name_channel("group", scale={"domain": keys}, legend=legend)
        looks = {"color": channel, "shape": channel}
        tooltip.insert(0, shown_name("kind", "group"))
    style = "sample-small" if count > CROWDED_FROM else "sample"
    layer = mark_layer(
        "points", "point", style, look={"cursor": "pointer"}, x=x, y=y, **looks, tooltip=tooltip
    )
    return {**layer, "params": cell_selection("index")}


def _note_layers() -> list[Spec]:
    """Lines in the upper left corner, on a halo that keeps points from crossing them."""
    place = {"x": {"value": 0}, "y": {"value": 0}, "text": {"field": "lines"}}
    # One text with breaks: a list would reach the browser as its Python literal.
    look = {"align": "left", "baseline": "top", "dx": 6, "dy": 5, "lineBreak": "\n"}
    return [mark_layer("notes", "text", style, look=look, **place) for style in ("text-halo", "value")]
