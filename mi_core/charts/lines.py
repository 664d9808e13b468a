"""Lines over layers, positions or numbers: each with a dash and a point shape of its own."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mi_core.charts.layers import (
    cell_selection,
    dashes,
    mark_layer,
    name_channel,
    number_channel,
    shown_name,
    shown_number,
)
from mi_core.charts.text import legible, pick_expression

Spec = dict[str, Any]

HEIGHT = 320


@dataclass(frozen=True, slots=True)
class Line:
    """One line.

    Attributes:
        name: in the legend and the selection.
        x: from left to right.
        y: NaN = a gap.
        low: lower ends of the band; empty = no band.
        high: upper ends of the band.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()


def lines(
    series: Sequence[Line],
    *,
    x_title: str,
    y_title: str,
    unit: str = "",
    logarithmic: bool = False,
    reversed: bool = False,
    marks: Sequence[tuple[float, str]] = (),
    x_labels: Sequence[str] = (),
    chosen_x: float | None = None,
) -> Spec:
    """Lines on shared axes.

    Args:
        series: the lines.
        x_title: of the horizontal axis.
        y_title: of the vertical axis.
        unit: of the values.
        logarithmic: logarithmic values, for ranks from 1 on.
        reversed: small values on top, for ranks.
        marks: values with names, drawn as rules across.
        x_labels: text of every whole x, instead of the number.
        chosen_x: x to mark with a rule.

    Returns:
        Specification without looks; clicks select `cell` with fields series and x.
    """
    heading = legible(f"{y_title} [{unit}]" if unit else y_title)
    points = [
        {"line": str(i), "series": line.name, "what": legible(line.name), "x": x, "y": y,
         **({"low": line.low[k], "high": line.high[k]} if line.low else {})}
        for i, line in enumerate(series) for k, (x, y) in enumerate(zip(line.x, line.y, strict=True)) if math.isfinite(y)
    ]  # fmt: skip
    keys = [str(i) for i in range(len(series))]
    labels = (
        {"labelExpr": pick_expression(x_labels), "values": list(range(len(x_labels)))} if x_labels else {}
    )
    x = number_channel(
        "x", scale={"nice": False, "zero": False}, axis={"title": legible(x_title), "grid": False, **labels}
    )
    y = number_channel(
        "y",
        scale={"reverse": reversed, "zero": False, **({"type": "log"} if logarithmic else {})},
        axis={"title": heading},
    )
    legend = {"title": None, "labelExpr": pick_expression([legible(line.name) for line in series])}
    colour = name_channel("line", scale={"domain": keys}, legend=legend)
    live = mark_layer("points", "point", "dot", look={"cursor": "pointer"}, x=x, y=y, color=colour, shape=colour,
                      tooltip=[shown_name("what", "series"), shown_number("x", legible(x_title)), shown_number("y", heading)])  # fmt: skip
    live["params"] = cell_selection("series", "x")
    return {
        "height": HEIGHT,
        "datasets": {
            "points": points,
            "bands": [p for p in points if "low" in p],
            "marks": [{"y": v, "label": legible(n)} for v, n in marks],
            "chosen": [] if chosen_x is None else [{"x": chosen_x}],
        },  # fmt: skip
        "layer": [
            mark_layer("marks", "rule", "reference", y=y),
            mark_layer(
                "bands", "area", "band", x=x, y={**y, "field": "low"}, y2={"field": "high"}, color=colour
            ),
            mark_layer("points", "line", "trend", x=x, y=y, color=colour, strokeDash=dashes("line", keys)),
            live,
            mark_layer("chosen", "rule", "chosen-line", x=x),
        ],
    }
