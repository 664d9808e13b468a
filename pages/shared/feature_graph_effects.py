"""The test of a graph against the real model: predicted and actual effect of every shown node."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

import streamlit as st

from mi_core.errors import InputError
from mi_core.transcoders.graph_names import LOGIT, MAX_NAMES, node_name
from mi_core.transcoders.graph_removals_target import effect_target, effect_targets
from pages.shared.boundary import show_error
from pages.shared.feature_graph_fields import EFFECT_ON, FREEZE, FREEZES, TEST
from pages.shared.feature_graph_state import choose_node
from pages.shared.feature_graph_text import EFFECTS_FORMULA
from pages.shared.features_page import FeaturesAsked
from pages.shared.figure_card import figure_card
from pages.shared.instant import draw_warnings, instant, pass_seconds

if TYPE_CHECKING:
    from mi_core.model.model import LoadedModel
    from mi_core.transcoders.graph_inputs import GraphInputs
    from mi_core.transcoders.graph_removals import GraphEffectsInputs, GraphEffectsResult
    from mi_core.transcoders.graph_result import GraphResult
    from mi_core.transcoders.graph_scores import Pruned


def draw_effects(result: GraphResult, pruned: Pruned, asked: FeaturesAsked, inputs: GraphInputs) -> None:
    """Predicted against actual effects of every shown node, when asked for."""
    st.subheader("Does the model agree?")
    with st.container(horizontal=True, gap="medium", vertical_alignment="bottom", key="graph_test_row"):
        st.toggle(
            "Take every shown node away in the real model", key=TEST,
            help="One changed pass per node; the graph's prediction is compared with what the model does.",
        )  # fmt: skip
        if st.session_state[TEST]:
            _draw_choices(result)
    about = asked.asked.about
    if not st.session_state[TEST] or about is None or not _known(result):
        return
    removed = _tested(result, pruned)
    if len(removed) > MAX_NAMES:
        st.info(f"More than {MAX_NAMES:,} nodes are shown; prune the graph first.", icon=":material/tune:")
        return
    names = tuple(node_name(result, node) for node in removed)
    effects: GraphEffectsResult | None = instant(
        "graph_effects", _effects_inputs(inputs, names), _run_effects, "Test of the graph",
        about=about, seconds=pass_seconds(asked.asked, passes=float(len(names))),
    )  # fmt: skip
    if effects is None:
        return
    from mi_core.exports.feature_graph_model import effects_figure

    def choose(cell: dict[str, Any]) -> None:
        index = cell.get("index")
        if isinstance(index, int) and 0 <= index < len(removed):
            choose_node(result, removed[index])

    draw_warnings(effects)
    figure_card("graph_effects_card", effects_figure(effects), on_cell=choose, formula=EFFECTS_FORMULA)


def _draw_choices(result: GraphResult) -> None:
    """What is read, where the graph explains more than one token, and what is held."""
    state, offered = st.session_state, _offered(result)
    if len(offered) > 1 or state[EFFECT_ON] not in offered:
        st.selectbox(
            "Effect on", list(offered), key=EFFECT_ON, format_func=offered.__getitem__,
            width=280,
            help="A token that the graph explains, the difference of two, or their sum, each times what it "
            "counts in the graph.",
        )  # fmt: skip
    st.segmented_control(
        "In the real model", list(FREEZES), format_func=FREEZES.__getitem__, key=FREEZE, required=True
    )


def _offered(result: GraphResult) -> dict[str, str]:
    """Name -> label of all targets of the menu; the first one has no name in the link."""
    targets, state = effect_targets(result), st.session_state
    if state[EFFECT_ON] == targets[0].name:
        state[EFFECT_ON] = ""
    offered = {target.name: target.label for target in targets[1:]}
    chosen = state[EFFECT_ON]
    if chosen and chosen not in offered:  # any difference can be asked for in a link
        offered[chosen] = _label(result, chosen)
    return {"": targets[0].label, **offered}


def _label(result: GraphResult, name: str) -> str:
    try:
        return effect_target(result, name).label
    except InputError:
        return name


def _known(result: GraphResult) -> bool:
    """Whether the chosen target is one of this graph's; if not, that is said."""
    try:
        effect_target(result, st.session_state[EFFECT_ON])
    except InputError as error:
        show_error(error)
        return False
    return True


def _tested(result: GraphResult, pruned: Pruned) -> list[int]:
    """Every shown node that can be taken away."""
    import numpy as np

    return np.flatnonzero(pruned.nodes & (result.node_kind != LOGIT)).tolist()


def _effects_inputs(inputs: GraphInputs, names: tuple[str, ...]) -> GraphEffectsInputs:
    from mi_core.transcoders.graph_removals import GraphEffectsInputs

    state = st.session_state
    same = {field.name: getattr(inputs, field.name) for field in fields(inputs)}
    return GraphEffectsInputs(**same, nodes=names, freeze=state[FREEZE], effect_on=state[EFFECT_ON])


def _run_effects(model: LoadedModel, inputs: GraphEffectsInputs, *, on_step: Any) -> GraphEffectsResult:
    """Runs on the worker thread."""
    from mi_core.transcoders.graph_removals import graph_effects

    return graph_effects(model, inputs, on_step=on_step)
