"""Horizontal bars: signed contributions around a zero line, or amounts from zero on."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mi_core.charts.layers import cell_selection, mark_layer, number_channel, shown_name, shown_number
from mi_core.charts.text import legible, number, pick_expression
from mi_core.charts.theme import DIVERGING

Spec = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar.

    Attributes:
        label: its name; may repeat.
        value: its length.
        low: lower end of its error bar; NaN = none.
        high: upper end of its error bar; NaN = none.
        group: bars of a group stand together under its title.
        note: a line for the tooltip.
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
    """Horizontal bars from top to bottom.

    Args:
        items: the bars.
        title: of the value axis.
        unit: of the values.
        chosen: index of the bar to outline.
        marks: values with names, drawn as rules.
        diverging: blue above zero and orange below; otherwise one colour.

    Returns:
        Specification without looks; clicks select `cell` with field index.
    """
    heading = legible(f"{title} [{unit}]" if unit else title)
    records = [
        {
            "index": i,
            "name": legible(b.label),
            "value": b.value,
            "shown": number(b.value),
            "note": legible(b.note),
        }
        for i, b in enumerate(items)
        if math.isfinite(b.value)
    ]
    y = number_channel("index", scale={"domain": [-0.5, len(items) - 0.5], "reverse": True, "nice": False},
                       axis={"values": list(range(len(items))), "labelExpr": pick_expression([legible(b.label) for b in items]),
                             "title": None, "grid": False, "domain": False, "ticks": False, "labelOverlap": False})  # fmt: skip
    place = [
        {"calculate": "datum.index - 0.4", "as": "top"},
        {"calculate": "datum.index + 0.4", "as": "bottom"},
    ]
    box = {
        "x": number_channel("zero", axis={"title": heading}),
        "x2": {"field": "value"},
        "y": {**y, "field": "top"},
        "y2": {"field": "bottom"},
    }
    zero = [*place, {"calculate": "0", "as": "zero"}]
    positive, negative = DIVERGING[8], DIVERGING[2]
    colour = {
        "condition": {"test": f"datum.value < 0 && {str(diverging).lower()}", "value": negative},
        "value": positive,
    }
    live = mark_layer("bars", "rect", look={"cursor": "pointer"}, **box, color=colour,
                      tooltip=[shown_name("name", "part"), shown_number("value", heading), shown_name("note", "note")])  # fmt: skip
    live["params"] = cell_selection("index")
    after = {
        "align": {"expr": "datum.value < 0 ? 'right' : 'left'"},
        "dx": {"expr": "datum.value < 0 ? -3 : 3"},
        "baseline": "middle",
    }
    return {
        "height": 22 * len(items) + 60,
        "datasets": {
            "bars": records,
            "chosen": [r for r in records if r["index"] == chosen],
            "marks": [{"value": v, "label": legible(n)} for v, n in marks],
            "axis": [{"value": 0}],
        },  # fmt: skip
        "layer": [
            {**live, "transform": zero},
            mark_layer("axis", "rule", "axis-line", x=number_channel("value")),
            mark_layer("marks", "rule", "reference", x=number_channel("value")),
            mark_layer(
                "bars", "text", "value", look=after, x=number_channel("value"), y=y, text={"field": "shown"}
            ),
            {**mark_layer("chosen", "rect", "chosen", **box), "transform": zero},
        ],
    }
