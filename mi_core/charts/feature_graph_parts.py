"""Parts of an attribution graph: a reader's own subgraph with supernodes, and one node's edges."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mi_core.charts.bars import Bar, bars
from mi_core.charts.feature_graph import GraphView
from mi_core.charts.feature_graph_marks import HUES, SHAPES, grown
from mi_core.charts.layers import (
    cell_selection,
    mark_layer,
    name_channel,
    number_channel,
    shown_name,
    shown_number,
)
from mi_core.charts.text import isolated, legible, literal, number, pick_expression
from mi_core.charts.theme import NEGATIVE, POSITIVE
from mi_core.transcoders.graph_groups import Connections, connections, grouped_edges, subgraph_parts
from mi_core.transcoders.graph_names import KIND_NAMES, LOGIT, TOKEN, node_label

if TYPE_CHECKING:
    from mi_core.transcoders.graph_result import GraphResult

Spec = dict[str, Any]
Record = dict[str, Any]
Part = tuple[str | None, tuple[int, ...]]

LINE, AIR, AXIS = 22.0, 22.0, 62
ASIDE = (0.0, 0.1, 0.04, 0.15)
"""Places above each other stand a little aside, of a column's width, so that no line runs through them."""
GROUP_SHAPE, GROUP_HUE = "square", "#0b7285"
NAME_LENGTH = 26
LISTED = 12
"""Inputs and outputs of a node that have a bar of their own."""


def subgraph_drawing(result: "GraphResult", view: GraphView) -> Spec:
    """Pinned nodes and supernodes, with the sums of the edges between them.

    Args:
        result: a graph.
        view: pinned nodes, groups, names, and the node that is chosen.

    Returns:
        Specification without looks; clicks select `cell` with the field part, in `subgraph_parts`' order.
    """
    parts = subgraph_parts(result, view.pinned, view.groups)
    places, columns, rows, height = _places(result, parts)
    x, y = _axes(result, columns, rows, height)
    records = [_part_record(result, index, part, places[index], view) for index, part in enumerate(parts)]
    return {
        "height": round(height) + AXIS,
        "datasets": {
            "edges": _part_edges(result, parts, places, [record["name"] for record in records]),
            "nodes": records,
            "chosen": [one for one, part in zip(records, parts, strict=True) if view.chosen in part[1]],
        },
        "layer": _layers(x, y),
    }


def _places(
    result: "GraphResult", parts: Sequence[Part]
) -> tuple[list[tuple[float, float]], list[int], list[tuple[int, float]], float]:
    """Places of the parts, the positions that have a column, middles of the rows that are used, the height.

    A supernode stands at the middle of its members' tokens and layers.
    """
    cells: dict[tuple[int, int], list[int]] = {}
    for index, (_, nodes) in enumerate(parts):
        row = round(float(np.mean([_row(result, node) for node in nodes])))
        position = round(float(np.mean(result.node_position[list(nodes)])))
        cells.setdefault((row, position), []).append(index)
    columns = sorted({position for _, position in cells})
    rows, bottom = [], 0.0
    places = [(0.0, 0.0)] * len(parts)
    stacked = dict.fromkeys(columns, 0)
    for row in sorted({row for row, _ in cells}):
        lines = max(len(found) for (at, _), found in cells.items() if at == row)
        middle = bottom + (lines * LINE + AIR) / 2
        rows.append((row, middle))
        for (at, position), found in cells.items():
            for line, index in reversed(list(enumerate(found if at == row else ()))):
                across = columns.index(position) + ASIDE[stacked[position] % len(ASIDE)]
                places[index] = across, middle + ((len(found) - 1) / 2 - line) * LINE
                stacked[position] += 1
        bottom += lines * LINE + AIR
    return places, columns, rows, bottom


def _row(result: "GraphResult", node: int) -> int:
    """0 for tokens, then the layers, then the logits."""
    kind = int(result.node_kind[node])
    return 0 if kind == TOKEN else result.n_layers + 1 if kind == LOGIT else int(result.node_layer[node]) + 1


