"""Neuronpedia's graph files: the graph that is shown goes out as one, and one of somebody else comes in."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import streamlit as st

from mi_core.errors import LanternError
from mi_core.transcoders.graph_groups import MAX_GROUP_NAME, MAX_GROUPS, Group, format_groups
from mi_core.transcoders.graph_names import MAX_NAMES, format_nodes, node_name
from pages.shared.boundary import show_error
from pages.shared.feature_graph_fields import EDGE, EDGE_SHARE, GROUPS, NODE, NODE_SHARE, PINS
from pages.shared.feature_graph_state import IMPORTED, PROBLEM
from pages.shared.text import code

if TYPE_CHECKING:
    from mi_core.charts.feature_graph import GraphView
    from mi_core.transcoders.graph_files import ImportedGraph
    from mi_core.transcoders.graph_result import GraphResult
    from mi_core.transcoders.graph_scores import Pruned

MAX_BYTES = 100_000_000
UPLOAD = "graph_upload"
_LEFT = "_graph_left"


def imported_graph() -> ImportedGraph | None:
    """The graph of a file, while one is open; what it is and how to close it is said above it."""
    found = st.session_state.get(IMPORTED)
    if found is None:
        return None
    name, graph = found
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="graph_imported_row"):
        st.info(
            f"This is the imported graph {code(name)}, not the prompt above.", icon=":material/upload_file:"
        )
        st.button("Close the file", icon=":material/close:", key="graph_close_file", on_click=_close)
    return graph


def draw_files(result: GraphResult | None, pruned: Pruned | None, view: GraphView | None) -> None:
    """Buttons for both directions."""
    with st.expander("Neuronpedia graph files", icon=":material/swap_horiz:"):
        if result is not None and pruned is not None and view is not None:
            st.download_button(
                "Export for Neuronpedia (JSON)", functools.partial(_exported, result, pruned, view),
                file_name="attribution_graph.json", mime="application/json", on_click="ignore",
                icon=":material/download:", key="graph_export_json",
                help="The nodes and edges that are shown, with pins, groups and labels; schema version 1, as "
                "circuit-tracer and Neuronpedia read it.",
            )  # fmt: skip
        st.file_uploader(
            "Open a graph from Neuronpedia or circuit-tracer", type=["json"], key=UPLOAD, on_change=_open,
            help="Read here, sent nowhere. It is drawn as it is, with its pins, groups and labels.",
        )  # fmt: skip
        problem = st.session_state.pop(f"{PROBLEM}_file", None)
        if problem is not None:
            show_error(problem)


def _exported(result: GraphResult, pruned: Pruned, view: GraphView) -> bytes:
    from mi_core.transcoders.graph_files import neuronpedia_json

    return neuronpedia_json(
        result, pruned, pinned=view.pinned, groups=view.groups, labels=view.labels
    ).encode()


def _open() -> None:
    """Read the file that was just chosen."""
    from mi_core.errors import InputError
    from mi_core.transcoders.graph_files import read_neuronpedia

    state, file = st.session_state, st.session_state[UPLOAD]
    if file is None:
        return
    try:
        if file.size > MAX_BYTES:
            raise InputError(f"The file has {file.size / 1e6:.0f} MB", fix="Prune the graph before saving it")
        graph = read_neuronpedia(file.getvalue().decode("utf-8", errors="replace"))
        named = _groups(graph)
    except LanternError as error:
        state[f"{PROBLEM}_file"] = error
        return
    state[_LEFT] = {key: state[key] for key in (NODE, EDGE, PINS, GROUPS, NODE_SHARE, EDGE_SHARE)}
    state[IMPORTED] = (file.name, graph)
    state[NODE] = state[EDGE] = None
    state[NODE_SHARE] = state[EDGE_SHARE] = 1.0  # whoever saved it has pruned it
    state[PINS] = format_nodes([node_name(graph.result, node) for node in graph.pinned[:MAX_NAMES]])
    state[GROUPS] = format_groups(named)


def _groups(graph: ImportedGraph) -> list[Group]:
    """The file's groups, their names cut to what ours may have."""
    return [
        Group(
            name.strip()[:MAX_GROUP_NAME] or "unnamed", tuple(node_name(graph.result, node) for node in nodes)
        )
        for name, nodes in graph.groups.items()
        if nodes
    ][:MAX_GROUPS]


def _close() -> None:
    """Back to the prompt's own graph, with what had been pinned there."""
    st.session_state.pop(IMPORTED, None)
    st.session_state.update(st.session_state.pop(_LEFT, {}))
