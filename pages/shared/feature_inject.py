"""The tab "Intervene": a list of edits of features, a run without and with it, and what changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import streamlit as st

from mi_core.errors import InputError
from mi_core.transcoders.inject_inputs import MAX_CONTINUATION, MAX_TOP, InjectInputs
from pages.shared.feature_inject_fields import FROZEN, FROZEN_HELP, LIST
from pages.shared.feature_inject_pick import draw_empty, draw_list, draw_picker, draw_text
from pages.shared.feature_inject_view import draw_result
from pages.shared.features_page import FeaturesAsked, features_asked
from pages.shared.instant import draw_warnings, instant, pass_seconds
from pages.shared.text import plain

if TYPE_CHECKING:
    from mi_core.model.model import LoadedModel
    from mi_core.transcoders.feature_edits import FeatureEdit
    from mi_core.transcoders.inject_result import InjectResult

SLOT = "inject"


def draw_inject_tab() -> None:
    """The tab."""
    asked = features_asked()
    if asked is None or asked.asked.about is None or asked.asked.tokens is None:
        return
    draw_text()
    edits = _parsed()
    if edits:
        draw_list(edits)
    elif edits is not None:
        draw_empty()
    draw_picker(asked.asked.about, asked.asked.tokens)
    if edits is None:
        return
    _draw_settings()
    inputs = _wanted(asked)
    if inputs is None:
        return
    result: InjectResult | None = instant(
        SLOT,
        inputs,
        _run,
        "Intervention on features",
        about=asked.asked.about,
        seconds=_seconds(asked, edits, inputs.continuation),
    )
    if result is not None:
        draw_warnings(result)
        draw_result(result)


def _parsed() -> tuple[FeatureEdit, ...] | None:
    """The list; None if it cannot be read, and then it is said why."""
    from mi_core.transcoders.feature_edits import parse_feature_edits

    try:
        return parse_feature_edits(st.session_state[LIST])
    except InputError as error:
        st.error(plain(str(error)), icon=":material/error:")
        return None


def _draw_settings() -> None:
    with st.container(horizontal=True, gap="medium", vertical_alignment="bottom", key="inject_settings"):
        st.segmented_control(
            "Frozen at the baseline", list(FROZEN), format_func=FROZEN.__getitem__, key="inject_frozen",
            required=True, help=FROZEN_HELP,
        )  # fmt: skip
        st.number_input(
            "Top tokens", min_value=1, max_value=MAX_TOP, key="inject_top", width=130,
            help="Of each run; both lists are shown together.",
        )  # fmt: skip
        st.number_input(
            "Continue by tokens", min_value=0, max_value=MAX_CONTINUATION, key="inject_steps", width=160,
            help="Greedy, before and after; 0 for none. Edits of all tokens act on new ones, too. With "
            "everything frozen there is none: new tokens have no baseline.",
            disabled=st.session_state["inject_frozen"] == "everything",
        )  # fmt: skip


def _wanted(asked: FeaturesAsked) -> InjectInputs | None:
    """Inputs from header and settings; None, and a sentence, if they do not fit."""
    state = st.session_state
    try:
        return InjectInputs(
            prompt=asked.asked.prompt,
            edits=state[LIST],
            transcoder=asked.transcoder,
            frozen=state["inject_frozen"],
            answer=state["answer"] or None,
            distractor=state["distractor"] or None,
            continuation=state["inject_steps"],
            top=state["inject_top"],
            show_bos=asked.show_bos,
            bos=asked.asked.bos,  # type: ignore[arg-type]  # one of the header's three words
        )
    except InputError as error:
        st.warning(plain(str(error)), icon=":material/warning:")
        return None


def _seconds(asked: FeaturesAsked, edits: tuple[FeatureEdit, ...], steps: int) -> float | None:
    """Passes over the prompt: three, one per layer that is looked at again, and per new token if need be."""
    layers = len({edit.feature.layer for edit in edits if edit.needs_present})
    growing = len({edit.feature.layer for edit in edits if edit.needs_present and edit.positions is None})
    repeated = steps * (1 + growing) if growing else 2
    return pass_seconds(asked.asked, passes=3.0 + layers + repeated)


def _run(model: LoadedModel, inputs: Any, *, on_step: Any) -> InjectResult:
    """Runs on the worker thread."""
    from mi_core.transcoders import inject

    return inject(model, inputs, on_step=on_step)
