"""Text as a model reads it: every token a coloured box, in lines that flow like text.

Boxes are laid out here, in units of one letter of a monospaced font, so that a token is as wide as its text
and the same text breaks in the same places everywhere. Boxes are keyed by position: the same word twice gives
two. The font is as large as its lines and columns allow, on screen and on paper.
"""

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mi_core.charts.colours import ColourScale, colour_channel
from mi_core.charts.ink import ink_on
from mi_core.charts.layers import (
    cell_selection,
    mark_layer,
    number_channel,
    shown_index,
    shown_name,
    shown_number,
)
from mi_core.charts.text import isolated, legible

Spec = dict[str, Any]
Record = dict[str, Any]

PITCH, PITCH_NUMBERED = 26, 40
BAR = 62
NARROW_COLUMNS = 50
NUMBERED_UP_TO = 40


@dataclass(frozen=True, slots=True)
class TokenRow:
    """One text of `token_rows`.

    Attributes:
        label: printed before it.
        tokens: visible texts.
        values: one per token; NaN = grey.
        centre: index of the token that the row is about, kept in view; None = the first token.
        start: position of the first token in its text, for the tooltip.
    """

    label: str
    tokens: Sequence[str]
    values: Sequence[float]
    centre: int | None = None
    start: int = 0


def units(text: str) -> int:
    """Width in letters; Chinese, Japanese, Korean and emoji take two, combining marks none."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text
    )


def token_text(
    tokens: Sequence[str],
    values: Sequence[float],
    colours: ColourScale,
    *,
    chosen: int | None = None,
    notes: Sequence[str] = (),
    columns: int = 100,
) -> Spec:
    """Flowing text, a box per token.

    Args:
        tokens: visible texts.
        values: one per token; NaN = grey.
        colours: the scale.
        chosen: position to outline.
        notes: a line for the tooltip of every token.
        columns: letters per line.

    Returns:
        Specification without looks; clicks select `cell` with field position.
    """
    wide = _flow(tokens, values, colours, notes, columns)
    lines = wide[-1]["row"] + 1 if wide else 1
    return {
        "height": lines * PITCH + BAR,
        "datasets": {
            "tokens": [r for r in wide if r["ink"]],
            "missing": [r for r in wide if not r["ink"]],
            "chosen": [r for r in wide if r["position"] == chosen],
        },
        "layer": _layers(colours, columns, lines, ("position",)),
    }


def _flow(
    tokens: Sequence[str], values: Sequence[float], colours: ColourScale, notes: Sequence[str], columns: int
) -> list[Record]:
    records: list[Record] = []
    x = row = 0
    for position, (token, value, ink) in enumerate(zip(tokens, values, ink_on(colours, values), strict=True)):
        text = legible(token)
        width = min(units(text), columns)
        if x + width > columns:
            x, row = 0, row + 1
        records.append(
            {
                "position": position,
                "token": isolated(text),
                "x": x,
                "x1": x + width,
                "row": row,
                "ink": ink,
                "note": notes[position] if notes else "",
                **({"value": value} if math.isfinite(value) else {}),
            }
        )
        x += width
        if "↵" in token:
            x, row = 0, row + 1
    return records


def _layers(colours: ColourScale, columns: int, lines: int, fields: Sequence[str]) -> list[Spec]:
    x = number_channel("x", scale={"domain": [0, columns], "nice": False, "zero": False}, axis=None)
    y = number_channel("top", scale={"domain": [0, lines], "reverse": True, "nice": False}, axis=None)
    edges = [
        {"calculate": "datum.row + 0.08", "as": "top"},
        {"calculate": "datum.row + 0.92", "as": "bottom"},
    ]
    middle = [
        {"calculate": "(datum.x + datum.x1) / 2", "as": "middle"},
        {"calculate": "datum.row + 0.5", "as": "centre"},
    ]
    box = {"x": x, "x2": {"field": "x1"}, "y": y, "y2": {"field": "bottom"}}
    place = {"x": {**x, "field": "middle"}, "y": {**y, "field": "centre"}}
    font = {
        "fontSize": {"expr": f"min(height / {lines} * 0.52, width / {columns} / 0.62)"},
        "baseline": "middle",
    }
    shown = [shown_index("position", "position"), shown_name("token", "token")]
    live = mark_layer(
        "tokens", "rect", "tile", look={"cursor": "pointer"}, **box, color=colour_channel(colours),
        tooltip=[*shown, shown_number("value", legible(colours.heading)), shown_name("note", "note")],
    )  # fmt: skip
    live["params"] = cell_selection(*fields)
    layers = [
        live,
        mark_layer("missing", "rect", "missing", **box, tooltip=[*shown, shown_name("note", "note")]),
        mark_layer("chosen", "rect", "chosen", **box),
    ]
    text = {"field": "token"}
    ink = {"field": "ink", "type": "nominal", "scale": None}
    return [
        *({**layer, "transform": edges} for layer in layers),
        {
            **mark_layer("tokens", "text", "token-text", look=font, **place, text=text, color=ink),
            "transform": middle,
        },
        {**mark_layer("missing", "text", "token-text", look=font, **place, text=text), "transform": middle},
    ]


def token_rows(texts: Sequence[TokenRow], colours: ColourScale) -> Spec:
    """Several texts under each other, one line each, with their labels and values before them.

    Args:
        texts: from top to bottom.
        colours: the shared scale.

    Returns:
        Specification without looks; clicks select `cell` with fields row and position.
    """
    columns = 110
    records: list[Record] = []
    for row, text in enumerate(texts):
        line = _flow(text.tokens, text.values, colours, (), 10**6)
        records += [
            {**r, "row": row, "x": r["x"] + 20, "x1": r["x1"] + 20, "position": r["position"] + text.start}
            for r in line
            if r["x1"] + 20 <= columns
        ]
    return {
        "height": len(texts) * PITCH + BAR,
        "datasets": {
            "tokens": [r for r in records if r["ink"]],
            "missing": [r for r in records if not r["ink"]],
            "chosen": [],
        },
        "layer": _layers(colours, columns, len(texts), ("row", "position")),
    }
