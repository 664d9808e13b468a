"""The dose of an edge on the page: which edge, how much, and what the answer does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import streamlit as st

from mi_core.analyses.attention_dose_inputs import AttentionDoseInputs
from mi_core.errors import InputError
from pages.shared.ablation_sweep_fields import KINDS, METRIC_LABELS
from pages.shared.figure_card import figure_card
from pages.shared.instant import Asked, draw_warnings, instant, pass_seconds
from pages.shared.selection import selection
from pages.shared.text import plain

if TYPE_CHECKING:
    from mi_core.analyses import AttentionDoseResult
    from mi_core.model.model import LoadedModel

FORMULA = r"""
$$
\text{multiply by } f:\; a \to \frac{f a}{1 - a + f a}
\qquad
\text{set to } s:\; a \to s, \text{ the rest of the row times } \frac{1 - s}{1 - a}
$$
"""


def draw_dose(asked: Asked) -> None:
    """The section; nothing is computed before it is opened."""
    st.subheader("The dose of an edge")
    st.toggle(
        "Turn one edge of attention up and down", key="dose_shown",
        help="Attention after the softmax; its row is made to sum to 1 again.",
    )  # fmt: skip
    if not st.session_state["dose_shown"] or asked.about is None or asked.tokens is None:
        return
    _draw_settings(asked)
    inputs = _wanted(asked)
    if inputs is None:
        return
    seconds = pass_seconds(asked, passes=float(2 * len(inputs.levels) + 3))
    result: AttentionDoseResult | None = instant(
        "attention_dose", inputs, _run, "Dose", about=asked.about, seconds=seconds
    )
    if result is not None and not result.cancelled:
        draw_warnings(result)
        _draw(result)


def _draw_settings(asked: Asked) -> None:
    now = selection()
    with st.container(horizontal=True, gap="small", vertical_alignment="bottom", key="dose_settings"):
        st.segmented_control(
            "Attention", list(KINDS), format_func=KINDS.__getitem__, key="dose_kind", required=True
        )
        st.number_input(
            "Query", min_value=0, key="dose_query", placeholder="last", width=110,
            help="Position of the token that reads; empty = the last one.",
        )  # fmt: skip
        st.number_input("Key", min_value=0, key="dose_key", width=110, help="Position of the token read.")
        st.number_input("Layer", min_value=0, key="dose_layer", placeholder="all", width=110)
        st.number_input("Head", min_value=0, key="dose_head", placeholder="all", width=110)
        st.number_input(
            "Wished effect", key="dose_wished", placeholder="none", width=140, step=0.1, format="%g",
            help=f"Effect on {METRIC_LABELS[st.session_state['ablation_metric']]} to look a level up for.",
        )  # fmt: skip
        if now.layer is not None or now.key is not None:
            st.button(
                "Take the selection", icon=":material/ads_click:", key="dose_take", on_click=_take,
                help="Layer, head, query and key that are selected on this page or on Attention.",
            )  # fmt: skip


def _take() -> None:
    """Layer, head and edge of the selection."""
    now = selection()
    for name, value in (("dose_layer", now.layer), ("dose_head", now.head), ("dose_query", now.position)):
        st.session_state[name] = value
    if now.key is not None:
        st.session_state["dose_key"] = now.key


def _wanted(asked: Asked) -> AttentionDoseInputs | None:
    state = st.session_state
    try:
        return AttentionDoseInputs(
            prompt=asked.prompt,
            key=state["dose_key"] or 0,
            query=state["dose_query"],
            layer=state["dose_layer"],
            head=state["dose_head"],
            kind=state["dose_kind"],
            answer=state["answer"] or None,
            distractor=state["distractor"] or None,
            metric=state["ablation_metric"],
            wished=state["dose_wished"],
            bos=asked.bos,  # type: ignore[arg-type]  # one of the header's three words
        )
    except InputError as error:
        st.warning(plain(str(error)), icon=":material/warning:")
        return None


def _run(model: LoadedModel, inputs: AttentionDoseInputs, *, on_step: Any) -> AttentionDoseResult:
    """Runs on the worker thread."""
    from mi_core.analyses import attention_dose

    return attention_dose(model, inputs, on_step=on_step)


def _draw(result: AttentionDoseResult) -> None:
    from mi_core.charts.text import number
    from mi_core.exports.ablation_sweep import attention_figure, dose_figure

    wished = result.inputs.wished
    if wished is not None:
        dose = result.wished_dose
        found = "no level in this range" if dose is None else number(dose)
        st.metric(f"Level for an effect of {number(wished)}", found, width="content")
    figure_card("dose_curve", dose_figure(result, result.inputs.metric), formula=FORMULA)
    figure_card("dose_attention", attention_figure(result), formula=FORMULA)
