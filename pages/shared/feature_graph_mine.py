"""The user's own subgraph with its live scores."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import streamlit as st

from mi_core.transcoders.graph_names import LOGIT, node_label, node_name
from pages.shared.boundary import show_error
from pages.shared.feature_graph_state import (
    PROBLEM,
    choose_node,
    clear_pins,
    drop_group,
    groups,
    make_group,
    pinned_nodes,
)
from pages.shared.feature_graph_text import GRAPH_FORMULA
from pages.shared.figure_card import figure_card
from pages.shared.text import code, plain

if TYPE_CHECKING:
    from mi_core.charts.feature_graph import GraphView
    from mi_core.transcoders.graph_result import GraphResult


def draw_subgraph(result: GraphResult, view: GraphView) -> None:
    """Pinned nodes, groups, scores and their drawing."""
    st.subheader("My subgraph")
    _, missing = pinned_nodes(result)
    if missing:
        st.warning(
            f"Not in this graph, so left out: {', '.join(plain(name) for name in missing[:10])}.",
            icon=":material/link_off:",
        )
    if not view.pinned:
        st.markdown(
            ":material/push_pin: **Pin nodes** of the graph, or features on any tab: they make your own "
            "subgraph, with scores that say how much of the output it explains."
        )
        return
    _draw_scores(result, view)
    _draw_groups(result, view)
    view = replace(view, pinned=tuple(dict.fromkeys([*view.pinned, *result.nodes_of(LOGIT).tolist()])))
    from mi_core.charts.feature_graph_parts import subgraph_parts
    from mi_core.exports.feature_graph import subgraph_figure
    from mi_core.transcoders.graph_scores import subgraph_scores

    parts = subgraph_parts(result, view.pinned, view.groups)

    def choose(cell: dict[str, Any]) -> None:
        part = cell.get("part")
        if isinstance(part, int) and 0 <= part < len(parts):
            choose_node(result, parts[part][1][0])

    figure = subgraph_figure(result, view, subgraph_scores(result, view.pinned))
    figure_card("feature_subgraph", figure, on_cell=choose, formula=GRAPH_FORMULA)


def _draw_scores(result: GraphResult, view: GraphView) -> None:
    from mi_core.charts.text import number
    from mi_core.transcoders.graph_scores import scores, subgraph_scores

    mine, whole = subgraph_scores(result, view.pinned), scores(result)
    with st.container(horizontal=True, gap="medium", vertical_alignment="center", key="graph_my_scores"):
        st.metric("Pinned nodes", f"{len(view.pinned):,}", width="content")
        for name, value, all_of_it in (
            ("Replacement score of mine", mine.replacement, whole.replacement),
            ("Completeness of mine", mine.completeness, whole.completeness),
        ):
            st.metric(
                name, number(value), width="content",
                help="With every feature that is not pinned counted as error. The whole graph: "
                f"{number(all_of_it)}.",
            )  # fmt: skip
        st.button("Unpin all", icon=":material/clear_all:", key="graph_unpin_all", on_click=clear_pins)


def _draw_groups(result: GraphResult, view: GraphView) -> None:
    """Supernodes: a name for some of the pinned nodes."""
    names = {node_name(result, node): node for node in view.pinned}
    state = st.session_state
    state["graph_group_nodes"] = [name for name in state.get("graph_group_nodes", []) if name in names]
    with st.container(horizontal=True, gap="small", vertical_alignment="bottom", key="graph_group_form"):
        st.multiselect(
            "Group these", list(names), key="graph_group_nodes", width=420, placeholder="pinned nodes",
            format_func=lambda name: _called(result, names[name], view) if name in names else name,
        )  # fmt: skip
        st.text_input("as", key="graph_group_name", width=200, placeholder="name", max_chars=80)
        st.button("Group", icon=":material/workspaces:", key="graph_make_group", on_click=make_group)
    problem = state.pop(PROBLEM, None)
    if problem is not None:
        show_error(problem)
    made = groups()
    if made:
        with st.container(horizontal=True, gap="small", key="graph_groups_row"):
            for index, group in enumerate(made):
                st.button(
                    f"Ungroup {code(group.name, 30)} ({len(group.nodes)})", icon=":material/close:",
                    key=f"graph_ungroup_{index}", on_click=drop_group, args=(group.name,),
                )  # fmt: skip


def _called(result: GraphResult, node: int, view: GraphView) -> str:
    label = view.labels.get(node, "")
    return node_label(result, node) + (f" \u201c{label}\u201d" if label else "")
