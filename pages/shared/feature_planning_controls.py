"""The settings of the planning tab: presets, lists of features, strengths and controls."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from mi_core.transcoders.planning_inputs import MAX_CONTROLS, MAX_STRENGTH
from mi_core.transcoders.planning_pick import MAX_COUNT
from mi_core.transcoders.planning_presets import PRESETS
from pages.shared.feature_planning_fields import METRICS, SOURCES
from pages.shared.features_fields import TABS, TRANSCODER
from pages.shared.session import chosen_about
from pages.shared.text import code, plain

if TYPE_CHECKING:
    from mi_core.transcoders.planning_pick import PlanningPickResult
    from mi_core.transcoders.planning_result import PlanningResult

CHOSEN = "_planning_preset"


def draw_presets() -> None:
    """Experiments that are ready; loading one fills prompt, words and settings."""
    with st.container(horizontal=True, gap="small", vertical_alignment="bottom", key="planning_presets"):
        st.selectbox(
            "Preset", list(PRESETS), format_func=lambda key: PRESETS[key].name, key=CHOSEN, width=460
        )
        st.button(
            "Load", icon=":material/lightbulb:", key="planning_load", on_click=_load,
            help="Fills the prompt, both words and the settings below.",
        )  # fmt: skip
    preset, about = PRESETS[st.session_state[CHOSEN]], chosen_about()
    st.caption(plain(preset.note))
    if preset.model and about is not None and about.spec.name != preset.model:
        st.caption(
            f"For the model {code(preset.model)} with the transcoder {code(preset.transcoder)}; choose the "
            "model in the sidebar first."
        )


def _load() -> None:
    """A callback: the widgets take these values in the next run."""
    state, preset = st.session_state, PRESETS[st.session_state[CHOSEN]]
    about = chosen_about()
    values = {
        "prompt": preset.prompt, "answer": preset.answer, "distractor": preset.distractor,
        "planning_source": "pick" if preset.other_prompt else "named", "planning_other": preset.other_prompt,
        "planning_inject": preset.inject, "planning_suppress": preset.suppress,
        "planning_count": preset.count, "planning_count_down": preset.count_down,
        "planning_strength": preset.strength,
    }  # fmt: skip
    for name, value in values.items():
        state[name] = value
    if preset.transcoder and about is not None and about.spec.name == preset.model:
        state[TRANSCODER] = preset.transcoder


def draw_lists() -> None:
    """Which features are pushed."""
    with st.container(border=True, key="planning_lists"):
        st.segmented_control(
            "Push", list(SOURCES), format_func=SOURCES.__getitem__, key="planning_source", required=True
        )
        with st.container(horizontal=True, gap="small", vertical_alignment="bottom"):
            if st.session_state["planning_source"] == "pick":
                st.text_input(
                    "Second prompt, whose word is the answer", key="planning_other",
                    help="Features that make this prompt say the answer are injected into the prompt above; "
                    "features that make the prompt above say the distractor are suppressed.",
                )  # fmt: skip
                st.number_input("Inject at most", 1, MAX_COUNT, key="planning_count", width=130)
                st.number_input("Suppress at most", 0, MAX_COUNT, key="planning_count_down", width=140)
                st.number_input(
                    "Share of the strongest", 0.0, 1.0, key="planning_share", width=170, format="%g",
                    help="Features with less than this share of the strongest one's effect are left out.",
                )  # fmt: skip
            else:
                st.text_input(
                    "Inject", key="planning_inject", placeholder="e.g. L5F102, L6F7",
                    help="Features that are pushed up.",
                )  # fmt: skip
                st.text_input(
                    "Suppress", key="planning_suppress", placeholder="none",
                    help="Features that are pushed down, whether or not they are active.",
                )  # fmt: skip


def draw_settings() -> None:
    """Strengths, controls, and what the figures show."""
    with st.container(horizontal=True, gap="small", vertical_alignment="bottom", key="planning_settings"):
        st.number_input(
            "Strength", -MAX_STRENGTH, MAX_STRENGTH, key="planning_strength", width=130, format="%g",
            help="How many times the features' decoder rows are added; 1 = an activation of 1.",
        )  # fmt: skip
        st.text_input("Strengths of the grid", key="planning_strengths", width=230)
        st.text_input(
            "Tokens", key="planning_positions", placeholder="all", width=110,
            help="Positions at which the push is tried, one at a time, such as 3, 4, 7.",
        )  # fmt: skip
        st.number_input(
            "Random draws", 0, MAX_CONTROLS, key="planning_controls", width=130,
            help="So many random features, and so many random rotations of the push.",
        )  # fmt: skip
        st.number_input("Seed", 0, 2**31 - 1, key="planning_seed", width=110)
        st.selectbox("Show", list(METRICS), format_func=METRICS.__getitem__, key="planning_metric", width=190)


def use_picked(up: PlanningPickResult, down: PlanningPickResult | None, inject: str, suppress: str) -> None:
    """What was picked, with its effects, and a button that makes it a list of one's own."""
    with st.container(gap="small", key="planning_picked"):
        st.markdown(f"Injected: {_told(up)}")
        if down is not None:
            st.markdown(f"Suppressed: {_told(down)}")
        st.button(
            "Keep as a list", icon=":material/content_copy:", key="planning_keep", on_click=_keep,
            args=(inject, suppress), help="Then features can be added and taken away.",
        )  # fmt: skip
    for result in (up, down):
        for warning in () if result is None else result.warnings:
            st.warning(plain(warning), icon=":material/warning:")


def _told(picked: PlanningPickResult) -> str:
    parts = [
        f"{code(name)} at {code(picked.tokens[int(position)].visible)} ({effect:+.2f} logits)"
        for name, position, effect in zip(picked.names, picked.positions, picked.effects, strict=True)
    ]
    return ", ".join(parts) or "none"


def _keep(inject: str, suppress: str) -> None:
    state = st.session_state
    state["planning_source"] = "named"
    state["planning_inject"], state["planning_suppress"] = inject, suppress


def draw_handover(result: PlanningResult) -> None:
    """The same push in the tabs that go on from it."""
    at = result.positions[result.best] if result.best >= 0 else result.output
    with st.container(horizontal=True, gap="small", key="planning_handover"):
        st.button(
            f"Intervene with these at token {at}", icon=":material/tune:", key="planning_to_inject",
            on_click=_intervene, args=(result, at),
            help="Adds the push to the list of the tab Intervene, at the token where it acts most.",
        )  # fmt: skip
        st.button(
            "Steer a text with these", icon=":material/explore:", key="planning_to_steer",
            on_click=_steer, args=(result,), help="Takes the push to the tab Steer.",
        )  # fmt: skip


def _intervene(result: PlanningResult, at: int) -> None:
    """A callback: pieces for the list of feature edits."""
    from pages.shared.feature_inject_list import add

    add(
        *(_piece(feature.text, weight, result, f"@{at}") for feature, weight in result.inputs.weights.items())
    )
    st.session_state["features_tabs"] = TABS["inject"]


def _steer(result: PlanningResult) -> None:
    """A callback: the pushes of the tab Steer."""
    pieces = (_piece(feature.text, weight, result) for feature, weight in result.inputs.weights.items())
    st.session_state["steer_features"] = ", ".join(pieces)
    st.session_state["features_tabs"] = TABS["steer"]


def _piece(name: str, weight: float, result: PlanningResult, where: str = "") -> str:
    """A push as the grammar of feature edits writes it."""
    up = weight * result.inputs.strength
    return f"{name}{where}:add={up:g}" if up > 0 else f"{name}{where}:suppress={-up:g}"
