"""An attribution graph on the page: its numbers, the drawing, the chosen node, the heads of a chosen edge."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

import streamlit as st

from mi_core.transcoders.graph_names import FEATURE, KIND_NAMES, node_label, node_name
from pages.shared.feature_corpus import draw_labels
from pages.shared.feature_graph_fields import EDGE, NODE
from pages.shared.feature_graph_state import (
    choose_edge,
    choose_node,
    chosen_edge,
    close_node,
    follow_picker,
    pin,
    pinned_nodes,
    unpin,
)
from pages.shared.feature_graph_text import GRAPH_FORMULA
from pages.shared.feature_graph_words import draw_feature_words
from pages.shared.features_page import FeaturesAsked, choose_feature
from pages.shared.figure_card import figure_card
from pages.shared.instant import draw_warnings, instant, pass_seconds
from pages.shared.text import plain

if TYPE_CHECKING:
    from mi_core.charts.feature_graph import GraphView
    from mi_core.model.model import LoadedModel
    from mi_core.transcoders.graph_density import Dense
    from mi_core.transcoders.graph_heads import HeadLoadingsInputs, HeadLoadingsResult
    from mi_core.transcoders.graph_inputs import GraphInputs
    from mi_core.transcoders.graph_result import GraphResult
    from mi_core.transcoders.graph_scores import Pruned


def draw_numbers(result: GraphResult, pruned: Pruned, hidden: int) -> None:
    """Scores of the whole graph, how much of it pruning keeps, and how much of that is hidden."""
    from mi_core.charts.text import number
    from mi_core.transcoders.graph_scores import scores

    whole = scores(result)
    with st.container(horizontal=True, gap="medium", key="graph_numbers"):
        st.metric(
            "Replacement score", number(whole.replacement), width="content",
            help="Share of the paths from the targets that end at tokens instead of at errors; 1 = no error.",
        )  # fmt: skip
        st.metric(
            "Completeness", number(whole.completeness), width="content",
            help="How much of the inputs of the nodes, by influence, is not error; 1 = no error.",
        )  # fmt: skip
        st.metric("Nodes shown", f"{int(pruned.nodes.sum()):,} of {len(result.node_kind):,}", width="content")
        st.metric("Edges shown", f"{int(pruned.edges.sum()):,}", width="content")
        if hidden:
            st.metric(
                "Hidden as dense", f"{hidden:,}", width="content",
                help="Of the shown nodes these are only not drawn; pruning and scores keep them.",
            )  # fmt: skip
        if result.unexpanded:
            st.metric(
                "Not expanded", f"{result.unexpanded:,}", width="content",
                help="Features beyond the budget of rows: what they give is exact, what they get was not "
                "computed.",
            )  # fmt: skip


def draw_graph(
    result: GraphResult,
    pruned: Pruned,
    view: GraphView,
    thresholds: tuple[float, float],
    dense: Dense | None,
) -> None:
    """The drawing; a click looks at a node."""
    from mi_core.exports.feature_graph import graph_figure
    from mi_core.transcoders.graph_scores import scores

    def choose(cell: dict[str, Any]) -> None:
        node = cell.get("node")
        if isinstance(node, int) and 0 <= node < len(result.node_kind):
            choose_node(result, node)

    figure = graph_figure(result, pruned, view, thresholds=thresholds, scores=scores(result), dense=dense)
    figure_card("feature_graph", figure, on_cell=choose, formula=GRAPH_FORMULA)


# --- the chosen node ---


def draw_node(
    result: GraphResult,
    pruned: Pruned,
    view: GraphView,
    asked: FeaturesAsked | None,
    inputs: GraphInputs | None,
) -> None:
    """The chosen node's buttons and edges; an invitation where none is chosen."""
    from mi_core.charts.feature_graph_parts import connection_rows
    from mi_core.exports.feature_graph import node_figure
    from mi_core.transcoders.graph_groups import connections

    _picker(result, pruned)
    node = view.chosen
    if node is None:
        st.markdown(
            ":material/ads_click: **Click near a dot** above, or choose a node here, to see what it gets "
            "and gives."
        )
        return
    _node_buttons(result, node, view)
    if asked is not None and result.node_kind[node] == FEATURE:
        draw_feature_words(result, node, asked)
        draw_labels(asked, int(result.node_layer[node]), int(result.node_feature[node]))
    rows = connection_rows(connections(result, node))

    def choose(cell: dict[str, Any]) -> None:
        index = cell.get("index")
        row = rows[index] if isinstance(index, int) and 0 <= index < len(rows) else None
        if row is not None:
            side, other = row
            choose_edge(result, *((other, node) if side == "in" else (node, other)))

    edge = chosen_edge(result)
    figure = node_figure(result, node, label=view.labels.get(node, ""), chosen=_row_of(rows, node, edge))
    figure_card("feature_graph_node", figure, on_cell=choose, formula=GRAPH_FORMULA)
    if edge is not None and node in edge:
        _draw_edge(result, node, edge, asked, inputs)


