"""The attribution graph drawn: tokens across, layers up, edges as wide as the influence that passes them.

Pointing finds the nearest node and shows its edges inside the browser; a click chooses a node. Nodes are
keyed by their index, never by a text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool

from mi_core.charts.feature_graph_layout import Layout, graph_layout, importance
from mi_core.charts.feature_graph_marks import edge_layers, node_layers
from mi_core.charts.layers import (
    mark_layer,
    number_channel,
)
from mi_core.charts.text import isolated, legible, literal, number, pick_expression
from mi_core.charts.token_layout import letters
from mi_core.transcoders.graph_groups import connections, edge_shares
from mi_core.transcoders.graph_names import (
    ERROR,
    FEATURE,
    KIND_NAMES,
    LOGIT,
    TOKEN,
    node_label,
    node_name,
)

if TYPE_CHECKING:
    from mi_core.transcoders.graph_result import GraphResult

Spec = dict[str, Any]
Record = dict[str, Any]

MOST_EDGES = 400
"""Lines that are drawn; more make a picture a grey cloud."""
MOST_POINTED = 2_500
"""Lines that pointing can show; more make a browser slow."""
LABELS = 18  # characters of a node's label beside it
AXIS = 62  # screen pixels for the token axis and the legend
MOST_COLUMNS = 40
"""Tokens up to which each has a column; of longer prompts, those where something but the token is shown."""
TILTED_FROM = 9  # tokens; more labels do not fit beside each other


@dataclass(frozen=True, slots=True)
class GraphView:
    """What a reader has made of a graph.

    Attributes:
        chosen: index of the node that is looked at.
        pinned: indices of the nodes of the reader's subgraph.
        groups: supernodes: name -> indices.
        labels: index -> what a feature is called; text of strangers.
        turn: how often something was chosen: a click on the node that was clicked last is news again only if
            this number is another one.
    """

    chosen: int | None = None
    pinned: tuple[int, ...] = ()
    groups: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    labels: Mapping[int, str] = field(default_factory=dict)
    turn: int = 0

    @property
    def looked_at(self) -> tuple[int, ...]:
        """Chosen and pinned nodes, which are drawn in any case."""
        return (*self.pinned, *(() if self.chosen is None else (self.chosen,)))


def drawn_edges(
    result: "GraphResult", edges: Bool[np.ndarray, "row node"], most: int = MOST_EDGES
) -> tuple[list[tuple[int, int]], int]:
    """(row, source node) of the edges that are drawn, the weakest first, and how many there are in all."""
    shares = edge_shares(result)
    rows, sources = np.nonzero(edges)
    order = np.argsort(-shares[rows, sources], kind="stable")[:most][::-1]
    return list(zip(rows[order].tolist(), sources[order].tolist(), strict=True)), len(rows)


def graph_drawing(
    result: "GraphResult",
    nodes: Bool[np.ndarray, "node"],
    edges: Bool[np.ndarray, "row node"],
    view: GraphView | None = None,
    *,
    most_edges: int = MOST_EDGES,
) -> Spec:
    """The graph.

    Args:
        result: a graph.
        nodes: nodes to draw, after pruning; chosen and pinned ones are drawn in any case.
        edges: edges to draw, after pruning.
        view: what is chosen, pinned, grouped and named.
        most_edges: only so many are drawn, those with most influence; pointing and choosing show the others.

    Returns:
        Specification without looks; clicks select `cell` with the fields node and turn.
    """
    view = view or GraphView()
    shown, crowded = _shown(result, nodes, view), len(result.tokens) > MOST_COLUMNS
    layout = graph_layout(result, shown, every_position=not crowded)
    x, y = _axes(result, layout)
    kept = edges & shown & shown[result.row_node][:, None]
    lines, _ = drawn_edges(result, kept, max(most_edges, MOST_POINTED))
    weights = _weights_at(result, view.chosen, kept)
    dots = [_node_record(result, layout, node, view, weights) for node in np.flatnonzero(shown).tolist()]
    edge_records = _edge_records(result, layout, lines)
    return {
        "height": round(layout.height) + AXIS,
        "datasets": {
            "columns": [{"x": edge} for edge in layout.columns[1:-1]],
            "edges": edge_records[-most_edges:],
            "touching": [
                {**edge, "size": 0.2 + 0.8 * edge["size"], "node": edge[end]}  # not too thin to be seen
                for edge in edge_records
                for end in ("from", "to")
            ],
            "chosen_edges": _chosen_edges(result, layout, view.chosen, kept),
            "nodes": dots,
            "chosen": [dot for dot in dots if dot["node"] == view.chosen],
            "pinned": [dot for dot in dots if dot["node"] in view.pinned],
            "named": [dot for dot in dots if dot["beside"] and dot["kind"] != str(LOGIT)],
            "logits": [dot for dot in dots if dot["kind"] == str(LOGIT)],
        },
        "layer": [
            mark_layer("columns", "rule", "separator", x=x),
            *edge_layers(x, y, faint=view.chosen is not None),
            *node_layers(x, y, chosen=view.chosen is not None),
        ],
    }


def _shown(
    result: "GraphResult", nodes: Bool[np.ndarray, "node"], view: GraphView
) -> Bool[np.ndarray, "node"]:
    """What is drawn: the nodes, what is chosen or pinned, and of a long prompt no token that stands alone."""
    wanted = np.zeros_like(nodes)
    wanted[list(view.looked_at)] = True
    if len(result.tokens) <= MOST_COLUMNS:
        return nodes | wanted
    others = np.unique(result.node_position[nodes & (result.node_kind != TOKEN)])
    return (nodes & np.isin(result.node_position, others)) | wanted


def _axes(result: "GraphResult", layout: Layout) -> tuple[Spec, Spec]:
    """Tokens across and layers up: places are numbers, names are looked up, so equal tokens stay apart."""
    tokens = [f"{at} {isolated(legible(result.tokens[at].visible))}" for at in layout.positions]
    slanting, longest = len(tokens) >= TILTED_FROM, max((letters(token) for token in tokens), default=0)
    room = "width < 500 ? 11 : 15" if slanting else f"(width < 240 ? 4.2 : 6.6) * {longest + 1}"
    across: Spec = {
        "title": "Token", "values": list(layout.centres), "grid": False, "labelOverlap": False,
        "labelExpr": _roomy(layout, tokens, room),
        **({"labelAngle": -40, "labelAlign": "right", "labelLimit": 90} if slanting else {}),
    }  # fmt: skip
    up: Spec = {
        "title": "Layer", "values": list(layout.rows), "grid": False, "labelOverlap": False,
        "labelExpr": _name_at(layout.rows, layout.row_names),
    }  # fmt: skip
    ends = [layout.columns[0], layout.columns[-1]]
    return (
        number_channel("x", scale={"domain": ends, "nice": False, "zero": False}, axis=across),
        number_channel("y", scale={"domain": [0, layout.height], "nice": False}, axis=up),
    )


def _roomy(layout: Layout, names: Sequence[str], room: str) -> str:
    """Names of the columns, as many as have room: the last one, where the output is, and then the far ones.

    Args:
        layout: with the columns.
        names: of all of them.
        room: expression for the pixels from one name to the next.
    """
    span = layout.columns[-1] - layout.columns[0]
    reaches, found = importance(layout.centres), f"indexof({literal(list(layout.centres))}, datum.value)"
    shares = [round(reach / span, 6) for reach in reaches]
    return f"width * {literal(shares)}[{found}] < ({room}) ? '' : {_name_at(layout.centres, names)}"


def _name_at(places: Sequence[float], names: Sequence[str]) -> str:
    return pick_expression(list(names), f"indexof({literal(list(places))}, datum.value)")


# --- records ---


@dataclass(frozen=True, slots=True)
class _Weights:
    """What joins the chosen node with others: all edges for the tooltip, shown ones for the colour."""

    told: Mapping[int, tuple[float, str]]
    shown: frozenset[int]


def _weights_at(result: "GraphResult", chosen: int | None, kept: Bool[np.ndarray, "row node"]) -> _Weights:
    if chosen is None:
        return _Weights({}, frozenset())
    found, shown = connections(result, chosen), connections(result, chosen, kept)
    inputs = zip(found.inputs.tolist(), found.input_edges.tolist(), strict=True)
    outputs = zip(found.outputs.tolist(), found.output_edges.tolist(), strict=True)
    told = {
        **{node: (weight, "adds to the chosen node") for node, weight in inputs},
        **{node: (weight, "gets from the chosen node") for node, weight in outputs},
    }
    return _Weights(told, frozenset([*shown.inputs.tolist(), *shown.outputs.tolist()]))


def _node_record(
    result: "GraphResult",
    layout: Layout,
    node: int,
    view: GraphView,
    weights: _Weights,
) -> Record:
    kind = int(result.node_kind[node])
    group = next((name for name, members in view.groups.items() if node in members), "")
    label, weight = view.labels.get(node, ""), weights.told.get(node)
    sign = 0 if weight is None or node not in weights.shown else (1 if weight[0] > 0 else -1)
    return {
        "node": node, "turn": view.turn, "kind": str(kind),
        "x": float(layout.x[node]), "y": float(layout.y[node]),
        "size": max(float(result.influence[node]), 0.0),
        "name": isolated(legible(node_label(result, node))),
        "label": isolated(legible(label or group or "none")),
        "told": _told(result, node),
        "weight": "none" if weight is None else f"{number(weight[0])} {weight[1]}",
        "sign": sign, "faded": bool(view.chosen is not None and sign == 0 and node != view.chosen),
        "group": isolated(legible(group)),
        "beside": _beside(result, node, view, group or label),
    }  # fmt: skip


def _told(result: "GraphResult", node: int) -> str:
    """The node's own number."""
    kind = int(result.node_kind[node])
    if kind == LOGIT:
        probability = float(result.node_probability[node])
        return "difference" if np.isnan(probability) else f"probability {number(probability)}"
    if kind == FEATURE:
        said = "" if result.node_expanded[node] else "; not expanded"
        return f"activation {number(float(result.node_activation[node]))}{said}"
    return {ERROR: "what the transcoder misses here", TOKEN: "embedding"}[kind]


