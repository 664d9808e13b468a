"""Horizontal bars: signed contributions around a zero line, or amounts from zero on.

A bar is keyed by its index, so bars of the same name stay apart. Pointing and clicking work on the whole row,
because a bar near zero is too short to be hit.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mi_core.charts.layers import cell_selection, mark_layer, number_channel, shown_name
from mi_core.charts.rules import beside_rules, levels, name_layers
from mi_core.charts.text import exact, isolated, legible, literal, number, pick_expression
from mi_core.charts.theme import NEGATIVE, POSITIVE

Spec = dict[str, Any]
Record = dict[str, Any]

AROUND = 56  # screen height of the value axis
ROOM = 0.17  # of the axis beyond the longest bar, for its number of up to LETTERS
LETTERS = 6


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar.

    Attributes:
        label: its name; may repeat.
        value: its length; NaN = no bar, and "none" in its place.
        low: lower end of its error bar; NaN = none.
        high: upper end of its error bar; NaN = none.
        group: neighbours of one group stand together under its name.
        note: a line more for the tooltip.
    """

    label: str
    value: float
    low: float = math.nan
    high: float = math.nan
    group: str = ""
    note: str = ""


def bars(
    items: Sequence[Bar],
    *,
    title: str,
    unit: str,
    chosen: int | None = None,
    marks: Sequence[tuple[float, str]] = (),
    diverging: bool = True,
) -> Spec:
    """Bars from top to bottom, their numbers at their ends.

    Args:
        items: up to about sixty.
        title: what their lengths are.
        unit: of the lengths.
        chosen: index of the bar to outline.
        marks: values with names, drawn as rules.
        diverging: blue above zero and orange below; otherwise one colour for all.

    Returns:
        Specification without looks; clicks select `cell` with the field index.
    """
    slots, labels, headings = _slots(items)
    low, high = _reach(items, marks)
    rules = beside_rules(marks, low, high)
    rows = (-0.5 - levels(rules), len(labels) - 0.5)
    heading = legible(f"{title} [{unit}]" if unit else title)
    records = [_record(index, slot, items[index], low, high) for index, slot in enumerate(slots)]
    x_scale = {"domain": [low, high], "nice": False, "zero": False}
    x = number_channel("left", scale=x_scale, axis={"title": heading, "tickCount": 5})
    y_scale = {"domain": list(rows), "reverse": True, "nice": False, "zero": False}
    y = number_channel("top", scale=y_scale, axis=_label_axis(labels, headings))
    return {
        "height": height_for(rows[1] - rows[0]),
        "datasets": {
            "bars": records,
            "errors": [record for record in records if "low" in record],
            "rules": [{**rule, "slot": -0.5 - rule["level"], "end": rows[1]} for rule in rules],
            "zero": [{"end": 0, "top": -0.5, "bottom": rows[1]}],
            "chosen": [record for record in records if record["index"] == chosen],
        },
        "layer": _layers(x, y, rows[1] - rows[0], _tooltip(items, heading), diverging=diverging),
    }


def height_for(rows: float) -> int:
    """Screen height: comfortable rows while there are few, then as thin as their labels allow."""
    return round(rows * (22 if rows <= 28 else max(16.0, 616 / rows))) + AROUND


def _slots(items: Sequence[Bar]) -> tuple[list[int], list[str], list[int]]:
    """Row of every bar, label of every row, and the rows that are names of groups."""
    slots: list[int] = []
    labels: list[str] = []
    headings: list[int] = []
    group = ""
    for item in items:
        if item.group != group:
            group = item.group
            headings.append(len(labels))
            labels.append(isolated(legible(group)))
        slots.append(len(labels))
        labels.append(isolated(legible(item.label)))
    return slots, labels or [""], headings


def _reach(items: Sequence[Bar], marks: Sequence[tuple[float, str]]) -> tuple[float, float]:
    """Ends of the value axis: zero is on it, and beyond the longest bars there is room for their numbers."""
    ends = [end for item in items for end in (item.value, item.low, item.high)] + [
        value for value, _ in marks
    ]
    finite = [0.0, *(end for end in ends if math.isfinite(end))]
    low, high = min(finite), max(finite)
    longest = max((len(number(item.value)) for item in items if item.value < 0), default=0)
    room = ROOM * (high - low) or 1.0
    left = room * max(1.0, longest / LETTERS)  # on that side the names begin where the axis ends
    return (low - left if low < 0 else 0.0), (high + room if high > 0 or low == 0 else 0.0)


