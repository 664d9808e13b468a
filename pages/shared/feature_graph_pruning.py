"""How much of a graph is drawn: pruning by influence, and features hidden because they are dense."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from mi_core.errors import LanternError
from pages.shared.feature_graph_fields import DENSEST, EDGE_SHARE, HIDE_NONE, NODE_SHARE
from pages.shared.features_page import FeaturesAsked
from pages.shared.session import hub

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float

    from mi_core.transcoders.graph_density import Dense
    from mi_core.transcoders.graph_result import GraphResult

STEPS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, HIDE_NONE)


def draw_pruning(result: GraphResult, asked: FeaturesAsked | None) -> Float[np.ndarray, " node"] | None:
    """The three sliders; densities of the nodes, None where none are known (and then none is hidden)."""
    density = _densities(result, asked)
    with st.container(horizontal=True, gap="medium", key="graph_pruning"):
        st.slider(
            "Nodes kept: share of influence", 0.1, 1.0, step=0.01, key=NODE_SHARE, width=260,
            help="Nodes are kept, those with most influence first, until they carry this share. Tokens and "
            "logits always stay.",
        )  # fmt: skip
        st.slider(
            "Edges kept: share of influence", 0.1, 1.0, step=0.01, key=EDGE_SHARE, width=260,
            help="Edges between the kept nodes, the strongest first.",
        )  # fmt: skip
        st.select_slider(
            "Hide features active on more than", _steps(), key=DENSEST, width=260, format_func=_share,
            disabled=density is None,
            help="Dense features say little about this prompt. They are only not drawn: pruning, scores and "
            "the test below keep them; chosen and pinned ones stay. Densities come from a corpus pass."
            + ("" if density is not None else " None is known for this transcoder."),
        )  # fmt: skip
    if density is None and st.session_state[DENSEST] < HIDE_NONE:
        st.info("No density is known here, so no feature is hidden.", icon=":material/info:")
    return density


def _steps() -> list[float]:
    """Shares to choose from, in percent; whatever a link asks for is one of them."""
    return sorted({*STEPS, float(st.session_state[DENSEST])})


def _share(percent: float) -> str:
    return "hide none" if percent >= HIDE_NONE else f"{percent:g} % of tokens"


def chosen_dense(density: Float[np.ndarray, " node"] | None) -> Dense | None:
    """What is hidden; None where nothing is to be."""
    from mi_core.transcoders.graph_density import dense_nodes

    densest = float(st.session_state[DENSEST])
    return None if density is None or densest >= HIDE_NONE else dense_nodes(density, densest / 100)


def _densities(result: GraphResult, asked: FeaturesAsked | None) -> Float[np.ndarray, " node"] | None:
    """Of the model that is open; an imported graph has none."""
    about = None if asked is None else asked.asked.about
    model = None if about is None else hub().resident(about.spec)
    transcoder = None if model is None else model.transcoders.get(result.inputs.transcoder)
    if model is None or transcoder is None:
        return None
    from mi_core.transcoders.graph_density import node_densities

    try:
        return node_densities(model, transcoder, result)
    except LanternError:  # the tab of the feature says what is wrong with the corpus files
        return None