def _beside(result: "GraphResult", node: int, view: GraphView, name: str) -> str:
    """The text that stands beside a node: logits always, others when they are pinned or chosen."""
    if result.node_kind[node] == LOGIT:
        text = node_label(result, node).removeprefix("logit ")
    elif node in view.pinned or node == view.chosen:
        text = name or node_name(result, node)
    else:
        return ""
    shown = legible(text)
    return isolated(shown if len(shown) <= LABELS else shown[: LABELS - 1] + "\u2026")


def _edge_records(result: "GraphResult", layout: Layout, lines: Sequence[tuple[int, int]]) -> list[Record]:
    shares = edge_shares(result)
    top = max((float(shares[row, source]) for row, source in lines), default=1.0) or 1.0
    return [
        {**_edge(result, layout, row, source), "size": float(np.sqrt(shares[row, source] / top))}
        for row, source in lines
    ]


def _edge(result: "GraphResult", layout: Layout, row: int, source: int) -> Record:
    target = int(result.row_node[row])
    return {
        "from": source, "to": target, "value": float(result.edges[row, source]),
        "x": float(layout.x[source]), "y": float(layout.y[source]),
        "x2": float(layout.x[target]), "y2": float(layout.y[target]),
    }  # fmt: skip


def _chosen_edges(
    result: "GraphResult", layout: Layout, chosen: int | None, edges: Bool[np.ndarray, "row node"]
) -> list[Record]:
    """Edges of the chosen node, the weakest first; width by size within its inputs and within its outputs."""
    if chosen is None:
        return []
    found = []
    for row, source in zip(*(part.tolist() for part in np.nonzero(edges)), strict=True):
        target = int(result.row_node[row])
        if chosen in (source, target):
            found.append(_edge(result, layout, row, source))
    for end in ("from", "to"):
        side = [edge for edge in found if edge[end] == chosen]
        top = max((abs(edge["value"]) for edge in side), default=0.0) or 1.0
        for edge in side:
            edge["size"] = abs(edge["value"]) / top
    return sorted(found, key=lambda edge: edge["size"])


def describe_graph(
    result: "GraphResult",
    nodes: Bool[np.ndarray, "node"],
    edges: Bool[np.ndarray, "row node"],
    view: GraphView | None = None,
) -> str:
    """The text alternative of `graph_drawing`."""
    counts = [int((result.node_kind[nodes] == kind).sum()) for kind in range(len(KIND_NAMES))]
    kinds = ", ".join(f"{count} {name}s" for count, name in zip(counts, KIND_NAMES, strict=True))
    lines, total = drawn_edges(result, edges, 8)
    told = "; ".join(
        f"{node_label(result, source)} \u2192 {node_label(result, int(result.row_node[row]))} "
        f"{number(float(result.edges[row, source]))}"
        for row, source in reversed(lines)
    )
    chosen = "" if view is None or view.chosen is None else f" Chosen: {node_label(result, view.chosen)}."
    return legible(
        f"Attribution graph, tokens across, layers up: {kinds}; {total} edges, those with most influence "
        f"first: {told or 'none'}.{chosen}"
    )
