"""What the user has made of a graph: chosen node and edge, pins and groups; read and changed only here."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import streamlit as st

from mi_core.errors import InputError
from mi_core.transcoders.graph_groups import (
    Group,
    format_groups,
    parse_groups,
    with_group,
    without_nodes,
)
from mi_core.transcoders.graph_names import FEATURE, format_nodes, found_nodes, node_name, parse_nodes
from pages.shared.feature_graph_fields import EDGE, GROUPS, NODE, PINS, edge_text
from pages.shared.selection import select, selection

if TYPE_CHECKING:
    from mi_core.charts.feature_graph import GraphView
    from mi_core.transcoders.graph_result import GraphResult

IMPORTED = "_graph_imported"
PROBLEM = "_graph_problem"
_TURN = "_graph_turn"


def pinned_names() -> tuple[str, ...]:
    """Nodes that were pinned by name; unreadable text is none."""
    try:
        return parse_nodes(st.session_state[PINS])
    except InputError:
        return ()


def groups() -> tuple[Group, ...]:
    """The groups; unreadable text is none."""
    try:
        return parse_groups(st.session_state[GROUPS])
    except InputError:
        return ()


def pinned_nodes(result: GraphResult) -> tuple[list[int], list[str]]:
    """Nodes of this graph that are pinned, by name or with their feature, and names that it does not have."""
    from pages.shared.features_page import pins

    found, missing = found_nodes(result, pinned_names())
    features = {(feature.layer, feature.index) for feature in pins()}
    places = zip(
        result.node_kind.tolist(), result.node_layer.tolist(), result.node_feature.tolist(), strict=True
    )
    more = [
        node
        for node, (kind, layer, feature) in enumerate(places)
        if kind == FEATURE and (layer, feature) in features
    ]
    return list(dict.fromkeys([*found, *more])), missing


def chosen_node(result: GraphResult) -> int | None:
    """The node that is looked at, if this graph has it."""
    name = st.session_state[NODE]
    found, _ = found_nodes(result, [name] if name else [])
    return found[0] if found else None


def view_of(result: GraphResult, labels: dict[int, str]) -> GraphView:
    """Everything that the user has made of this graph."""
    from mi_core.charts.feature_graph import GraphView

    pinned, _ = pinned_nodes(result)
    named = {group.name: tuple(found_nodes(result, group.nodes)[0]) for group in groups()}
    kept = {name: members for name, members in named.items() if members}
    return GraphView(chosen_node(result), tuple(pinned), kept, labels, st.session_state.get(_TURN, 0))


# --- callbacks ---


def choose_node(result: GraphResult, node: int) -> None:
    """Look at a node; a feature is selected for all tabs and pages, too."""
    close_node()
    st.session_state[NODE] = node_name(result, node)
    position = int(result.node_position[node])
    if result.node_kind[node] == FEATURE:
        layer, feature = int(result.node_layer[node]), int(result.node_feature[node])
        select(replace(selection(), layer=layer, feature=feature, position=position))
    else:
        select(replace(selection(), position=position))


def follow_picker(result: GraphResult) -> None:
    """The picker was changed: what a click does."""
    node = chosen_node(result)
    if node is not None:
        choose_node(result, node)


def close_node() -> None:
    """Look at no node."""
    st.session_state[NODE] = st.session_state[EDGE] = None
    st.session_state[_TURN] = st.session_state.get(_TURN, 0) + 1


def choose_edge(result: GraphResult, source: int, target: int) -> None:
    """Look at an edge."""
    st.session_state[EDGE] = edge_text(node_name(result, source), node_name(result, target))


def chosen_edge(result: GraphResult) -> tuple[int, int] | None:
    """(source, target) of the edge that is looked at, if this graph has both."""
    text = st.session_state[EDGE]
    if not text:
        return None
    found, _ = found_nodes(result, text.split(">", 1))
    return (found[0], found[1]) if len(found) == 2 else None


def pin(*names: str) -> None:
    """Add nodes to the subgraph."""
    st.session_state[PINS] = format_nodes(tuple(dict.fromkeys([*pinned_names(), *names])))


def unpin(result: GraphResult, node: int) -> None:
    """Take a node out of the subgraph; if its feature is pinned, this pin goes, too."""
    from mi_core.transcoders.names import Feature
    from pages.shared.features_page import pins, toggle_pin

    name = node_name(result, node)
    st.session_state[PINS] = format_nodes([one for one in pinned_names() if one != name])
    st.session_state[GROUPS] = format_groups(without_nodes(groups(), [name]))
    feature = Feature(int(result.node_layer[node]), max(0, int(result.node_feature[node])))
    if result.node_kind[node] == FEATURE and feature in pins():
        toggle_pin(feature)


def clear_pins() -> None:
    """Empty the subgraph: nodes, groups and pinned features."""
    from pages.shared.features_fields import PINS as FEATURE_PINS

    st.session_state[PINS] = st.session_state[GROUPS] = st.session_state[FEATURE_PINS] = ""


def make_group() -> None:
    """Make a group of what the two fields say."""
    state = st.session_state
    try:
        made = with_group(groups(), state.get("graph_group_name") or "", state.get("graph_group_nodes") or [])
    except InputError as error:
        state[PROBLEM] = error
        return
    state[GROUPS] = format_groups(made)
    pin(*made[-1].nodes)
    state["graph_group_name"], state["graph_group_nodes"] = "", []


def drop_group(name: str) -> None:
    """Take a group apart; its nodes stay pinned."""
    st.session_state[GROUPS] = format_groups([group for group in groups() if group.name != name])
