"""The tab "Interventions": the list, a run without and with it, and what changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import streamlit as st

from mi_core.analyses.knockout_inputs import KnockoutInputs
from mi_core.errors import InputError
from pages.shared.instant import Asked, draw_warnings, instant, page_state, pass_seconds, prompt_inputs
from pages.shared.knockout_fields import LIST, PINS_HELP, REFERENCE_LABELS, SQUARES
from pages.shared.knockout_pick import draw_empty, draw_list, draw_picker, draw_text
from pages.shared.knockout_view import draw_result
from pages.shared.text import plain

if TYPE_CHECKING:
    from mi_core.analyses.interventions import Intervention
    from mi_core.analyses.knockout_result import KnockoutResult
    from mi_core.model.model import LoadedModel

SLOT = "knockout"


def draw_interventions() -> None:
    """The tab."""
    asked = prompt_inputs()
    if not page_state(asked) or asked.about is None or asked.tokens is None:
        return
    draw_text()
    interventions = _parsed()
    if interventions:
        draw_list(interventions)
    elif interventions is not None:
        draw_empty()
    draw_picker(asked.about, len(asked.tokens))
    if interventions is None:
        return
    _draw_settings(interventions)
    inputs = _wanted(asked)
    if inputs is None:
        return
    result: KnockoutResult | None = instant(
        SLOT, inputs, _run, "Knock-out", about=asked.about, seconds=_seconds(asked, interventions)
    )
    if result is not None:
        draw_warnings(result)
        draw_result(result)


def _parsed() -> tuple[Intervention, ...] | None:
    """The list; None if it cannot be read, and then it is said why."""
    from mi_core.analyses.interventions import parse_interventions

    try:
        return parse_interventions(st.session_state[LIST])
    except InputError as error:
        st.error(plain(str(error)), icon=":material/error:")
        return None


def _draw_settings(interventions: tuple[Intervention, ...]) -> None:
    uses_mean = any(one.needs_mean for one in interventions)
    with st.container(horizontal=True, gap="medium", vertical_alignment="bottom", key="knockout_settings"):
        st.text_input(
            "Attention of heads", key="knockout_pins", width=220, placeholder="e.g. L4H0,L5H1", help=PINS_HELP
        )
        if st.session_state["knockout_pins"]:
            st.segmented_control(
                "Attention as", list(SQUARES), format_func=SQUARES.__getitem__, key="knockout_squares",
                required=True,
            )  # fmt: skip
        st.number_input(
            "Continue by tokens", min_value=0, max_value=200, key="knockout_steps", width=150,
            help="Greedy continuation before and after; 0 for none.",
        )  # fmt: skip
        if uses_mean:
            st.selectbox(
                "Means over", list(REFERENCE_LABELS), format_func=REFERENCE_LABELS.__getitem__,
                key="knockout_reference", width=200,
            )  # fmt: skip
    if uses_mean and st.session_state["knockout_reference"] == "own":
        st.text_area(
            "Reference prompts, one per line", key="knockout_own", placeholder="At least 8 lines",
            help="Means are per token position if all are as long as the prompt, else over all positions.",
        )  # fmt: skip


def _wanted(asked: Asked) -> KnockoutInputs | None:
    """Inputs from header and settings; None, and a sentence, if they do not fit."""
    from pages.shared.attention_fields import parse_pins
    from pages.shared.link import BadValue

    state = st.session_state
    own = state["knockout_reference"] == "own"
    lines = tuple(line for line in state["knockout_own"].splitlines() if line.strip()) if own else ()
    try:
        pins = tuple(name for name in parse_pins(state["knockout_pins"]).split(",") if name)
        if own and not lines and ":mean" in state[LIST]:
            raise InputError("There are no reference prompts", fix="Type at least 8, one per line")
        return KnockoutInputs(
            prompt=asked.prompt,
            interventions=state[LIST],
            answer=state["answer"] or None,
            distractor=state["distractor"] or None,
            second_prompt=state["second_prompt"] or None if ":resample" in state[LIST] else None,
            reference="general" if own else state["knockout_reference"],
            reference_prompts=lines,
            pinned_heads=pins,
            continuation=state["knockout_steps"],
            bos=asked.bos,  # type: ignore[arg-type]  # one of the header's three words
        )
    except BadValue as problem:
        st.warning(plain(f"The heads to show are “{state['knockout_pins']}”, {problem}."))
    except InputError as error:
        st.warning(plain(str(error)), icon=":material/warning:")
    return None


def _seconds(asked: Asked, interventions: tuple[Intervention, ...]) -> float | None:
    """Three passes and the continuations, which read a token per step from their cache."""
    passes = 3.0 + (16.0 if any(one.needs_mean for one in interventions) else 0.0)
    return pass_seconds(asked, passes=passes + 2.0)


def _run(model: LoadedModel, inputs: Any, *, on_step: Any) -> KnockoutResult:
    """Runs on the worker thread."""
    from mi_core.analyses import knockout

    return knockout(model, inputs, on_step=on_step)
