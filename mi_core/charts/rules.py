"""Named values on an axis: rules across a chart whose names never cover each other."""

import math
from collections.abc import Sequence
from typing import Any

from mi_core.charts.layers import mark_layer
from mi_core.charts.text import legible, number

Spec = dict[str, Any]
Record = dict[str, Any]


def beside_rules(marks: Sequence[tuple[float, str]], low: float, high: float) -> list[Record]:
    """Vertical rules with their names above the chart, in as many lines as they need.

    Args:
        marks: (value, name); a value that is not finite has no rule.
        low: left end of the axis.
        high: right end of the axis.

    Returns:
        Records with value, label, align (of the name) and level (its line, counted from the chart upwards).
    """
    taken: list[float] = []  # right ends of the names in every line, as shares of the axis
    records: list[Record] = []
    for value, name in sorted(mark for mark in marks if math.isfinite(mark[0])):
        label = f"{legible(name)} {number(value)}"
        share, width = (value - low) / (high - low), _LETTER * len(label)
        align = "left" if share < 0.25 else "right" if share > 0.75 else "center"
        start = share - {"left": 0.0, "center": width / 2, "right": width}[align]
        level = next((index for index, end in enumerate(taken) if start > end), len(taken))
        taken[level : level + 1] = [start + width + _LETTER]
        records.append({"value": value, "label": label, "align": align, "level": level})
    return records


def levels(records: Sequence[Record]) -> int:
    """How many lines the names of `beside_rules` take."""
    return max((record["level"] + 1 for record in records), default=0)


def name_layers(x: Spec, y: Spec, **look: Any) -> list[Spec]:
    """The names of `beside_rules` from the data set "rules".

    Args:
        x: channel of the value.
        y: channel of the lower edge of the names.
        look: more for the marks.
    """
    layers = []
    for align in ("left", "center", "right"):
        place = {"align": align, "baseline": "bottom", **look}
        layer = mark_layer("rules", "text", "note", look=place, x=x, y=y, text={"field": "label"})
        layers.append({**layer, "transform": [{"filter": f"datum.align === '{align}'"}]})
    return layers


# Share of the axis that a letter takes in one column of a journal, where type is largest for its place.
_LETTER = 1 / 48
