"""What a heatmap is made of: positions along its sides, panels of numbers, and the records of their cells."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float

from mi_core.charts.colours import ColourScale
from mi_core.charts.ink import ink_on
from mi_core.charts.panels import Strip
from mi_core.charts.text import isolated, legible, token_label


@dataclass(frozen=True, slots=True)
class Axis:
    """Positions along a side of the heatmap.

    Attributes:
        field: name in the data, the tooltip and the selection, for example "row" or "layer".
        title: what the positions are.
        labels: text of every position, made for the eye; may repeat.
        ids: number of every position that a selection returns; default 0, 1, 2...
        marked: indices drawn in bold, such as the subject's tokens.
        names: text of every position for the tooltip; default `labels`. Columns that are called by their
            numbers are told by number.
        whole: never cut a row's label short, nor leave out a column's where there is room; for labels that
            we write ourselves.
    """

    field: str
    title: str
    labels: tuple[str, ...]
    ids: tuple[int, ...] = ()
    marked: tuple[int, ...] = ()
    names: tuple[str, ...] = ()
    whole: bool = False

    def __post_init__(self) -> None:
        """Fill in the defaults; every position needs a label, a number and a name."""
        object.__setattr__(self, "ids", self.ids or tuple(range(len(self.labels))))
        object.__setattr__(self, "names", self.names or self.labels)
        if not self.labels or {len(self.ids), len(self.names)} != {len(self.labels)}:
            raise ValueError(f"{len(self.labels)} labels, {len(self.ids)} ids and {len(self.names)} names")


@dataclass(frozen=True, slots=True, eq=False)
class Panel:
    """One grid.

    Attributes:
        key: its name in the selection.
        title: printed above it; may be empty for a single panel.
        values: NaN where nothing was computed.
        hues: colours of this panel alone, from low to high, on the shared domain; empty = the scale's.
        texts: printed into the cells where they are large enough, and in the tooltip; a row of texts per row.
        notes: a line more for the tooltip of every cell; a row of notes per row.
        missing: what the tooltip says of a cell that is NaN.
    """

    key: str
    title: str
    values: Float[np.ndarray, "row column"]
    hues: tuple[str, ...] = ()
    texts: tuple[tuple[str, ...], ...] | None = None
    notes: tuple[tuple[str, ...], ...] | None = None
    missing: str = "not run"

    def __post_init__(self) -> None:
        """One text and one note per cell, or none at all."""
        for said in (self.texts, self.notes):
            if said is not None and {len(row) for row in said} | {len(said)} - {len(self.values)} != {
                self.values.shape[1]
            }:
                raise ValueError(f"panel {self.key!r} needs a text for each of {self.values.shape} cells")


def cell_records(
    panels: Sequence[Panel], rows: Axis, columns: Axis, colours: ColourScale, strip: Strip
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """One record per cell with a number, one per cell without."""
    cells: list[dict[str, Any]] = []
    missing: list[dict[str, Any]] = []
    blank = {"text": "", "ink": ""} if any(panel.texts for panel in panels) else {}
    blank |= {"note": ""} if any(panel.notes for panel in panels) else {}
    with_name = named(columns)
    for index, panel in enumerate(panels):
        shared = {"kind": panel.key, "what": legible(panel.title), **blank}
        for row, numbers in enumerate(panel.values.tolist()):
            of_row = {**shared, rows.field: rows.ids[row], "name": rows.names[row], "yc": row}
            said = _said(panel, row, numbers, colours)
            for column, value in enumerate(numbers):
                record = {**of_row, columns.field: columns.ids[column], "xc": strip.at(index, column)}
                if with_name:
                    record["column"] = columns.names[column]
                record |= said[column]
                if math.isfinite(value):
                    cells.append({**record, "value": value})
                else:
                    missing.append({**record, "status": panel.missing if math.isnan(value) else "not finite"})
    return cells, missing


def _said(panel: Panel, row: int, numbers: Sequence[float], colours: ColourScale) -> list[dict[str, str]]:
    """Text, its ink and the note of every cell of a row, as far as the panel has them."""
    said: list[dict[str, str]] = [{} for _ in numbers]
    if panel.texts is not None:
        inks = ink_on(replace(colours, hues=panel.hues or colours.hues), numbers)
        for record, text, ink in zip(said, panel.texts[row], inks, strict=True):
            record |= {"text": isolated(legible(text)), "ink": ink}
    if panel.notes is not None:
        for record, note in zip(said, panel.notes[row], strict=True):
            record["note"] = legible(note)
    return said


def named(columns: Axis) -> bool:
    """Whether columns have names beyond their numbers, as tokens have and layers have not."""
    return columns.names != tuple(map(str, columns.ids))


def window(n_pos: int, position: int, size: int) -> range:
    """The positions of a prompt that are drawn: all, or `size` of them around one."""
    start = max(0, min(position - size // 2, n_pos - size))
    return range(start, min(n_pos, start + size))


def token_axis(tokens: Sequence[str], shown: range) -> Axis:
    """Some tokens of a prompt along a side, keyed by position.

    Args:
        tokens: visible texts of all of them.
        shown: the positions that are drawn.
    """
    texts = tuple(isolated(legible(tokens[at])) for at in shown)
    names = tuple(token_label(at, tokens[at]) for at in shown)
    return Axis("position", "Token", texts, tuple(shown), (), names)
