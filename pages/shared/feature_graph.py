"""The tab "Graph": what to explain, how much to show, and the figures of the attribution graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import streamlit as st

from mi_core.errors import InputError
from pages.shared.boundary import show_error
from pages.shared.feature_graph_effects import draw_effects
from pages.shared.feature_graph_fields import (
    EDGE_SHARE,
    MOST_ROWS,
    NODE_SHARE,
    ROWS,
    TARGET,
    TARGETS,
    TOKENS,
)
from pages.shared.feature_graph_files import draw_files, imported_graph
from pages.shared.feature_graph_mine import draw_subgraph
from pages.shared.feature_graph_pruning import chosen_dense, draw_pruning
from pages.shared.feature_graph_state import view_of
from pages.shared.feature_graph_view import draw_graph, draw_node, draw_numbers
from pages.shared.feature_graph_words import feature_labels
from pages.shared.features_page import FeaturesAsked, features_asked
from pages.shared.instant import draw_warnings, instant, pass_seconds

if TYPE_CHECKING:
    from mi_core.model.model import LoadedModel
    from mi_core.transcoders.graph_inputs import GraphInputs
    from mi_core.transcoders.graph_result import GraphResult

SLOT = "feature_graph"


def draw_graph_tab() -> None:
    """The tab."""
    imported = imported_graph()
    if imported is not None:
        draw_warnings(imported.result)
        _draw(imported.result, dict(imported.labels), None, None)
        return
    asked = features_asked()
    if asked is None or asked.asked.about is None:
        draw_files(None, None, None)
        return
    _draw_settings()
    inputs = _inputs(asked)
    result: GraphResult | None = None
    if inputs is not None:
        result = instant(
            SLOT, inputs, _run, "Attribution graph", about=asked.asked.about, seconds=_seconds(asked)
        )
    if result is None:
        draw_files(None, None, None)
        return
    draw_warnings(result)
    _draw(result, feature_labels(result, asked), asked, inputs)


def _draw_settings() -> None:
    with st.container(horizontal=True, gap="medium", vertical_alignment="bottom", key="graph_settings"):
        st.segmented_control(
            "Explain", list(TARGETS), format_func=TARGETS.__getitem__, key=TARGET, required=True,
            wrap=True,
            help="Likely tokens: the fewest next tokens with 95 % of the probability, ten at most. The "
            "answer and the compared token stand in the header; with both, the difference can be explained.",
        )  # fmt: skip
        if st.session_state[TARGET] == "tokens":
            st.text_input(
                "Tokens", key=TOKENS, width=220, placeholder="e.g. Paris, Rome", help="Separated by commas."
            )
        st.number_input(
            "Rows", min_value=1, max_value=MOST_ROWS, key=ROWS, width=120,
            help="Features whose inputs are computed, those with most influence first; all others are shown "
            "as not expanded.",
        )  # fmt: skip


def _inputs(asked: FeaturesAsked) -> GraphInputs | None:
    """Inputs from header and settings; what is wrong is said."""
    from mi_core.transcoders.graph_inputs import GraphInputs

    state, target = st.session_state, st.session_state[TARGET]
    if target == "difference" and not state["distractor"]:
        st.info("Name a token to compare with in the header.", icon=":material/edit:")
        return None
    tokens = tuple(word.strip() for word in state[TOKENS].split(",") if word.strip())
    if target == "tokens" and not tokens:
        st.info("Name one or more tokens to explain.", icon=":material/edit:")
        return None
    try:
        return GraphInputs(
            prompt=asked.asked.prompt,
            transcoder=asked.transcoder,
            answer=_answer(target),
            distractor=state["distractor"] if target == "difference" else None,
            targets=tokens if target == "tokens" else (),
            rows=state[ROWS],
            bos=asked.asked.bos,  # type: ignore[arg-type]  # one of the header's three words
            show_bos=asked.show_bos,
        )
    except InputError as error:
        show_error(error)
        return None


def _answer(target: str) -> str | None:
    """The header's answer, or what the model says itself where there is none."""
    return (st.session_state["answer"] or None) if target in ("answer", "difference") else None


def _seconds(asked: FeaturesAsked) -> float | None:
    """On Atlas a graph took as long as 120 to 200 passes over its prompt (12 to 111 tokens)."""
    return pass_seconds(asked.asked, passes=150.0)


def _run(model: LoadedModel, inputs: GraphInputs, *, on_step: Any) -> GraphResult:
    """Runs on the worker thread."""
    from mi_core.transcoders.graph_run import attribution_graph

    return attribution_graph(model, inputs, on_step=on_step)


def _draw(
    result: GraphResult, labels: dict[int, str], asked: FeaturesAsked | None, inputs: GraphInputs | None
) -> None:
    """All figures of a graph; what asks the model again only where there is one."""
    from mi_core.transcoders.graph_scores import prune

    density = draw_pruning(result, asked)
    state = st.session_state
    thresholds = (float(state[NODE_SHARE]), float(state[EDGE_SHARE]))
    pruned = prune(result, *thresholds)
    view = view_of(result, labels)
    dense = chosen_dense(density)
    hidden = 0 if dense is None else int(dense.hidden(pruned.nodes, view.looked_at).sum())
    draw_numbers(result, pruned, hidden)
    draw_graph(result, pruned, view, thresholds, dense)
    draw_node(result, pruned, view, asked, inputs)
    draw_subgraph(result, view)
    if asked is not None and inputs is not None:
        draw_effects(result, pruned, asked, inputs)
    draw_files(result, pruned, view)
