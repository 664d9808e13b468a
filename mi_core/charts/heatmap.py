"""The one heatmap: panels of numbers over two axes of positions, on one honest colour scale.

Every grid of the dashboard is drawn by `heatmap`: cells are placed by position and named by labels, so a
token that occurs three times has three rows. The colour bar has a title, a unit and named marks; cells that
were not run are grey and hatched; a click selects a cell (parameter `cell`, with the panel's key, the row
and the column); the chosen cell is outlined by a layer of its own, because a neighbour hides half of an
ordinary stroke.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mi_core.charts.colours import ColourScale, colour_channel
from mi_core.charts.grid import Axis, Panel, cell_records, named
from mi_core.charts.layers import (
    cell_selection,
    mark_layer,
    number_channel,
    shown_index,
    shown_name,
    shown_number,
)
from mi_core.charts.panels import Strip
from mi_core.charts.text import legible, literal, number, pick_expression

Spec = dict[str, Any]

CANVAS_FROM = 1500  # cells; above it a canvas is faster than SVG nodes
AROUND = 124  # screen height of titles, axis and colour bar
DENSE_FROM = 60  # columns in all; above it cell borders would hide the cells
# More columns (28 px wide on a page) or rows than this, and texts in the cells could not be read.
TEXT_COLUMNS, TEXT_ROWS = 25, 56


def heatmap(
    panels: Sequence[Panel],
    rows: Axis,
    columns: Axis,
    colours: ColourScale,
    *,
    chosen: tuple[str, int, int] | None = None,
    show_values: bool = False,
) -> Spec:
    """Panels of one shape, side by side on one scale.

    Args:
        panels: one to about six grids.
        rows: drawn from top to bottom.
        columns: drawn from left to right in every panel.
        colours: the shared scale.
        chosen: (panel key, row id, column id) of the cell to outline.
        show_values: print the numbers into the cells (for small grids).

    Returns:
        A Vega-Lite specification without looks: pass it through `theme.styled`.
    """
    shape = (len(rows.labels), len(columns.labels))
    for panel in panels:
        if panel.values.shape != shape:
            raise ValueError(f"panel {panel.key!r} has shape {panel.values.shape}, the axes {shape}")
    strip = Strip(len(panels), len(columns.labels))
    cells, missing = cell_records(panels, rows, columns, colours, strip)
    written = strip.domain[1] <= TEXT_COLUMNS and shape[0] <= TEXT_ROWS
    texts = written and any(panel.texts for panel in panels)
    return {
        "height": height_for(shape[0]) + strip.slant(columns.labels, whole=columns.whole),
        "datasets": {
            "cells": cells,
            "missing": missing,
            "panels": strip.frames(shape[0]),
            "chosen": _chosen(chosen, panels, rows, columns, strip),
        },
        "resolve": {"axis": {"x": "independent", "y": "independent"}},
        "layer": [
            _grid_layer(panels, rows, columns, colours, strip),
            *([_value_layer(colours)] if show_values else []),
            *([_text_layer(strip, shape[0])] if texts else []),
            _title_layer(strip, [legible(panel.title) for panel in panels]),
        ],
        **({"usermeta": {"embedOptions": {"renderer": "canvas"}}} if len(cells) > CANVAS_FROM else {}),
    }


def _grid_layer(
    panels: Sequence[Panel], rows: Axis, columns: Axis, colours: ColourScale, strip: Strip
) -> Spec:
    """Cells, cells without a number, frames, and the outline of the chosen cell, on shared axes."""
    no_number = _tooltip(panels, rows, columns, shown_name("status", "value"))
    across = number_channel(
        "x", scale=strip.scale(), axis=strip.axis(columns.labels, columns.title, whole=columns.whole)
    )
    down = number_channel("y", scale=row_scale(len(rows.labels)), axis=row_axis(rows))
    return {
        "layer": [
            *_cell_layers(panels, rows, columns, colours, dense=strip.domain[1] > DENSE_FROM),
            {**mark_layer("missing", "rect", "missing", tooltip=no_number), "transform": _EDGES},
            {**mark_layer("missing", "rule", "hatch"), "transform": _EDGES},
            mark_layer("panels", "rect", "frame"),
            {**mark_layer("chosen", "rect", "halo"), "transform": _EDGES},
            {**mark_layer("chosen", "rect", "chosen"), "transform": _EDGES},
        ],
        "encoding": {"x": across, "x2": {"field": "x1"}, "y": down, "y2": {"field": "y1"}},
    }


# Cells are stored by their centre; edges are half a step away.
def _edges(after: float = 0.5) -> list[Spec]:
    """Left, upper, right and lower edge as fields x, y, x1 and y1."""
    ends = (("-", 0.5, ""), ("+", after, "1"))
    return [
        {"calculate": f"datum.{axis}c {sign} {by}", "as": f"{axis}{end}"}
        for axis in "xy"
        for sign, by, end in ends
    ]


_EDGES = _edges()
# Small cells have no borders; each reaches a little under the next, or the page would shine through.
_EDGES_DENSE = _edges(after=0.55)


def _cell_layers(
    panels: Sequence[Panel], rows: Axis, columns: Axis, colours: ColourScale, *, dense: bool
) -> list[Spec]:
    """The coloured cells, and on top of them (or in them) what reacts to pointing and clicking."""
    value = shown_number("value", legible(colours.heading))
    live: Spec = {
        "data": {"name": "cells"},
        "transform": _EDGES_DENSE if dense else _EDGES,
        "params": cell_selection("kind", rows.field, columns.field),
        "mark": {"type": "rect", "cursor": "pointer"},
        "encoding": {"tooltip": _tooltip(panels, rows, columns, value)},
    }
    if not any(panel.hues for panel in panels):
        live["mark"]["style"] = "tile-dense" if dense else "tile"
        live["encoding"]["color"] = colour_channel(colours)
        return [live]
    live["mark"]["fillOpacity"] = 0
    coloured = [_panel_layer(panel, colours, len(panels), dense=dense) for panel in panels]
    return [{"layer": coloured, "resolve": {"scale": {"color": "independent"}}}, live]


def _panel_layer(panel: Panel, colours: ColourScale, count: int, *, dense: bool) -> Spec:
    """One panel's cells in its own hues, with a colour bar of its own."""
    own = replace(colours, hues=panel.hues, title=f"{colours.title}, {panel.title}", unit="")
    colour = colour_channel(own)
    colour["legend"]["gradientLength"] = {"expr": f"width / {count} * 0.84"}
    if count > 1:  # under a third of the width only the ends have room
        colour["legend"]["values"] = sorted(colours.domain)
    mine = {"filter": f"datum.kind === {literal(panel.key)}"}
    cells = mark_layer("cells", "rect", "tile-dense" if dense else "tile", color=colour)
    return {**cells, "transform": [mine, *(_EDGES_DENSE if dense else _EDGES)]}


