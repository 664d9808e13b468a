"""A head's strongest directions: tokens at both ends of both sides, and all singular values."""

from typing import Any

import numpy as np

from mi_core.analyses.head_views_result import UNITS, HeadViewsResult
from mi_core.charts.colours import ColourScale
from mi_core.charts.heatmap import Axis, Panel, heatmap
from mi_core.charts.lines import Line, lines
from mi_core.charts.text import MINUS, isolated, legible, number

Spec = dict[str, Any]

# Both sides have units of their own, and later directions are read more weakly.
_SCALE = ColourScale(
    "reading, as a share of the largest in its column",
    "",
    (-1.0, 1.0),
    diverging=True,
    marks=((0.0, "none"),),
)


def direction_tokens(result: HeadViewsResult) -> Spec:
    """Columns are directions, rows the tokens at both ends; a panel per side, tokens printed in the cells.

    Args:
        result: with at least one direction.

    Returns:
        Specification without looks; clicks select `cell` with fields kind ("left" or "right"), row and
        direction.
    """
    panels = [_panel(result, side) for side in (0, 1)]
    return heatmap(panels, _ends(result), _directions(result), _SCALE)


def _panel(result: HeadViewsResult, side: int) -> Panel:
    ids, values = (_in_rows(array) for array in result.tokens(side))
    largest = np.abs(values).max(0)
    shares = np.divide(values, largest, np.zeros_like(values), where=largest > 0)
    unit = UNITS[result.inputs.circuit][side]
    return Panel(
        ("left", "right")[side],
        result.sides[side],
        shares,
        texts=tuple(tuple(result.visible(token) for token in row) for row in ids.tolist()),
        notes=tuple(tuple(f"reading {number(value)} [{unit}]" for value in row) for row in values.tolist()),
    )


def _in_rows(tops: np.ndarray) -> np.ndarray:
    """[direction, end, top] -> [row, direction]: most positive first, most negative last."""
    positive, negative = tops[:, 0].T, tops[:, 1].T
    return np.concatenate([positive, negative[::-1]])


def _ends(result: HeadViewsResult) -> Axis:
    k = result.left_top_ids.shape[2]
    labels = [f"+{rank + 1}" for rank in range(k)] + [f"{MINUS}{rank + 1}" for rank in reversed(range(k))]
    return Axis("row", "End and rank", tuple(labels), whole=True)


def _directions(result: HeadViewsResult) -> Axis:
    strengths = result.singular_values[: result.n_directions].tolist()
    names = tuple(f"direction {i}, singular value {number(s)}" for i, s in enumerate(strengths))
    return Axis("direction", "Direction", tuple(str(i) for i in range(result.n_directions)), names=names)


def describe_directions(result: HeadViewsResult) -> str:
    """The text alternative of `direction_tokens`: the first tokens of every direction."""
    parts = [f"Strongest directions of the {result.inputs.circuit} circuit of {result.name}."]
    for i in range(result.n_directions):
        sides = [f"{result.sides[side]} {_listed(result, side, i)}" for side in (0, 1)]
        parts.append(
            f"Direction {i}, singular value {number(result.singular_values[i])}: {'; '.join(sides)}."
        )
    return " ".join(parts)


def _listed(result: HeadViewsResult, side: int, direction: int) -> str:
    ids, _ = result.tokens(side)
    ends = [
        " ".join(isolated(legible(result.visible(int(token)))) for token in ids[direction, end, :3])
        for end in (0, 1)
    ]
    return f"+ {ends[0]}, {MINUS} {ends[1]}"


def spectrum(result: HeadViewsResult) -> Spec:
    """All singular values in falling order.

    Returns:
        Specification without looks; clicks select `cell` with fields series and x (the direction).
    """
    values = result.singular_values.tolist()
    return lines(
        [Line("", list(range(len(values))), values)],
        x_title="Direction",
        y_title="singular value",
    )


def describe_spectrum(result: HeadViewsResult) -> str:
    """The text alternative of `spectrum`."""
    shares = result.shares
    half = int(np.searchsorted(np.cumsum(shares), 0.5)) + 1 if shares.sum() > 0 else 0
    first = number(float(result.singular_values[0])) if len(result.singular_values) else "none"
    return (
        f"{len(result.singular_values)} singular values of the {result.inputs.circuit} circuit of "
        f"{result.name}; the largest is {first}, and {half} of them hold half of the squared norm."
    )
