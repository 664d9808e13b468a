"""The tuned-lens tab: lenses that are there, training one, and how good it is beside the plain lens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from pages.shared import running
from pages.shared.boundary import draw_failure
from pages.shared.figure_card import figure_card
from pages.shared.instant import draw_warnings
from pages.shared.running import Run
from pages.shared.session import chosen_about, chosen_spec
from pages.shared.text import code
from pages.shared.tuned_lens_found import draw_found
from pages.shared.tuned_lens_text import FORMULA
from pages.shared.tuned_lens_training import SLOT, draw_training

if TYPE_CHECKING:
    from mi_core.analyses.tuned_lens_result import TunedLensTrainResult


def draw_tuned_tab() -> None:
    """Lenses of this model, the training panel, and what came out."""
    about = chosen_about()
    st.caption(
        "The plain lens reads an early layer with the last layer's words, which it may not speak yet. A "
        "tuned lens first translates: one affine map per layer, trained so that the reading comes close to "
        "what the model says in the end."
    )
    if about is None:
        st.info("The model is not loaded yet; the sidebar shows how far it is.", icon=":material/hourglass:")
        return
    draw_found(about)
    draw_training(about)
    run = running.current(SLOT)
    if run is None:
        return
    if not running.settle(run):
        running.follow(SLOT, lambda partial: None)
        return
    _draw_outcome(run)


def _draw_outcome(run: Run) -> None:
    if run.error is not None:
        draw_failure(run.error, "the training")
        return
    result: TunedLensTrainResult = run.result
    if run.spec != chosen_spec():
        st.badge("of another model", icon=":material/history:", color="orange")
    if result.saved_to:
        st.success(
            f"Saved to {code(result.saved_to, 120)}. Choose it above to draw the grid with it.",
            icon=":material/save:",
        )
    draw_warnings(result)
    _draw_figures(result)


def _draw_figures(result: TunedLensTrainResult) -> None:
    from mi_core.exports.tuned_lens import course_figure, quality_figure

    without = st.toggle(
        "Leave out layer 0",
        key="tuned_without_first",
        help="The embeddings themselves: the plain lens is often so far off there that the other layers "
        "cannot be seen.",
        disabled=result.n_layers < 2,
    )
    first = 1 if without and result.n_layers > 1 else 0
    figure_card("tuned_quality", quality_figure(result, from_layer=first), formula=FORMULA)
    if len(result.checked_steps) > 1:
        figure_card("tuned_course", course_figure(result))
