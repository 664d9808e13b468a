"""Kinds of heads on repeated random tokens: settings, scores, labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import streamlit as st

from mi_core.analyses.head_scores_inputs import MAX_LENGTH, MAX_SAMPLES, SCORE_NAMES, SCORES, HeadScoresInputs
from pages.shared.attention_page import attention_there
from pages.shared.attention_text import SCORES_FORMULA
from pages.shared.attention_tiles import lock, lock_cell
from pages.shared.figure_card import figure_card
from pages.shared.instant import draw_warnings, instant
from pages.shared.selection import selection
from pages.shared.session import chosen_about, hub

if TYPE_CHECKING:
    from mi_core.analyses.head_scores_result import HeadScoresResult
    from mi_core.model.model import LoadedModel
    from pages.shared.hub import About

SLOT = "head_scores"


def draw_types_tab() -> None:
    """The tab that needs no prompt."""
    about = chosen_about()
    if about is None:
        st.info("The model is not loaded yet; the sidebar shows how far it is.", icon=":material/edit:")
        return
    if not attention_there(about):
        return
    _draw_settings()
    inputs = _inputs()
    result: HeadScoresResult | None = instant(
        SLOT, inputs, _run, "Head types", about=about, seconds=_seconds(about, inputs)
    )
    if result is not None:
        draw_warnings(result)
        _draw(result)


def _draw_settings() -> None:
    with st.container(horizontal=True, gap="medium", vertical_alignment="bottom", key="attention_type_row"):
        st.selectbox(
            "Score", list(SCORE_NAMES), key="attention_score", width=190,
            format_func={score.name: score.label for score in SCORES}.__getitem__,
            help=" ".join(f"**{score.label}**: {score.meaning}" for score in SCORES),
        )  # fmt: skip
        st.number_input(
            "Random tokens", min_value=2, max_value=MAX_LENGTH, key="attention_length", width=140,
            help="How many random tokens are repeated.",
        )  # fmt: skip
        st.number_input(
            "Sequences", min_value=1, max_value=MAX_SAMPLES, key="attention_samples", width=130,
            help="How many random sequences the mean and the spread are over.",
        )  # fmt: skip
        st.number_input("Seed", min_value=0, max_value=2**32 - 1, key="attention_seed", width=120)
        st.number_input(
            "Threshold", min_value=0.01, max_value=1.0, step=0.05, key="attention_threshold", width=130,
            help="Mean score from which a head is called by the score's name.",
        )  # fmt: skip


def _inputs() -> HeadScoresInputs:
    state = st.session_state
    return HeadScoresInputs(
        length=state["attention_length"],
        samples=state["attention_samples"],
        seed=state["attention_seed"],
        threshold=float(state["attention_threshold"]),
    )


def _seconds(about: About, inputs: HeadScoresInputs) -> float | None:
    from mi_core.analyses import head_scores_seconds

    model = hub().resident(about.spec)
    return None if model is None else head_scores_seconds(model, inputs)


def _run(model: LoadedModel, inputs: HeadScoresInputs, *, on_step: Any) -> HeadScoresResult:
    from mi_core.analyses import head_scores

    return head_scores(model, inputs, on_step=on_step)


def _draw(result: HeadScoresResult) -> None:
    from mi_core.exports.head_scores import map_figure, strongest_figure

    score, chosen = st.session_state["attention_score"], _chosen(result)
    figure = map_figure(result, score, chosen=chosen)
    figure_card("head_score_map", figure, on_cell=lock_cell, formula=SCORES_FORMULA)

    def choose(cell: dict[str, Any]) -> None:
        from mi_core.charts.head_scores import STRONGEST

        index, places = cell.get("index"), result.strongest(score, STRONGEST)
        if isinstance(index, int) and 0 <= index < len(places):
            lock(*places[index])

    figure_card("head_score_top", strongest_figure(result, score, chosen=chosen), on_cell=choose)
    _draw_labels(result)


def _chosen(result: HeadScoresResult) -> tuple[int, int] | None:
    now = selection()
    if now.layer is None or now.head is None or now.layer >= result.n_layers or now.head >= result.n_heads:
        return None
    return now.layer, now.head


def _draw_labels(result: HeadScoresResult) -> None:
    """One row per head with its labels and all means."""
    with st.expander("Labels of all heads", icon=":material/label:"):
        st.dataframe(result.labels_frame(), hide_index=True, alt="Labels and mean scores of every head.")
        st.caption(
            f"A head is called by every score of at least {result.inputs.threshold:g}, and by none "
            "otherwise. Click a head above, then open the first tab to see it on your prompt."
        )
