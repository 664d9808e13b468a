"""Tokens as coloured boxes on a grid of letters and lines: what `token_text` and `token_rows` have in common.

A letter is as wide as the columns leave, but never wider than suits the height of a line; so the type fills
its box on a wide page, on a phone and on paper, and short texts are not blown up.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mi_core.charts.colours import ColourScale, colour_channel
from mi_core.charts.ink import ink_on
from mi_core.charts.layers import cell_selection, mark_layer, number_channel, shown_number
from mi_core.charts.text import isolated, legible
from mi_core.charts.token_layout import Box

Spec = dict[str, Any]
Record = dict[str, Any]

PITCH, PITCH_NUMBERED = 26.0, 38.0  # screen height of a line, without and with positions under the boxes
BOX = 23.0  # of it the box
LETTER = 8.6  # screen width of a letter in a box of this height
EM = 0.62  # width of a letter in sizes of the font, with a little air
LEGEND, LEGEND_NAMES = 60, 14  # screen height of the colour bar, and of the names of its marks


@dataclass(frozen=True, slots=True)
class Grid:
    """The place that boxes are drawn in.

    Attributes:
        columns: letters per line.
        lines: how many.
        numbered: whether positions stand under the boxes.
    """

    columns: int
    lines: int
    numbered: bool = False

    @property
    def pitch(self) -> float:
        """Screen height of a line."""
        return PITCH_NUMBERED if self.numbered else PITCH

    @property
    def letter(self) -> str:
        """Expression of a letter's width in the figure."""
        return f"min(width / {self.columns}, height * {LETTER / (self.lines * self.pitch)})"

    def height(self, colours: ColourScale) -> int:
        """Screen height of the figure."""
        return round(self.lines * self.pitch) + LEGEND + (LEGEND_NAMES if colours.marks else 0)

    def font(self, share: float = 1.0) -> Spec:
        """Type that fits the boxes."""
        return {"fontSize": {"expr": f"{self.letter} * {share / EM}"}, "baseline": "middle"}

    def scales(self) -> tuple[Spec, Spec]:
        """Letters from left to right, lines from top to bottom."""
        ends = (f"width / ({self.letter})", f"height / ({self.letter}) * {LETTER / self.pitch}")
        across, down = ({"domain": [0, {"expr": end}], "nice": False, "zero": False} for end in ends)
        return across, {**down, "reverse": True}


def box_record(box: Box, token: str, value: float, ink: str) -> Record:
    """One token: where it stands, what is printed, what the tooltip says.

    Args:
        box: its place.
        token: its whole text.
        value: NaN where there is none.
        ink: that can be read on its colour; see `ink.ink_on`.
    """
    known = {"value": value, "ink": ink} if math.isfinite(value) else {}
    status = "no value" if math.isnan(value) else "not finite"
    return {
        "position": box.index,
        "token": isolated(token),
        "shown": isolated(box.text),
        "line": box.line,
        "x": box.start,
        "x1": box.end,
        **(known or {"status": status}),
    }


def box_records(
    boxes: Sequence[Box], tokens: Sequence[str], values: Sequence[float], colours: ColourScale
) -> list[Record]:
    """`box_record` of every box."""
    inks = ink_on(colours, values)
    return [box_record(box, tokens[box.index], values[box.index], inks[box.index]) for box in boxes]


def box_layers(
    grid: Grid,
    colours: ColourScale,
    *,
    fields: Sequence[str],
    place: Sequence[Spec],
    told: Sequence[Spec] = (),
) -> list[Spec]:
    """Boxes, boxes without a number, and the tokens on them, from the data sets "tokens" and "missing".

    Args:
        grid: the place.
        colours: of the boxes.
        fields: what a click returns.
        place: tooltip lines before the value.
        told: tooltip lines after the value.
    """
    across, down = grid.scales()
    x, y = number_channel("x", scale=across, axis=None), number_channel("top", scale=down, axis=None)
    live = mark_layer(
        "tokens", "rect", "tile", look={"cursor": "pointer"}, x=x, y=y, **_ENDS,
        color=colour_channel(colours),
        tooltip=[*place, shown_number("value", legible(colours.heading)), *told],
    )  # fmt: skip
    status = {"field": "status", "type": "nominal", "title": "value"}
    missing = mark_layer("missing", "rect", "missing", **_BOX, tooltip=[*place, status, *told])
    ink = {"field": "ink", "type": "nominal", "scale": None}
    return [
        {**live, "params": cell_selection(*fields), "transform": _edges(grid)},
        {**missing, "transform": _edges(grid)},
        {**_text_layer("tokens", grid, color=ink), "transform": _middle(grid)},
        {**_text_layer("missing", grid), "transform": _middle(grid)},
        *([_number_layer(data, grid) for data in ("tokens", "missing")] if grid.numbered else []),
    ]


def outline_layers(data: str, grid: Grid, *styles: str) -> list[Spec]:
    """Outlines around the boxes of a data set, one per style."""
    return [{**mark_layer(data, "rect", style, **_BOX), "transform": _edges(grid)} for style in styles]


def text_layer(data: str, field: str, style: str, grid: Grid, *, look: Spec, at: str = "x") -> Spec:
    """A text beside the boxes, at the middle of their height."""
    where = {"x": number_channel(at, axis=None), "y": number_channel("middle", axis=None)}
    layer = mark_layer(data, "text", style, look={**grid.font(), **look}, **where, text={"field": field})
    return {**layer, "transform": _middle(grid)}


_ENDS = {"x2": {"field": "x1"}, "y2": {"field": "bottom"}}
_BOX = {"x": number_channel("x", axis=None), "y": number_channel("top", axis=None), **_ENDS}


def _edges(grid: Grid) -> list[Spec]:
    """Upper and lower edge of a box in lines."""
    above = (PITCH - BOX) / 2
    return [
        {"calculate": f"datum.line + {above / grid.pitch}", "as": "top"},
        {"calculate": f"datum.line + {(above + BOX) / grid.pitch}", "as": "bottom"},
    ]


def _middle(grid: Grid) -> list[Spec]:
    """The middle of a box, and of the position under it."""
    return [
        {"calculate": "(datum.x + datum.x1) / 2", "as": "centre"},
        {"calculate": f"datum.line + {PITCH / 2 / grid.pitch}", "as": "middle"},
        {
            "calculate": f"datum.line + {(PITCH + (PITCH_NUMBERED - PITCH) * 0.32) / grid.pitch}",
            "as": "under",
        },
    ]


def _text_layer(data: str, grid: Grid, **encoding: Spec) -> Spec:
    where = {"x": number_channel("centre", axis=None), "y": number_channel("middle", axis=None)}
    return mark_layer(
        data, "text", "token-text", look=grid.font(), **where, text={"field": "shown"}, **encoding
    )


def _number_layer(data: str, grid: Grid) -> Spec:
    """Positions under the boxes."""
    where = {"x": number_channel("centre", axis=None), "y": number_channel("under", axis=None)}
    layer = mark_layer(data, "text", "position", look=grid.font(0.78), **where, text={"field": "position"})
    return {**layer, "transform": _middle(grid)}
