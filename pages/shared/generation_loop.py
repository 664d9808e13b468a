"""Recurrent feedback on the generation tab: couplets with a block of layers run again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import streamlit as st

from mi_core.analyses.generation_inputs import MAX_COEFFICIENT
from mi_core.analyses.recurrent_feedback_inputs import MAX_DEPTH, RecurrentFeedbackInputs
from mi_core.errors import LanternError
from pages.shared.boundary import show_error
from pages.shared.figure_card import figure_card
from pages.shared.generation_fields import MODES
from pages.shared.generation_text import LOOP_FORMULA
from pages.shared.instant import Asked, draw_warnings, instant

if TYPE_CHECKING:
    from mi_core.analyses import RecurrentFeedbackResult
    from mi_core.model.model import LoadedModel


def draw_loop(asked: Asked) -> None:
    """The section; runs only while it is switched on."""
    st.toggle(
        "Recurrent feedback on couplets",
        key="generation_loop",
        help="Runs a block of layers again, or feeds it a rhyme direction, and reads the lines that follow.",
    )
    if not st.session_state["generation_loop"] or asked.about is None:
        return
    _draw_settings()
    try:
        inputs = _inputs(asked)
    except LanternError as error:
        show_error(error)
        return
    result: RecurrentFeedbackResult | None = instant(
        "recurrent_feedback", inputs, _run, "Recurrent feedback", about=asked.about
    )
    if result is not None:
        _draw(result)


def _draw_settings() -> None:
    with st.container(horizontal=True, gap="small", vertical_alignment="bottom", key="loop_settings"):
        st.number_input(
            "First layer", min_value=0, max_value=10_000, key="loop_start", placeholder="middle", width=130
        )
        st.number_input(
            "Layer after the last",
            min_value=0,
            max_value=10_000,
            key="loop_end",
            placeholder="one layer",
            width=160,
        )
        st.number_input("Depth", min_value=1, max_value=MAX_DEPTH, key="loop_depth", width=110)
        st.number_input(
            "Strength",
            min_value=-MAX_COEFFICIENT,
            max_value=MAX_COEFFICIENT,
            step=5.0,
            key="loop_strength",
            width=140,
            help="0 = no feedback: the block's output is its next input.",
        )
        st.selectbox("Feedback at", list(MODES), format_func=MODES.__getitem__, key="loop_mode", width=330)


def _inputs(asked: Asked) -> RecurrentFeedbackInputs:
    state = st.session_state
    return RecurrentFeedbackInputs(
        start=state["loop_start"],
        end=state["loop_end"],
        depth=state["loop_depth"],
        strength=state["loop_strength"],
        mode=state["loop_mode"],
        bos=asked.bos,  # type: ignore[arg-type]  # the header offers nothing else
    )


def _run(model: LoadedModel, inputs: RecurrentFeedbackInputs, *, on_step: Any) -> RecurrentFeedbackResult:
    """Runs on the worker thread."""
    from mi_core.analyses import recurrent_feedback

    return recurrent_feedback(model, inputs, on_step=on_step)


def _draw(result: RecurrentFeedbackResult) -> None:
    from mi_core.exports.recurrent_feedback import lines_table, recurrent_figure

    draw_warnings(result)
    st.dataframe(lines_table(result), hide_index=True, alt="Second lines of every couplet, before and after.")
    figure_card("recurrent_feedback", recurrent_figure(result), formula=LOOP_FORMULA)