def _axes(
    result: "GraphResult", columns: Sequence[int], rows: Sequence[tuple[int, float]], height: float
) -> tuple[Spec, Spec]:
    tokens = [f"{at} {isolated(legible(result.tokens[at].visible))}" for at in columns]
    names = [_row_name(result, row) for row, _ in rows]
    across = {
        "title": "Token", "values": list(range(len(columns))), "grid": False, "labelOverlap": False,
        "labelExpr": pick_expression(tokens), "labelLimit": 110,
    }  # fmt: skip
    middles = [middle for _, middle in rows]
    up = {
        "title": "Layer", "values": middles, "grid": False, "labelOverlap": False,
        "labelExpr": pick_expression(names, f"indexof({literal(middles)}, datum.value)"),
    }  # fmt: skip
    ends = [-0.35, max(len(columns) - 1, 0) + 0.65]
    return (
        number_channel("x", scale={"domain": ends, "nice": False, "zero": False}, axis=across),
        number_channel("y", scale={"domain": [0, max(height, 1.0)], "nice": False}, axis=up),
    )


def _row_name(result: "GraphResult", row: int) -> str:
    return "tokens" if row == 0 else "logits" if row == result.n_layers + 1 else f"L{row - 1}"


def part_name(result: "GraphResult", part: Part, view: GraphView) -> str:
    """What a part is called: its group's name with the number of members, or the node's name and label."""
    name, nodes = part
    if name is not None:
        return f"{name} ({len(nodes)})"
    label = view.labels.get(nodes[0], "")
    return f"{node_label(result, nodes[0]).split(' ')[0]} {label}" if label else node_label(result, nodes[0])


def _part_record(
    result: "GraphResult", index: int, part: Part, place: tuple[float, float], view: GraphView
) -> Record:
    name, nodes = part
    shown = legible(part_name(result, part, view))
    return {
        "part": index, "x": place[0], "y": place[1],
        "kind": str(len(KIND_NAMES)) if name is not None else str(int(result.node_kind[nodes[0]])),
        "name": isolated(shown),
        "short": isolated(shown if len(shown) <= NAME_LENGTH else shown[: NAME_LENGTH - 1] + "\u2026"),
        "members": ", ".join(isolated(legible(node_label(result, node))) for node in nodes[:8])
        + (f" and {len(nodes) - 8} more" if len(nodes) > 8 else ""),
    }  # fmt: skip


def _part_edges(
    result: "GraphResult",
    parts: Sequence[Part],
    places: Sequence[tuple[float, float]],
    names: Sequence[str],
) -> list[Record]:
    sums = grouped_edges(result, [nodes for _, nodes in parts])
    top = float(np.abs(sums).max(initial=0.0)) or 1.0
    found = []
    for target, source in zip(*(part.tolist() for part in np.nonzero(sums)), strict=True):
        (x, y), (x2, y2) = places[source], places[target]
        value = float(sums[target, source])
        found.append(
            {"from": names[source], "to": names[target], "value": value, "size": abs(value) / top,
             "x": x, "y": y, "x2": x2, "y2": y2}
        )  # fmt: skip
    return sorted(found, key=lambda edge: edge["size"])


def _layers(x: Spec, y: Spec) -> list[Spec]:
    kinds = [str(kind) for kind in range(len(KIND_NAMES) + 1)]
    legend = {"title": None, "labelExpr": pick_expression([*KIND_NAMES, "group"]), "symbolOpacity": 1}
    shape = name_channel("kind", scale={"domain": kinds, "range": [*SHAPES, GROUP_SHAPE]}, legend=legend)
    hue = name_channel("kind", scale={"domain": kinds, "range": [*HUES, GROUP_HUE]}, legend=legend)
    ends = {"x": x, "y": y, "x2": {"field": "x2"}, "y2": {"field": "y2"}}
    width = {
        "field": "size", "type": "quantitative", "legend": None,
        "scale": {"domain": [0, 1], "range": [grown(0.5), grown(6.0)], "clamp": True},
    }  # fmt: skip
    colour = {"condition": {"test": "datum.value < 0", "value": NEGATIVE}, "value": POSITIVE}
    told = [shown_name("from", "from"), shown_name("to", "to"), shown_number("value", "sum of edges")]
    lines = mark_layer(
        "edges", "rule", look={"opacity": 0.7}, **ends, color=colour, strokeWidth=width, tooltip=told
    )
    dots = mark_layer(
        "nodes", "point", look={"filled": True, "size": grown(150.0, 2), "opacity": 1, "cursor": "pointer"},
        x=x, y=y, shape=shape, color=hue,
        tooltip=[shown_name("name", "node"), shown_name("members", "members")],
    )  # fmt: skip
    beside = {"dx": 10, "align": "left", "baseline": "middle"}
    words = {"x": x, "y": y, "text": {"field": "short"}}
    return [
        lines,
        {**dots, "params": cell_selection("part")},
        mark_layer("chosen", "point", "ring", look={"size": grown(380.0, 2)}, x=x, y=y),
        *(mark_layer("nodes", "text", style, look=beside, **words) for style in ("text-halo", "value")),
    ]