def _record(index: int, slot: int, item: Bar, low: float, high: float) -> Record:
    """One bar with its row, the place of its number, and the ends of the axis for what spans the row."""
    record: Record = {
        "index": index, "slot": slot, "group": isolated(legible(item.group)),
        "name": isolated(legible(item.label)), "note": legible(item.note), "range": "",
        "left": low, "right": high, "end": 0.0, "side": "right",
    }  # fmt: skip
    if not math.isfinite(item.value):
        why = "none" if math.isnan(item.value) else "not finite"
        return {**record, "shown": why, "told": why}
    errors = {"low": item.low, "high": item.high} if _has_errors(item) else {}
    if errors:
        record["range"] = f"{exact(item.low)}, {exact(item.high)}"
    side = "left" if item.value < 0 else "right"
    outer = [item.value, *errors.values()]
    end = min(outer) if side == "left" else max(outer)
    shown = {"shown": number(item.value), "told": exact(item.value)}
    return {**record, **errors, **shown, "value": item.value, "end": end, "side": side}


def _has_errors(item: Bar) -> bool:
    return math.isfinite(item.low) and math.isfinite(item.high)


def _layers(x: Spec, y: Spec, rows: float, told: Sequence[Spec], *, diverging: bool) -> list[Spec]:
    """Bars, what reacts to pointing at their rows, rules and numbers, and the outline of the chosen row."""
    row = {"x": x, "x2": {"field": "right"}, "y": y, "y2": {"field": "bottom"}}
    bar = {**row, "x": {**x, "field": "zero"}, "x2": {"field": "value"}}
    slot = {**y, "field": "slot"}
    live = mark_layer("bars", "rect", look={"fillOpacity": 0, "cursor": "pointer"}, **row, tooltip=told)
    return [
        {**mark_layer("bars", "rect", "bar", **bar, color=_colour(diverging=diverging)), "transform": _BAR},
        {**live, "params": cell_selection("index"), "transform": _ROW},
        mark_layer("errors", "rule", "whisker", x={**x, "field": "low"}, x2={"field": "high"}, y=slot),
        mark_layer("zero", "rule", "axis-line", x={**x, "field": "end"}, y=y, y2={"field": "bottom"}),
        *_rule_layers({**x, "field": "value"}, slot),
        *_number_layers({**x, "field": "end"}, slot, rows),
        {**mark_layer("chosen", "rect", "chosen", **row), "transform": _ROW},
    ]


def _between(share: float) -> list[Spec]:
    """Edges of a bar that takes this share of its row."""
    return [
        {"calculate": f"datum.slot - {share / 2}", "as": "top"},
        {"calculate": f"datum.slot + {share / 2}", "as": "bottom"},
    ]


_ROW = _between(1.0)
_BAR = [*_between(0.72), {"calculate": "0", "as": "zero"}, {"filter": "isValid(datum.value)"}]


def _label_axis(labels: Sequence[str], headings: Sequence[int]) -> Spec:
    """Names of bars, and in bold the names of groups."""
    bold = {"test": f"indexof({literal(list(headings))}, datum.value) >= 0", "value": 700}
    return {
        "values": list(range(len(labels))),
        "labelExpr": pick_expression(labels),
        "labelFontWeight": {"condition": bold, "value": 400},
        "labelOverlap": True,  # only where a slide gives many bars too little height
        "title": None,
        "grid": False,
        "domain": False,
        "ticks": False,
    }


def _colour(*, diverging: bool) -> Spec:
    if not diverging:
        return {"value": POSITIVE}
    return {"condition": {"test": "datum.value < 0", "value": NEGATIVE}, "value": POSITIVE}


def _tooltip(items: Sequence[Bar], heading: str) -> list[Spec]:
    """What pointing at a row tells, as far as the bars have it."""
    return [
        *([shown_name("group", "group")] if any(item.group for item in items) else []),
        shown_name("name", "part"),
        shown_name("told", heading),
        *([shown_name("range", "from, to")] if any(_has_errors(item) for item in items) else []),
        *([shown_name("note", "note")] if any(item.note for item in items) else []),
    ]


def _rule_layers(x: Spec, y: Spec) -> list[Spec]:
    """Named values: dashed rules, and their names above the bars."""
    rule = mark_layer("rules", "rule", "reference", x=x, y=y, y2={"field": "end"})
    return [rule, *name_layers(x, y)]


def _number_layers(x: Spec, y: Spec, rows: float) -> list[Spec]:
    """Numbers beyond the ends of the bars, as long as a row is high enough for them."""
    seen = {"expr": f"height / {rows} < 8 ? 0 : 1"}
    shared = {"baseline": "middle", "opacity": seen}
    looks = {"left": {"align": "right", "dx": -3}, "right": {"align": "left", "dx": 3}}
    layers = []
    for side, look in looks.items():
        layer = mark_layer(
            "bars", "text", "value", look={**shared, **look}, x=x, y=y, text={"field": "shown"}
        )
        layers.append({**layer, "transform": [{"filter": f"datum.side === '{side}'"}]})
    return layers
