"""Text as a model reads it: every token a coloured box, in lines that flow, or one line per text.

Boxes are keyed by position, so the same word twice gives two. A narrow column of a journal gets shorter lines
(`theme.styled`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mi_core.charts.colours import ColourScale
from mi_core.charts.ink import ink_on
from mi_core.charts.layers import shown_index, shown_name
from mi_core.charts.text import isolated, legible, number
from mi_core.charts.token_boxes import (
    Grid,
    box_layers,
    box_record,
    box_records,
    outline_layers,
    text_layer,
)
from mi_core.charts.token_layout import CUT, Box, cut, flow, in_view, letters

Spec = dict[str, Any]
Record = dict[str, Any]

COLUMNS, NARROW_COLUMNS = 100, 45  # letters per line on a page, and in one column of a journal
NUMBERED_UP_TO = 40  # tokens; above it their positions are only in the tooltip
# Letters before the lines of `token_rows`: for the label at most, and for the number.
LABEL, NARROW_LABEL, VALUE = 24, 12, 9


@dataclass(frozen=True, slots=True)
class TokenRow:
    """One text of `token_rows`.

    Attributes:
        label: printed before it.
        tokens: visible texts.
        values: one per token; NaN = grey.
        centre: index of the token that the line is about: it is framed, its value stands before the line, and
            it stays in view where the line is too long; None = the strongest.
        start: position of the first token, for the tooltip and the selection.
    """

    label: str
    tokens: Sequence[str]
    values: Sequence[float]
    centre: int | None = None
    start: int = 0

    def __post_init__(self) -> None:
        """A value per token, and a centre among them."""
        _check_lengths(self.tokens, self.values, ())
        if self.centre is not None and not 0 <= self.centre < len(self.tokens):
            raise ValueError(f"centre {self.centre} of {len(self.tokens)} tokens")

    @property
    def framed(self) -> int | None:
        """`centre`, or index of the value that is farthest from zero; None where no token has one."""
        if self.centre is not None:
            return self.centre
        finite = [index for index, value in enumerate(self.values) if math.isfinite(value)]
        return max(finite, key=lambda index: abs(self.values[index]), default=None)


def token_text(
    tokens: Sequence[str],
    values: Sequence[float],
    colours: ColourScale,
    *,
    chosen: int | None = None,
    notes: Sequence[str] = (),
    columns: int = COLUMNS,
    start: int = 0,
) -> Spec:
    """Flowing text, a box per token; up to 40 tokens have their positions under them.

    Args:
        tokens: visible texts.
        values: one per token; NaN = grey.
        colours: what the colours mean.
        chosen: position to outline.
        notes: a line more for every token's tooltip; empty = none.
        columns: letters per line.
        start: position of the first token, where this is a window of a longer text.

    Returns:
        Specification without looks; clicks select `cell` with the field position.

    Raises:
        ValueError: not one value (and note, where there are notes) per token.
    """
    _check_lengths(tokens, values, notes)
    texts = [legible(token) for token in tokens]
    numbered = len(texts) <= NUMBERED_UP_TO
    least = [len(str(start + index)) for index in range(len(texts))] if numbered else []

    def laid_out(width: int) -> Spec:
        boxes = flow(texts, width, least=least)
        records = box_records(boxes, texts, values, colours)
        for index, record in enumerate(records):
            record["position"] = start + index
            if notes:
                record["note"] = legible(notes[index])
        used = max((box.end for box in boxes), default=1)  # a short text stays large on a narrow page
        grid = Grid(used, boxes[-1].line + 1 if boxes else 1, numbered)
        return _flowing(records, grid, colours, chosen, notes=bool(notes))

    return {**laid_out(columns), "narrow": laid_out(min(columns, NARROW_COLUMNS))}


def _flowing(
    records: Sequence[Record], grid: Grid, colours: ColourScale, chosen: int | None, *, notes: bool
) -> Spec:
    place = [shown_index("position", "position"), shown_name("token", "token")]
    told = [shown_name("note", "note")] if notes else []
    return {
        "height": grid.height(colours),
        "datasets": {**_split(records), "chosen": [r for r in records if r["position"] == chosen]},
        "layer": [
            *box_layers(grid, colours, fields=("position",), place=place, told=told),
            *outline_layers("chosen", grid, "halo", "chosen"),
        ],
    }


def token_rows(
    texts: Sequence[TokenRow], colours: ColourScale, *, chosen: tuple[int, int] | None = None
) -> Spec:
    """Several texts under each other, one line each, with a label and a value before it.

    The centre of every line, or else its strongest token, is framed. What does not fit around it is left out,
    and an ellipsis says so.

    Args:
        texts: from top to bottom.
        colours: the one scale of all.
        chosen: (row, position) of the token to outline.

    Returns:
        Specification without looks; clicks select `cell` with the fields row (of the text) and position.
    """
    return {
        **_stacked(texts, colours, chosen, COLUMNS, LABEL),
        "narrow": _stacked(texts, colours, chosen, NARROW_COLUMNS, NARROW_LABEL),
    }


def _stacked(
    texts: Sequence[TokenRow],
    colours: ColourScale,
    chosen: tuple[int, int] | None,
    columns: int,
    label_limit: int,
) -> Spec:
    labels = [cut(legible(text.label), label_limit) for text in texts]
    lead = max((letters(label) for label in labels), default=0) + VALUE
    lines = [_line(row, text, colours, lead, columns) for row, text in enumerate(texts)]
    used = max((record["x1"] for line in lines for record in line), default=lead)
    grid = Grid(used, max(1, len(texts)))
    records = [record for line in lines for record in line if "token" in record]
    heads = [_head(row, text, labels[row], lead) for row, text in enumerate(texts)]
    place = [shown_name("label", "text"), shown_index("position", "position"), shown_name("token", "token")]
    return {
        "height": grid.height(colours),
        "datasets": {
            **_split(records),
            "heads": heads,
            "rests": [record for line in lines for record in line if "rest" in record],
            "strongest": [r for r in records if r["strongest"]],
            "chosen": [r for r in records if (r["row"], r["position"]) == chosen],
        },
        "layer": [
            *box_layers(grid, colours, fields=("row", "position"), place=place),
            text_layer("heads", "label", "token-label", grid, look={"align": "left"}),
            text_layer("heads", "value", "token-value", grid, look={"align": "right"}, at="x1"),
            text_layer("rests", "rest", "token-rest", grid, look={"align": "center"}, at="centre"),
            *outline_layers("strongest", grid, "strongest"),
            *outline_layers("chosen", grid, "halo", "chosen"),
        ],
    }


def _line(row: int, text: TokenRow, colours: ColourScale, lead: int, columns: int) -> list[Record]:
    """The boxes of one text behind its label, and ellipses where it was cut."""
    if not text.tokens:
        return []
    tokens, inks = [legible(token) for token in text.tokens], ink_on(colours, text.values)
    framed = text.framed
    seen = in_view(tokens, framed or 0, columns - lead - 2)
    records: list[Record] = []
    start = lead + 1
    for index in seen:
        shown = cut(tokens[index], columns - lead - 2)
        end = start + letters(shown)
        record = box_record(
            Box(index, shown, row, start, end), tokens[index], text.values[index], inks[index]
        )
        more = {"row": row, "position": text.start + index, "label": legible(text.label)}
        records.append({**record, **more, "strongest": index == framed})
        start = end
    rests = [lead] * (seen.start > 0) + [start] * (seen.stop < len(tokens))
    return records + [{"rest": CUT, "line": row, "x": at, "x1": at + 1} for at in rests]


def _head(row: int, text: TokenRow, label: str, lead: int) -> Record:
    """What stands before a line."""
    value = number(text.values[text.framed]) if text.framed is not None else ""
    return {"line": row, "label": isolated(label), "value": value, "x": 0, "x1": lead - 1}


def _split(records: Sequence[Record]) -> dict[str, list[Record]]:
    """Tokens with and without a number."""
    return {
        "tokens": [record for record in records if "value" in record],
        "missing": [record for record in records if "value" not in record],
    }


def _check_lengths(tokens: Sequence[str], values: Sequence[float], notes: Sequence[str]) -> None:
    if len(values) != len(tokens) or len(notes) not in (0, len(tokens)):
        raise ValueError(f"{len(tokens)} tokens, {len(values)} values and {len(notes)} notes")