def _row_of(rows: list[tuple[str, int] | None], node: int, edge: tuple[int, int] | None) -> int | None:
    """The bar of the chosen edge."""
    if edge is None or node not in edge:
        return None
    wanted = ("in", edge[0]) if edge[1] == node else ("out", edge[1])
    return rows.index(wanted) if wanted in rows else None


def _picker(result: GraphResult, pruned: Pruned) -> None:
    """The same choice as a click, for the keyboard; the widget is the choice itself."""
    import numpy as np

    labels = {
        node_name(result, node): node_label(result, node) for node in np.flatnonzero(pruned.nodes).tolist()
    }
    chosen = st.session_state[NODE]
    if chosen is not None and chosen not in labels:
        labels[chosen] = chosen  # pruned away, or of another prompt's graph
    st.selectbox(
        "Node",
        list(labels),
        index=None,
        key=NODE,
        format_func=labels.__getitem__,
        placeholder="any node",
        width=360,
        on_change=follow_picker,
        args=(result,),
    )
    edge = st.session_state[EDGE]
    if edge and chosen_edge(result) is None:
        st.warning(
            f"The edge {plain(edge.replace('>', ' to '))} is not in this graph: an end is not active here.",
            icon=":material/link_off:",
        )
    if chosen is not None and not _known(result, chosen):
        st.warning(
            f"The node {plain(chosen)} is not in this graph: it is not active here.",
            icon=":material/link_off:",
        )


def _known(result: GraphResult, name: str) -> bool:
    from mi_core.transcoders.graph_names import found_nodes

    return not found_nodes(result, [name])[1]


def _node_buttons(result: GraphResult, node: int, view: GraphView) -> None:
    from mi_core.charts.text import number

    name = node_name(result, node)
    kind = int(result.node_kind[node])
    label = view.labels.get(node, "")
    called = f" \u201c{plain(label)}\u201d" if label else ""
    with st.container(horizontal=True, gap="small", vertical_alignment="center", key="graph_node_row"):
        st.markdown(
            f"**{plain(node_label(result, node))}**{called}: "
            f"{KIND_NAMES[kind]}, influence {plain(number(float(result.influence[node])))}"
        )
        pinned, _ = pinned_nodes(result)
        if node in pinned:
            st.button(
                "Unpin", icon=":material/push_pin:", key="graph_unpin", on_click=unpin, args=(result, node)
            )
        else:
            st.button("Pin", icon=":material/push_pin:", key="graph_pin", on_click=pin, args=(name,))
        if kind == FEATURE:
            _feature_button(result, node)
        st.button("Close", icon=":material/close:", key="graph_close", on_click=close_node)


def _feature_button(result: GraphResult, node: int) -> None:
    from mi_core.transcoders.names import Feature

    feature = Feature(int(result.node_layer[node]), int(result.node_feature[node]))
    st.button(
        "Open the feature", icon=":material/open_in_new:", key="graph_open", on_click=choose_feature,
        args=(feature, int(result.node_position[node]), "feature"),
    )  # fmt: skip


# --- heads of an edge ---


def _draw_edge(
    result: GraphResult,
    node: int,
    edge: tuple[int, int],
    asked: FeaturesAsked | None,
    inputs: GraphInputs | None,
) -> None:
    """Through which heads an edge goes, and a way to its other end."""
    other = edge[0] if edge[1] == node else edge[1]
    st.button(
        f"Go to {plain(node_label(result, other))}", icon=":material/arrow_forward:", key="graph_go",
        on_click=choose_node, args=(result, other),
    )  # fmt: skip
    about = None if asked is None else asked.asked.about
    if asked is None or about is None or inputs is None:
        st.caption("An imported graph has no model behind it: heads of an edge are not known.")
        return
    wanted = _loadings_inputs(inputs, node_name(result, edge[0]), node_name(result, edge[1]))
    loadings: HeadLoadingsResult | None = instant(
        "graph_loadings", wanted, _run_loadings, "Heads of the edge", about=about,
        seconds=pass_seconds(asked.asked, passes=10.0),
    )  # fmt: skip
    if loadings is None:
        return
    from mi_core.exports.feature_graph_model import loadings_figure

    draw_warnings(loadings)
    figure_card("graph_loadings_card", loadings_figure(loadings), formula=GRAPH_FORMULA)


def _loadings_inputs(inputs: GraphInputs, source: str, target: str) -> HeadLoadingsInputs:
    from mi_core.transcoders.graph_heads import HeadLoadingsInputs

    same = {field.name: getattr(inputs, field.name) for field in fields(inputs)}
    return HeadLoadingsInputs(**same, source=source, target=target)


def _run_loadings(model: LoadedModel, inputs: HeadLoadingsInputs, *, on_step: Any) -> HeadLoadingsResult:
    """Runs on the worker thread."""
    from mi_core.transcoders.graph_heads import head_loadings

    return head_loadings(model, inputs, on_step=on_step)
