"""Signed bars for one or two prompts in the same rows: from zero, or floating where the one before ended.

The first prompt's bars are full, the second's pale, so that both can be compared on one axis whatever the
colours mean to the reader. Pointing and clicking work on the whole row: a bar near zero is too short to hit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mi_core.charts.layers import cell_selection, mark_layer, number_channel, shown_name, shown_number
from mi_core.charts.text import isolated, legible, number, pick_expression
from mi_core.charts.theme import NEGATIVE, POSITIVE

Spec = dict[str, Any]
Record = dict[str, Any]

ROW, PAIR = 22, 34  # screen height of a row with one bar, and with two
LEAST = 16  # of a row when there are many
MANY = 620  # screen height from which rows get thinner
AROUND = 64  # screen height of the value axis and the legend
ROOM = 0.15  # of the axis beyond the longest bar, for its number
PALE = 0.3


@dataclass(frozen=True, slots=True)
class Series:
    """The bars of one prompt.

    Attributes:
        name: in the legend.
        values: signed lengths, one per row.
        starts: where each bar begins; zeros for bars from zero.
    """

    name: str
    values: Sequence[float]
    starts: Sequence[float]

    @property
    def ends(self) -> list[float]:
        """Where each bar ends."""
        return [start + value for start, value in zip(self.starts, self.values, strict=True)]


def paired_bars(
    labels: Sequence[str],
    series: Sequence[Series],
    *,
    title: str,
    unit: str,
    notes: Sequence[str] = (),
    connected: bool = False,
    chosen: int | None = None,
) -> Spec:
    """Rows of bars from top to bottom.

    Args:
        labels: name of every row.
        series: one or two.
        title: what the lengths are.
        unit: of the lengths.
        notes: a line more for every row's tooltip; empty = none.
        connected: join the end of every bar with the beginning of the next (a waterfall).
        chosen: index of the row to outline.

    Returns:
        Specification without looks; clicks select `cell` with the field row.

    Raises:
        ValueError: a series has not one value per row.
    """
    if any(len(one.values) != len(labels) or len(one.starts) != len(labels) for one in series):
        raise ValueError(f"{len(labels)} rows, bars {[len(one.values) for one in series]}")
    heading = legible(f"{title} [{unit}]" if unit else title)
    reach = _reach(series)
    rows = [
        {
            "row": row, "name": isolated(legible(label)), "left": reach[0], "right": reach[1],
            "note": legible(notes[row]) if notes else "",
            **{f"value{index}": one.values[row] for index, one in enumerate(series)},
        }
        for row, label in enumerate(labels)
    ]  # fmt: skip
    bars = [record for index, one in enumerate(series) for record in _records(one, index, len(series))]
    return {
        "height": _height(len(labels) + (len(series) > 1), len(series)),
        "datasets": {
            "rows": rows,
            "bars": bars,
            "joints": _joints(series) if connected else [],
            "names": _names(series),
            "zero": [{"end": 0, "top": -0.5, "bottom": len(labels) - 0.5}],
            "chosen": [record for record in rows if record["row"] == chosen],
        },
        "layer": _layers(heading, labels, series, reach),
    }


def _height(rows: int, series: int) -> int:
    row = ROW if series == 1 else PAIR
    least = LEAST * row / ROW
    return round(rows * min(row, max(least, MANY / max(rows, 1)))) + AROUND


def _reach(series: Sequence[Series]) -> tuple[float, float]:
    """Ends of the axis: zero is on it, and there is room for the numbers beyond the longest bars."""
    ends = [0.0, *(end for one in series for end in (*one.starts, *one.ends))]
    low, high = min(ends), max(ends)
    room = ROOM * (high - low) or 1.0
    return low - room if low < 0 else 0.0, high + room


def _edges(index: int, count: int) -> tuple[float, float]:
    """Upper and lower edge of a bar within its row, as shares of the row."""
    return (-0.36, 0.36) if count == 1 else ((-0.42, -0.02) if index == 0 else (0.02, 0.42))


def _records(one: Series, index: int, count: int) -> list[Record]:
    top, bottom = _edges(index, count)
    return [
        {
            "row": row, "series": index, "value": value, "start": start, "end": start + value,
            "top": row + top, "bottom": row + bottom, "middle": row + (top + bottom) / 2,
            "shown": number(value), "side": "left" if value < 0 else "right",
        }
        for row, (value, start) in enumerate(zip(one.values, one.starts, strict=True))
    ]  # fmt: skip


def _names(series: Sequence[Series]) -> list[Record]:
    """The legend's entries, in the row above the first; one prompt alone needs none."""
    if len(series) == 1:
        return []
    return [
        {"series": index, "name": legible(one.name), "top": -1.2, "bottom": -0.8, "middle": -1.0}
        for index, one in enumerate(series)
    ]


