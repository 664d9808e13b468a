"""Points over two numbers, with the line y = x where the two should agree."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mi_core.charts.layers import cell_selection, mark_layer, number_channel, shown_name, shown_number
from mi_core.charts.text import legible

Spec = dict[str, Any]

HEIGHT = 380


@dataclass(frozen=True, slots=True)
class Point:
    """One point.

    Attributes:
        label: for the tooltip.
        x: NaN = not drawn.
        y: NaN = not drawn.
        group: gives colour and shape.
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
) -> Spec:
    """Points on two axes.

    Args:
        points: what to draw.
        x_title: of the horizontal axis.
        y_title: of the vertical axis.
        unit: of both.
        diagonal: draw y = x, and give both axes the same ends.
        notes: lines printed in the upper left corner, such as a correlation.

    Returns:
        Specification without looks; clicks select `cell` with field index.
    """
    across, down = (legible(f"{t} [{unit}]" if unit else t) for t in (x_title, y_title))
    records = [
        {"index": i, "name": legible(p.label), "x": p.x, "y": p.y, "group": legible(p.group)}
        for i, p in enumerate(points)
        if math.isfinite(p.x) and math.isfinite(p.y)
    ]
    numbers = [r[axis] for r in records for axis in "xy"]
    shared = {"domain": [min(numbers), max(numbers)]} if diagonal and numbers else {}
    x = number_channel("x", scale={"zero": False, **shared}, axis={"title": across})
    y = number_channel("y", scale={"zero": False, **shared}, axis={"title": down})
    groups = (
        {"color": {"field": "group", "type": "nominal", "legend": {"title": None}}}
        if any(p.group for p in points)
        else {}
    )
    live = mark_layer("points", "point", "sample", look={"cursor": "pointer"}, x=x, y=y, **groups,
                      tooltip=[shown_name("name", "point"), shown_number("x", across), shown_number("y", down)])  # fmt: skip
    live["params"] = cell_selection("index")
    ends = [{"x": v, "y": v} for v in (min(numbers), max(numbers))] if diagonal and numbers else []
    return {
        "height": HEIGHT,
        "datasets": {"points": records, "diagonal": ends, "notes": [{"label": legible(n)} for n in notes]},
        "layer": [mark_layer("diagonal", "line", "reference", x=x, y=y), live],
    }
