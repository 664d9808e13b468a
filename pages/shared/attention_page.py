"""The attention of the header's prompt: settings into inputs, the grid of heads, and one head large."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import streamlit as st

from mi_core.analyses.attention_inputs import HEAD_METRICS, SHOW_INFO, SHOWS, WINDOW, AttentionInputs
from mi_core.errors import InputError
from pages.shared.attention_fields import SCALES, SIDES, SORTS
from pages.shared.attention_head import draw_head
from pages.shared.attention_tiles import draw_tiles, shown_head
from pages.shared.instant import (
    Asked,
    draw_warnings,
    instant,
    page_state,
    pass_seconds,
    prompt_inputs,
    second_prompt_inputs,
)
from pages.shared.selection import selection
from pages.shared.session import hub
from pages.shared.text import plain

if TYPE_CHECKING:
    from mi_core.analyses.attention_result import AttentionResult
    from mi_core.model.model import LoadedModel
    from pages.shared.hub import About

SLOT = "attention"


def draw_prompt_tab() -> None:
    """The tab of the header's prompt."""
    asked = prompt_inputs()
    if not page_state(asked) or asked.about is None or not attention_there(asked.about):
        return
    second = _second(asked)
    _draw_settings(compared=second is not None)
    inputs, problem = _inputs(asked, second)
    if inputs is None:
        st.warning(plain(problem), icon=":material/warning:")
        return
    result: AttentionResult | None = instant(
        SLOT,
        inputs,
        _run,
        "Attention",
        about=asked.about,
        seconds=pass_seconds(asked, passes=2.0 if second is None else 4.0),
    )
    if result is None:
        return
    draw_warnings(result)
    head = shown_head(result)
    draw_tiles(result, head)
    draw_head(result, head)


def attention_there(about: About) -> bool:
    """Whether the model's attention can be looked into; if not, the reason is drawn."""
    model = hub().resident(about.spec)
    reason = "" if model is None else model.structure.missing.get("pattern", "")
    if not reason:
        return True
    st.error(
        f"The attention of this model cannot be looked into: {plain(reason)}. Its other pages work.",
        icon=":material/visibility_off:",
    )
    if about.spec.attention != "eager":
        st.button(
            "Reload with plain attention (eager)",
            icon=":material/refresh:",
            key="attention_eager",
            on_click=_choose_eager,
            help="Some kernels do not show their weights. The plain one is slower and does.",
        )
    return False


def _choose_eager() -> None:
    st.session_state["attention"] = "eager"


def _second(asked: Asked) -> Asked | None:
    """The second prompt, if it can be compared; why it cannot is said."""
    second = second_prompt_inputs()
    if second is None or second.tokens is None or asked.tokens is None:
        return None
    if len(second.tokens) != len(asked.tokens):
        st.info(
            "Only A is shown: patterns can be compared when both prompts have as many tokens. The two lines "
            "above show where they differ.",
            icon=":material/straighten:",
        )
        return None
    return second


def _inputs(asked: Asked, second: Asked | None) -> tuple[AttentionInputs | None, str]:
    from mi_core.analyses import window_around

    state = st.session_state
    length = 0 if asked.tokens is None else len(asked.tokens)
    try:
        return AttentionInputs(
            prompt=asked.prompt,
            second_prompt=None if second is None else second.prompt,
            show=state["attention_show"],
            answer=(state["answer"].strip() and state["answer"]) or None,
            distractor=(state["distractor"].strip() and state["distractor"]) or None,
            bos=state["bos"],
            window_start=window_around(length, selection().position, WINDOW),
        ), ""
    except InputError as error:
        return None, str(error)


def _run(model: LoadedModel, inputs: AttentionInputs, *, on_step: Any) -> AttentionResult:
    from mi_core.analyses import attention_patterns

    return attention_patterns(model, inputs, on_step=on_step)


def _draw_settings(*, compared: bool) -> None:
    with st.container(horizontal=True, gap="medium", vertical_alignment="bottom", key="attention_settings"):
        st.segmented_control(
            "Show", list(SHOWS), format_func=lambda show: SHOW_INFO[show].label, key="attention_show",
            required=True, help=" ".join(f"**{info.label}.** {info.meaning}" for info in SHOW_INFO.values()),
        )  # fmt: skip
        if compared:
            st.segmented_control(
                "Prompt", list(SIDES), format_func=SIDES.__getitem__, key="attention_side", required=True,
                help="A and B have one scale. The difference is A minus B, cell by cell.",
            )  # fmt: skip
        elif st.session_state["attention_side"] != "a":
            st.session_state["attention_side"] = "a"
        st.checkbox(
            "Mask the first token", key="attention_mask",
            help="Many heads rest on position 0 (the BOS token). Masked, it is left out as a key, of the "
            "colour scales and of the numbers per head too; the rest is not renormalised.",
        )  # fmt: skip
    with st.container(horizontal=True, gap="medium", vertical_alignment="bottom", key="attention_grid_row"):
        st.selectbox(
            "Shade heads by", [metric.name for metric in HEAD_METRICS], key="attention_shade", width=190,
            format_func={metric.name: metric.label for metric in HEAD_METRICS}.__getitem__,
            help=" ".join(f"**{metric.label}**: {metric.meaning}" for metric in HEAD_METRICS),
        )  # fmt: skip
        st.segmented_control(
            "Order", list(SORTS), format_func=SORTS.__getitem__, key="attention_sort", required=True
        )
        st.number_input(
            "Strongest only", min_value=0, max_value=100_000, key="attention_top", width=140,
            help="Show only this many heads, those with the largest number; 0 = all.",
        )  # fmt: skip
        st.segmented_control(
            "Colours of the pictures", list(SCALES), format_func=SCALES.__getitem__, key="attention_scale",
            required=True, help="Per head: every picture reaches its own strongest cell. One for all: "
            "pictures can be compared.",
        )  # fmt: skip
