"""Where the nodes of an attribution graph stand: a column per token, a row per layer, none on another.

A cell (token, layer) holds its nodes beside each other; where many meet, in several lines, so that a busy
token does not press all others together. Logits stand below each other, because each has its name beside it.
Widths are shares of the figure's width, heights are pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float

from mi_core.transcoders.graph_names import LOGIT, TOKEN

if TYPE_CHECKING:
    from mi_core.transcoders.graph_result import GraphResult

LINE = 15.0  # pixels from one line of nodes to the next within a row
ROW_AIR = 23.0  # pixels between two rows
MOST_LINES = 4
MOST_ROWS = 200  # a file may claim any number of layers: beyond this, rows without nodes get no room
PER_LINE = 5  # nodes in a line before another is begun, while there are lines left
LEAST_WIDTH = 2.0  # of a column, in nodes
COLUMN_AIR = 0.8


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """Places of the nodes.

    Attributes:
        x: across, in nodes from the left edge; NaN for nodes that are not drawn.
        y: up, in pixels from the bottom; NaN for nodes that are not drawn.
        columns: left edges of the columns of the drawn positions, and the right edge of the last.
        positions: the token positions that have a column, ascending.
        rows: middle of each row, from the lowest.
        row_names: "tokens", "L0" ... and "logits".
        height: of the whole, in pixels.
    """

    x: Float[np.ndarray, "node"]
    y: Float[np.ndarray, "node"]
    columns: tuple[float, ...]
    positions: tuple[int, ...]
    rows: tuple[float, ...]
    row_names: tuple[str, ...]
    height: float

    @property
    def centres(self) -> tuple[float, ...]:
        """Middle of each column."""
        return tuple(
            (left + right) / 2 for left, right in zip(self.columns[:-1], self.columns[1:], strict=True)
        )


def graph_layout(
    result: "GraphResult", drawn: Bool[np.ndarray, "node"], *, every_position: bool = True
) -> Layout:
    """Places for the nodes that are drawn.

    Args:
        result: a graph.
        drawn: which nodes.
        every_position: a column for every token of the prompt, with or without nodes.
    """
    row_of_node = _rows(result)
    here = set(result.node_position[drawn].tolist())
    positions = tuple(range(len(result.tokens))) if every_position else tuple(sorted(here))
    cells = _cells(result, row_of_node, drawn)
    top = result.n_layers + 1
    lines = [1 if top < MOST_ROWS else 0] * (top + 1)
    for (row, _), nodes in cells.items():
        lines[row] = max(lines[row], _lines(len(nodes), single=row == top))
    columns = _columns(positions, cells, top)
    rows, height = _row_places(lines)
    x, y = (np.full(len(result.node_kind), np.nan) for _ in range(2))
    for (row, position), nodes in cells.items():
        column = positions.index(position)
        middle = (columns[column] + columns[column + 1]) / 2
        steps = _in_cell(len(nodes), _lines(len(nodes), single=row == top))
        for node, (across, up) in zip(nodes, steps, strict=True):
            x[node], y[node] = middle + across, rows[row] + up
    names = ("tokens", *(f"L{layer}" for layer in range(result.n_layers)), "logits")
    used_rows = [row for row, count in enumerate(lines) if count]
    return Layout(
        x, y, columns, positions, tuple(rows[row] for row in used_rows),
        tuple(names[row] for row in used_rows), height,
    )  # fmt: skip


def importance(centres: Sequence[float]) -> list[float]:
    """How far each column is from those that are named before it: the last first, then always the farthest.

    Names with a distance above what a name needs are so many as fit, and none stands on another.
    """
    places = np.asarray(centres, np.float64)
    nearest, found = np.full(len(places), np.inf), [0.0] * len(places)
    following = len(places) - 1
    for _ in centres:
        found[following] = float(nearest[following])
        nearest = np.minimum(nearest, np.abs(places - places[following]))
        nearest[following] = -1.0
        following = int(nearest.argmax())
    if found:
        found[-1] = max(float(np.ptp(places)), 1.0) * 1e3  # the first to be named has room in any case
    return found


def _lines(count: int, *, single: bool) -> int:
    """Lines that the nodes of a cell take."""
    return count if single else min(MOST_LINES, -(-count // PER_LINE))


def _rows(result: "GraphResult") -> list[int]:
    """Row of every node: tokens lowest, then the layers, then the logits."""
    rows = []
    for kind, layer in zip(result.node_kind.tolist(), result.node_layer.tolist(), strict=True):
        rows.append(0 if kind == TOKEN else result.n_layers + 1 if kind == LOGIT else layer + 1)
    return rows


def _cells(
    result: "GraphResult", rows: Sequence[int], drawn: Bool[np.ndarray, "node"]
) -> dict[tuple[int, int], list[int]]:
    cells: dict[tuple[int, int], list[int]] = {}
    for node in np.flatnonzero(drawn).tolist():
        cells.setdefault((rows[node], int(result.node_position[node])), []).append(node)
    return cells


def _columns(
    positions: Sequence[int], cells: dict[tuple[int, int], list[int]], top: int
) -> tuple[float, ...]:
    """Edges of the columns, each as wide as its widest line of nodes."""
    widths = dict.fromkeys(positions, LEAST_WIDTH)
    for (row, position), nodes in cells.items():
        widths[position] = max(
            widths[position], float(-(-len(nodes) // _lines(len(nodes), single=row == top)))
        )
    edges = [0.0]
    for position in positions:
        edges.append(edges[-1] + widths[position] + COLUMN_AIR)
    return tuple(edges)


def _row_places(lines: Sequence[int]) -> tuple[tuple[float, ...], float]:
    """Middles of the rows from below, and the height of all."""
    places, bottom = [], 0.0
    for count in lines:
        size = count * LINE + ROW_AIR if count else 0.0
        places.append(bottom + size / 2)
        bottom += size
    return tuple(places), bottom


def _in_cell(count: int, lines: int) -> list[tuple[float, float]]:
    """Steps from the middle of a cell: nodes in reading order, every line centred."""
    per_line = -(-count // lines)
    steps = []
    for index in range(count):
        line, slot = divmod(index, per_line)
        in_line = min(per_line, count - line * per_line)
        steps.append((slot - (in_line - 1) / 2, ((lines - 1) / 2 - line) * LINE))
    return steps