def _joints(series: Sequence[Series]) -> list[Record]:
    """The line that goes on from the end of one bar to the beginning of the next."""
    joints = []
    for index, one in enumerate(series):
        top, bottom = _edges(index, len(series))
        joints += [
            {"end": end, "top": row + bottom, "bottom": row + 1 + top}
            for row, end in enumerate(one.ends[:-1])
        ]
    return joints


def _layers(
    heading: str, labels: Sequence[str], series: Sequence[Series], reach: tuple[float, float]
) -> list[Spec]:
    """Bars, what reacts to pointing at their rows, joints and numbers, and the outline of the chosen row."""
    x_scale = {"domain": list(reach), "nice": False, "zero": False}
    x = number_channel("left", scale=x_scale, axis={"title": heading, "tickCount": 6})
    y_scale = {
        "domain": [-0.5 if len(series) == 1 else -1.5, len(labels) - 0.5],
        "reverse": True,
        "nice": False,
        "zero": False,
    }
    y = number_channel("top", scale=y_scale, axis=_label_axis(labels))
    row = {"x": x, "x2": {"field": "right"}, "y": {**y, "field": "above"}, "y2": {"field": "below"}}
    whole = [
        {"calculate": "datum.row - 0.5", "as": "above"}, {"calculate": "datum.row + 0.5", "as": "below"}
    ]  # fmt: skip
    tooltip = [
        shown_name("name", "part"),
        *(shown_number(f"value{i}", legible(one.name) or heading) for i, one in enumerate(series)),
        shown_name("note", "note"),
    ]
    live = mark_layer("rows", "rect", look={"fillOpacity": 0, "cursor": "pointer"}, **row, tooltip=tooltip)
    bar = {"x": {**x, "field": "start"}, "x2": {"field": "end"}, "y": y, "y2": {"field": "bottom"}}
    joint = {"x": {**x, "field": "end"}, "y": y, "y2": {"field": "bottom"}}
    return [
        mark_layer("zero", "rule", "axis-line", **joint),
        mark_layer(
            "bars", "rect", look=_OUTLINED, **bar, color=_COLOUR, stroke=_COLOUR, fillOpacity=_PALENESS
        ),
        {**live, "params": cell_selection("row"), "transform": whole},
        mark_layer("joints", "rule", "reference", **joint),
        *_number_layers({**x, "field": "end"}, {**y, "field": "middle"}),
        *_legend_layers(y),
        {**mark_layer("chosen", "rect", "chosen", **row), "transform": whole},
    ]


_COLOUR = {"condition": {"test": "datum.value < 0", "value": NEGATIVE}, "value": POSITIVE}


_OUTLINED = {"strokeWidth": 0.8}  # a pale bar alone would drown on a dark page
_PALENESS = {"condition": {"test": "datum.series === 1", "value": PALE}, "value": 1}


def _legend_layers(y: Spec) -> list[Spec]:
    """Which bars are whose, in a row of their own: Vega has no legend for marks that are coloured by sign."""
    swatch = {
        "x": {"value": {"expr": "width * (0.02 + 0.3 * datum.series)"}},
        "x2": {"value": {"expr": "width * (0.045 + 0.3 * datum.series)"}},
        "y": y,
        "y2": {"field": "bottom"},
        "color": {"value": POSITIVE},
        "stroke": {"value": POSITIVE},
        "fillOpacity": _PALENESS,
    }
    beside = {"value": {"expr": "width * (0.055 + 0.3 * datum.series)"}}
    look = {"align": "left", "baseline": "middle"}
    return [
        mark_layer("names", "rect", look=_OUTLINED, **swatch),
        mark_layer("names", "text", look=look, x=beside, y={**y, "field": "middle"}, text={"field": "name"}),
    ]


def _label_axis(labels: Sequence[str]) -> Spec:
    return {
        "values": list(range(len(labels))),
        "labelExpr": pick_expression([isolated(legible(label)) for label in labels]),
        "labelOverlap": True,  # only where a slide gives many bars too little height
        "title": None,
        "grid": False,
        "domain": False,
        "ticks": False,
    }


def _number_layers(x: Spec, y: Spec) -> list[Spec]:
    """Numbers beyond the ends of the bars."""
    looks = {"left": {"align": "right", "dx": -3}, "right": {"align": "left", "dx": 3}}
    return [
        {
            **mark_layer(
                "bars",
                "text",
                "value",
                look={"baseline": "middle", **look},
                x=x,
                y=y,
                text={"field": "shown"},
            ),
            "transform": [{"filter": f"datum.side === '{side}'"}],
        }
        for side, look in looks.items()
    ]