def _value_layer(colours: ColourScale) -> Spec:
    """Numbers in the cells, dark on light colours and light on dark ones."""
    low, high = colours.domain
    if colours.diverging:
        dark = f"abs(datum.value) > {0.6 * abs(high)}"
    elif colours.hues:
        dark = f"(datum.value - {low}) / ({high - low}) > 0.6"
    else:
        dark = f"(datum.value - {low}) / ({high - low}) < 0.5"
    return mark_layer(
        "cells",
        "text",
        "value",
        x=number_channel("xc", axis=None),
        y=number_channel("yc", axis=None),
        text=number_channel("value", format=".2~g"),
        color={"condition": {"test": dark, "value": "#ffffff"}, "value": "#000000"},
    )


def _text_layer(strip: Strip, rows: int) -> Spec:
    """Texts in the cells, cut to the cell; none where a cell is too small for legible type."""
    columns = strip.domain[1] - strip.domain[0]
    size = f"min(height / {rows} * 0.5, width / {columns} / 3)"
    look = {
        "fontSize": {"expr": size},
        "limit": {"expr": f"width / {columns} - 3"},
        "opacity": {"expr": f"{size} < 4.5 ? 0 : 1"},
    }
    return mark_layer(
        "cells", "text", "value", look=look,
        x=number_channel("xc", axis=None), y=number_channel("yc", axis=None),
        text={"field": "text"}, color={"field": "ink", "type": "nominal", "scale": None},
    )  # fmt: skip


