"""Lines over layers, positions or numbers; each with its colour, dash and shape of points.

Lines are keyed by their place in the list, so two of one name stay apart. A value that is not finite is a
gap.
"""

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
from mi_core.charts.panels import slant_height, text_axis, thinning, tick_step
from mi_core.charts.text import exact, isolated, legible, literal, number, pick_expression
from mi_core.charts.theme import DASHES, SHAPES
from mi_core.charts.token_layout import cut, letters

Spec = dict[str, Any]
Record = dict[str, Any]

HEIGHT, LEGEND_ROW = 310, 18
DOTTED_UP_TO = 48  # points per line; more would hide the line
NAME = 44  # letters of a name in the legend
# Letters beside each other in the legend of a page, of a paper's text width, and of one column.
WIDE, MIDDLE, NARROW = 110, 80, 54


@dataclass(frozen=True, slots=True)
class Line:
    """One line.

    Attributes:
        name: in the legend and in the selection; where no line has one there is no legend.
        x: finite, in the order in which the points are joined.
        y: one per x; NaN or an infinity = a gap.
        low: lower ends of the band; empty = no band.
        high: upper ends of the band; empty = no band.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()

    def __post_init__(self) -> None:
        """One y per x, and one band or none."""
        if (
            len(self.y) != len(self.x)
            or len(self.low) not in (0, len(self.x))
            or len(self.low) != len(self.high)
        ):
            lengths = f"{len(self.x)} x, {len(self.y)} y, {len(self.low)} low, {len(self.high)} high"
            raise ValueError(f"line {self.name!r} has {lengths}")


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
        series: the lines; the first six differ in colour, dash and shape, the next six again, in other pairs.
        x_title: of the horizontal axis.
        y_title: of the vertical axis.
        unit: of the values.
        logarithmic: for ranks, counted from 1; the axis then starts at 1.
        reversed: small values on top, so that rank 1 is the highest.
        marks: values with names, drawn as rules across.
        x_labels: texts of x = 0, 1, 2..., instead of the numbers.
        chosen_x: x to mark with a rule.

    Returns:
        Specification without looks; clicks select `cell` with the fields series (name) and x.

    Raises:
        ValueError: a value of 0 or less on a logarithmic axis.
    """
    heading = legible(f"{y_title} [{unit}]" if unit else y_title)
    points = [record for index, line in enumerate(series) for record in _points(index, line, x_labels)]
    scale = _value_scale(points, marks, logarithmic=logarithmic, reversed=reversed)
    x, y = (
        _x_channel(points, x_title, x_labels, chosen_x),
        number_channel("y", scale=scale, axis={"title": heading, "tickCount": 6}),
    )
    if logarithmic:
        y["axis"]["values"] = _powers(*scale["domain"])
    return {
        "height": _height(series, WIDE) + slant_height(x_labels, len(x_labels)),
        "narrow": {"height": _height(series, NARROW) + slant_height(x_labels, len(x_labels))},
        "datasets": {
            "points": points,
            "bands": [point for point in points if "low" in point],
            "rules": _rules(marks, scale),
            "chosen": [] if chosen_x is None else [{"x": chosen_x}],
        },
        "layer": [
            mark_layer("chosen", "rule", "chosen-line", x=x),
            *_rule_layers(y),
            *_line_layers(series, x, y),
            _dots(series, x, y, [_x_tooltip(x_title, x_labels), shown_number("y", heading)]),
        ],
    }


def _points(index: int, line: Line, x_labels: Sequence[str]) -> list[Record]:
    """One record per finite value; parts are counted on at every gap."""
    records: list[Record] = []
    part = 0
    for step, (x, y) in enumerate(zip(line.x, line.y, strict=True)):
        if not math.isfinite(y):
            part += 1
            continue
        record = {
            "line": str(index),
            "series": line.name,
            "name": isolated(legible(line.name)),
            "x": x,
            "y": y,
        }
        record |= {"part": part, "step": step, "range": ""}
        if x_labels:
            record["at"] = isolated(legible(x_labels[int(x)]))
        if line.low and math.isfinite(line.low[step]) and math.isfinite(line.high[step]):
            low, high = line.low[step], line.high[step]
            record |= {"low": low, "high": high, "range": f"{exact(low)}, {exact(high)}"}
        records.append(record)
    return records