def describe_subgraph(result: "GraphResult", view: GraphView) -> str:
    """The text alternative of `subgraph_drawing`."""
    parts = subgraph_parts(result, view.pinned, view.groups)
    names = [part_name(result, part, view) for part in parts]
    sums = grouped_edges(result, [nodes for _, nodes in parts])
    order = np.argsort(-np.abs(sums), axis=None, kind="stable")[:10]
    told = []
    for flat in order.tolist():
        target, source = divmod(flat, len(parts))
        if sums[target, source]:
            told.append(f"{names[source]} \u2192 {names[target]} {number(float(sums[target, source]))}")
    return legible(f"Subgraph of {', '.join(names)}. Strongest edges: {'; '.join(told) or 'none'}.")


# --- one node ---


def connection_rows(found: Connections, most: int = LISTED) -> list[tuple[str, int] | None]:
    """("in" or "out", node) of every bar of `connection_bars`, in their order; None for sums."""
    inputs: list[tuple[str, int] | None] = [("in", node) for node in found.inputs[:most].tolist()]
    outputs = [("out", node) for node in found.outputs[:most].tolist()]
    return [*inputs, *[None] * len(_sums(found, most)), *outputs]


def connection_bars(
    result: "GraphResult", node: int, *, most: int = LISTED, chosen: int | None = None
) -> Spec:
    """What a node gets from others, and what it gives.

    Args:
        result: a graph.
        node: its index.
        most: bars of single nodes on each side.
        chosen: the bar to outline, in `connection_rows`' order.

    Returns:
        Specification without looks; clicks select `cell` with the field index, in `connection_rows`' order.
    """
    found = connections(result, node)
    gets, gives = "what it gets", "what it gives"
    items = [Bar(node_label(result, other), weight, group=gets) for other, weight in _few(found, "in", most)]
    items += [Bar(name, value, group=gets, note=note) for name, value, note in _sums(found, most)]
    items += [
        Bar(node_label(result, other), weight, group=gives) for other, weight in _few(found, "out", most)
    ]
    return bars(items, title="edge", unit="pre-activation, logit", chosen=chosen)


def _few(found: Connections, side: str, most: int) -> list[tuple[int, float]]:
    nodes, weights = (
        (found.inputs, found.input_edges) if side == "in" else (found.outputs, found.output_edges)
    )
    return list(zip(nodes[:most].tolist(), weights[:most].tolist(), strict=True))


def _sums(found: Connections, most: int) -> list[tuple[str, float, str]]:
    """What is not listed one by one, so that the bars of the inputs add up to the node's value."""
    if np.isnan(found.value):
        return []
    more = len(found.inputs) - most
    rest = [(f"{more} smaller inputs", found.rest(most), "their sum")] if more > 0 else []
    return [
        *rest,
        ("biases and masked tokens", found.remainder, "what no node explains"),
        ("all together", found.value, "its pre-activation, or its logit"),
    ]


def describe_connections(result: "GraphResult", node: int) -> str:
    """The text alternative of `connection_bars`."""
    found = connections(result, node)
    told = [
        "; ".join(f"{node_label(result, other)} {number(weight)}" for other, weight in _few(found, side, 5))
        for side in ("in", "out")
    ]
    return legible(
        f"{node_label(result, node)} gets most from: {told[0] or 'nothing that was computed'}. "
        f"It gives most to: {told[1] or 'nothing'}."
    )