def _tooltip(panels: Sequence[Panel], rows: Axis, columns: Axis, value: Spec) -> list[Spec]:
    title = columns.title.lower()
    return [
        *([shown_name("what", "panel")] if any(panel.title for panel in panels) else []),
        shown_name("name", rows.title.lower()),
        shown_name("column", title) if named(columns) else shown_index(columns.field, title),
        *([shown_name("text", "text")] if any(panel.texts for panel in panels) else []),
        value,
        *([shown_name("note", "note")] if any(panel.notes for panel in panels) else []),
    ]


def row_scale(rows: int) -> Spec:
    """First row on top."""
    return {"domain": [-0.5, rows - 0.5], "reverse": True, "nice": False, "zero": False}


def row_axis(rows: Axis) -> Spec:
    """Row labels by position; marked rows in bold."""
    weight = {
        "condition": {"test": f"indexof({literal(list(rows.marked))}, datum.value) >= 0", "value": 700},
        "value": 400,
    }
    step = row_step(len(rows.labels))
    return {
        "values": list(range(0, len(rows.labels), step)),
        "labelExpr": pick_expression(rows.labels),
        "labelFontWeight": weight,
        "labelOverlap": False,
        "title": None,
        "grid": False,
        "domain": False,
        "ticks": False,
        **({"labelLimit": 0} if rows.whole else {}),
    }


def _title_layer(strip: Strip, titles: Sequence[str]) -> Spec:
    """Invisible points that carry the axis above the panels."""
    x = number_channel("x", axis=strip.title_axis(titles))
    return mark_layer("panels", "point", look={"opacity": 0}, x=x, y=number_channel("y", axis=None))


def _chosen(
    chosen: tuple[str, int, int] | None, panels: Sequence[Panel], rows: Axis, columns: Axis, strip: Strip
) -> list[dict[str, int | float]]:
    """Centre of the cell to outline; nothing if it is not in this figure."""
    keys = [panel.key for panel in panels]
    if chosen is None or chosen[0] not in keys or chosen[1] not in rows.ids or chosen[2] not in columns.ids:
        return []
    key, row, column = chosen
    return [{"xc": strip.at(keys.index(key), columns.ids.index(column)), "yc": rows.ids.index(row)}]


def height_for(rows: int) -> int:
    """Screen height of a heatmap: comfortable rows while there are few, thinner ones up to a limit."""
    row = 22 if rows <= 24 else max(4.0, min(22.0, 620 / rows))
    return round(rows * row + AROUND)


def row_step(rows: int) -> int:
    """Every how many rows a label fits; a row is a label high up to 44 rows."""
    return 1 if rows <= 44 else -(-rows * 14 // 620)


def highest_cells(
    panels: Sequence[Panel], rows: Axis, columns: Axis
) -> Iterator[tuple[Panel, str, str, float]]:
    """Largest cell of every panel that has one: (panel, row name, column label, value)."""
    for panel in panels:
        if np.isfinite(panel.values).any():
            finite = np.where(np.isfinite(panel.values), panel.values, -np.inf)
            row, column = (int(i) for i in np.unravel_index(int(finite.argmax()), finite.shape))
            yield panel, rows.names[row], columns.labels[column], float(finite[row, column])


def describe(panels: Sequence[Panel], rows: Axis, columns: Axis, colours: ColourScale) -> str:
    """A sentence or two that stand for the figure where it cannot be seen."""
    low, high = sorted(colours.domain)
    parts = [
        f"Heatmap of {colours.heading}: {len(rows.labels)} rows ({rows.title.lower()}) by "
        f"{len(columns.labels)} columns ({columns.title.lower()}), "
        f"{len(panels)} panel{'s' if len(panels) > 1 else ''}, colours from {number(low)} to {number(high)}."
    ]
    for panel, row, column, value in highest_cells(panels, rows, columns):
        highest = f"{panel.title}: highest" if panel.title else "Highest"
        parts.append(f"{highest} {number(value)} at {row}, {columns.title.lower()} {column}.")
    unrun = sum(int(np.isnan(panel.values).sum()) for panel in panels)
    if unrun:
        parts.append(f"{unrun} cells were not run.")
    return " ".join(parts)