def _value_scale(
    points: Sequence[Record], marks: Sequence[tuple[float, str]], *, logarithmic: bool, reversed: bool
) -> Spec:
    """Vertical scale with all points, bands and rules on it."""
    ends = [point[end] for point in points for end in ("y", "low", "high") if end in point]
    values = [*ends, *(value for value, _ in marks if math.isfinite(value))]
    shared = {"reverse": reversed, "nice": False}
    if not logarithmic:
        low, high = (min(values), max(values)) if values else (0.0, 1.0)
        margin = 0.06 * (high - low) or 0.5
        return {"domain": [low - margin, high + margin], "zero": False, **shared}
    if any(value <= 0 for value in values):
        raise ValueError("a logarithmic axis has no place for 0 and below; count ranks from 1")
    low, high = min([1.0, *values]), max([10.0, *values])
    return {"type": "log", "domain": [low, high * (high / low) ** 0.04], **shared}


def _powers(low: float, high: float) -> list[float]:
    """Ticks of a logarithmic axis: powers of ten, with 2 and 5 between them on a short axis."""
    first, last = math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(high) - 1e-9)
    factors = (1, 2, 5) if last - first <= 2 else (1,)
    step = max(1, (last - first) // 6)
    ticks = [factor * 10.0**power for power in range(first, last + 1, step) for factor in factors]
    return [tick for tick in ticks if low * (1 - 1e-9) <= tick <= high]


def _x_channel(points: Sequence[Record], title: str, labels: Sequence[str], chosen: float | None) -> Spec:
    """Horizontal axis: whole numbers get half a step of air; the chosen text is there on any screen."""
    values = [point["x"] for point in points] or [0.0]
    low, high = min(values), max(values)
    whole = all(float(value).is_integer() for value in values)
    low, high = (0, max(high, len(labels) - 1)) if labels else (low, high)
    air = 0.5 if whole else 0.02 * (high - low) or 0.5
    axis: Spec = {"title": legible(title), "grid": False}
    if labels:
        shown = [legible(label) for label in labels]
        kept = None if chosen is None or not 0 <= chosen < len(labels) else int(chosen)
        step = tick_step(len(labels))
        axis |= {
            "values": list(range((kept or 0) % step, len(labels), step)),
            "labelOverlap": False,
            **text_axis(shown, len(labels), kept=kept),
        }
    elif whole and high - low <= 1000:
        step = thinning(int(high - low) + 1, 1 if high - low < 24 else 2)
        axis |= {"values": list(range(int(low), int(high) + 1, step)), "format": "d"}
    return number_channel(
        "x", scale={"domain": [low - air, high + air], "nice": False, "zero": False}, axis=axis
    )


def _x_tooltip(title: str, labels: Sequence[str]) -> Spec:
    return shown_name("at", legible(title)) if labels else shown_number("x", legible(title))


def _rules(marks: Sequence[tuple[float, str]], scale: Spec) -> list[Record]:
    """Named values; the names of neighbours stand on different sides of their rules, or at different ends."""
    place = math.log if scale.get("type") == "log" else float
    span = place(scale["domain"][1]) - place(scale["domain"][0])
    upwards = sorted((mark for mark in marks if math.isfinite(mark[0])), reverse=scale["reverse"])
    records: list[Record] = []
    for value, name in upwards[::-1]:
        near = [r["spot"] for r in records if abs(place(r["y"]) - place(value)) < 0.13 * span]
        spot = next((spot for spot in range(len(_SPOTS)) if spot not in near), 0)
        records.append({"y": value, "label": f"{legible(name)} {number(value)}", "spot": spot})
    return records


# Where the name of a rule may stand: above it or below it at the right end, then the same at the left end.
_SPOTS = (
    ("width", {"align": "right", "baseline": "bottom", "dx": -2, "dy": -2}),
    ("width", {"align": "right", "baseline": "top", "dx": -2, "dy": 3}),
    ("0", {"align": "left", "baseline": "bottom", "dx": 2, "dy": -2}),
    ("0", {"align": "left", "baseline": "top", "dx": 2, "dy": 3}),
)


def _rule_layers(y: Spec) -> list[Spec]:
    layers = [mark_layer("rules", "rule", "reference", y=y)]
    for spot, (end, look) in enumerate(_SPOTS):
        x = {"value": {"expr": end}}
        for style in ("note-halo", "note"):
            layer = mark_layer("rules", "text", style, look=look, x=x, y=y, text={"field": "label"})
            layers.append({**layer, "transform": [{"filter": f"datum.spot === {spot}"}]})
    return layers


def _line_layers(series: Sequence[Line], x: Spec, y: Spec) -> list[Spec]:
    """Bands and lines; parts between gaps are not joined."""
    parts = [{"field": "line", "type": "nominal"}, {"field": "part", "type": "nominal"}]
    colour, order = _line_channel(series), {"field": "step", "type": "quantitative"}
    tests = [
        {"test": f"datum.line === {literal(str(index))}", "value": list(_dash(index))}
        for index in range(len(series))
    ]
    dash: Spec = {"condition": tests, "value": [1, 0]} if tests else {"value": [1, 0]}
    low_to_high = {"y": {**y, "field": "low"}, "y2": {"field": "high"}}
    return [
        mark_layer(
            "bands", "area", "band", look={"clip": True}, x=x, color=colour, detail=parts, **low_to_high
        ),
        mark_layer(
            "points", "line", "trend", x=x, y=y, color=colour, strokeDash=dash, detail=parts, order=order
        ),
    ]


def _dash(index: int) -> tuple[int, int]:
    """Six dashes, then the same in another order, so that colour and dash together stay unique."""
    return DASHES[(index + index // len(DASHES)) % len(DASHES)]


def _dots(series: Sequence[Line], x: Spec, y: Spec, told: Sequence[Spec]) -> Spec:
    """Points to see, to hover and to click; unseen where they are too many."""
    crowded = max((len(line.x) for line in series), default=0) > DOTTED_UP_TO
    look = {"cursor": "pointer", **({"opacity": 0} if crowded else {})}
    shapes = [SHAPES[(index + index // len(SHAPES)) % len(SHAPES)] for index in range(len(series))]
    colour = _line_channel(series)
    shape = {**colour, "scale": {"domain": _keys(series), "range": shapes}}
    tooltip = [shown_name("name", "line"), *told]
    if any(line.low for line in series):
        tooltip.append(shown_name("range", "from, to"))
    dots = mark_layer(
        "points", "point", "dot", look=look, x=x, y=y, color=colour, shape=shape, tooltip=tooltip
    )
    return {**dots, "params": cell_selection("series", "x")}


def _line_channel(series: Sequence[Line]) -> Spec:
    """Colour per line, and the legend below: as many columns as its longest name leaves."""
    names = [isolated(cut(legible(line.name), NAME)) for line in series]
    if not any(names):
        return name_channel("line", legend=None)
    narrow, middle, wide = (_legend_columns(series, room) for room in (NARROW, MIDDLE, WIDE))
    legend: Spec = {
        "title": None,
        "labelExpr": pick_expression(names),
        # Vega decides while the width still is that of the whole figure.
        "columns": {"expr": f"width < 400 ? {narrow} : width < 430 ? {middle} : {wide}"},
        "symbolOpacity": 1,
    }
    return name_channel("line", scale={"domain": _keys(series)}, legend=legend)


def _keys(series: Sequence[Line]) -> list[str]:
    return [str(index) for index in range(len(series))]


def _height(series: Sequence[Line], room: int) -> int:
    """Screen height: the plot is as high under a long legend as under a short one."""
    rows = -(-len(series) // _legend_columns(series, room)) if any(line.name for line in series) else 0
    return HEIGHT + LEGEND_ROW * rows


def _legend_columns(series: Sequence[Line], room: int) -> int:
    """How many names fit beside each other in a room of so many letters."""
    longest = max((letters(cut(legible(line.name), NAME)) for line in series), default=1)
    return max(1, min(len(series) or 1, room // (longest + 6)))
