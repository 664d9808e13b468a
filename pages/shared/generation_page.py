"""The generation tab of the Steering page: settings into inputs, both texts side by side, KL per step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import streamlit as st

from mi_core.analyses.generation_inputs import MAX_COEFFICIENT, MAX_STEPS, GenerationInputs
from mi_core.errors import LanternError
from pages.shared.boundary import show_error
from pages.shared.generation_fields import WHERES, parse_seeds
from pages.shared.generation_loop import draw_loop
from pages.shared.generation_text import GENERATION_FORMULA
from pages.shared.instant import draw_warnings, instant, page_state, pass_seconds, prompt_inputs
from pages.shared.link import BadValue
from pages.shared.text import plain

if TYPE_CHECKING:
    from mi_core.analyses import GenerationResult
    from mi_core.model.model import LoadedModel
    from pages.shared.hub import About
    from pages.shared.instant import Asked

SLOT = "generation"


def draw_generation() -> None:
    """The tab below its title."""
    asked = prompt_inputs()
    st.markdown(
        "Let the model continue the prompt twice: as it is, and while it is edited at every step. Cut or "
        "scale parts of it, steer it with the difference of two texts, or both."
    )
    _draw_edits()
    _draw_sampling()
    if not page_state(asked) or asked.about is None:
        return
    _draw_pair(asked, asked.about)
    draw_loop(asked)


def _draw_pair(asked: Asked, about: About) -> None:
    """Both texts of the header's prompt."""
    try:
        inputs = _inputs(asked)
    except LanternError as error:
        show_error(error)
        return
    except BadValue as problem:
        st.warning(
            f"Seeds: {plain(st.session_state['generation_seeds'])}, {problem}.", icon=":material/warning:"
        )
        return
    if not inputs.interventions.strip() and not inputs.plus:
        st.info(
            "Nothing is edited yet. Name an intervention, such as `L1H2:zero`, or give steering texts.",
            icon=":material/edit:",
        )
        return
    result: GenerationResult | None = instant(
        SLOT, inputs, _run, "Generation", about=about, seconds=_seconds(asked, inputs),
        draw_partial=_draw_figures,
    )  # fmt: skip
    if result is not None:
        draw_warnings(result)
        _draw_figures(result)


def _draw_edits() -> None:
    with st.container(border=True, key="generation_edits"):
        with st.container(horizontal=True, gap="small", vertical_alignment="bottom"):
            st.text_input(
                "Interventions",
                key="generation_interventions",
                placeholder="L1H2:zero, c2@all, e3-1@L0",
                help="A list as on the Knock-out page: heads, layers, neurons, edges, rows and columns.",
            )
            st.button(
                "Take the knock-out list",
                icon=":material/content_copy:",
                key="generation_take",
                disabled=not st.session_state.get("interventions"),
                on_click=_take_list,
                help="Copies the list of the Knock-out page.",
            )
        with st.container(horizontal=True, gap="small", vertical_alignment="bottom"):
            st.text_area(
                "Steer towards",
                key="generation_plus",
                height=100,
                help="A text, or several, one per line; the mean of their last tokens' states is the goal.",
            )
            st.text_area(
                "and away from", key="generation_minus", height=100, help="Texts of the opposite kind."
            )
        with st.container(horizontal=True, gap="small", vertical_alignment="bottom"):
            st.button(
                "Take the prompt sets of the first tab",
                icon=":material/content_copy:",
                key="generation_take_sets",
                on_click=_take_sets,
                help="Copies the two sets of prompts and the layer from Vector and dose.",
            )
            st.number_input(
                "Layer",
                min_value=0,
                max_value=10_000,
                key="generation_layer",
                placeholder="middle",
                width=110,
                help="The stream after this layer is steered; empty = the middle layer.",
            )
            st.number_input(
                "Coefficient",
                min_value=-MAX_COEFFICIENT,
                max_value=MAX_COEFFICIENT,
                step=0.5,
                key="generation_coefficient",
                width=130,
            )
            st.selectbox(
                "Act on", list(WHERES), format_func=WHERES.__getitem__, key="generation_where", width=170
            )


def _take_list() -> None:
    st.session_state["generation_interventions"] = st.session_state["interventions"]


def _take_sets() -> None:
    state = st.session_state
    state["generation_plus"], state["generation_minus"] = (
        state["steering_positive"],
        state["steering_negative"],
    )
    state["generation_layer"] = state["steering_layer"]


def _draw_sampling() -> None:
    with st.container(horizontal=True, gap="small", vertical_alignment="bottom", key="generation_sampling"):
        st.number_input("Tokens", min_value=1, max_value=MAX_STEPS, key="generation_steps", width=110)
        st.number_input(
            "Temperature",
            min_value=0.0,
            max_value=100.0,
            step=0.1,
            key="generation_temperature",
            width=130,
            help="0 = greedy: always the likeliest token.",
        )
        drawn = st.session_state["generation_temperature"] > 0
        st.number_input(
            "top_p",
            min_value=0.01,
            max_value=1.0,
            step=0.05,
            key="generation_top_p",
            width=110,
            disabled=not drawn,
        )
        st.text_input(
            "Seeds",
            key="generation_seeds",
            width=140,
            disabled=not drawn,
            help="One pair of texts for each. Only a temperature above 0 draws anything.",
        )
        st.checkbox("Stop at the end of the text", key="generation_stop")


def _inputs(asked: Asked) -> GenerationInputs:
    state = st.session_state
    drawn = state["generation_temperature"] > 0
    return GenerationInputs(
        prompt=asked.prompt,
        interventions=state["generation_interventions"],
        plus=state["generation_plus"],
        minus=state["generation_minus"],
        layer=state["generation_layer"],
        coefficient=state["generation_coefficient"],
        where=state["generation_where"],
        second_prompt=state["second_prompt"] or "",
        steps=state["generation_steps"],
        temperature=state["generation_temperature"],
        top_p=state["generation_top_p"] if drawn else 1.0,
        seeds=parse_seeds(state["generation_seeds"]) if drawn else (0,),
        stop_at_end=state["generation_stop"],
        bos=asked.bos,  # type: ignore[arg-type]  # the header offers nothing else
    )


def _run(model: LoadedModel, inputs: GenerationInputs, *, on_step: Any) -> GenerationResult:
    """Runs on the worker thread."""
    from mi_core.analyses import generation

    return generation(model, inputs, on_step=on_step)


def _seconds(asked: Asked, inputs: GenerationInputs) -> float | None:
    """Token by token, every step costs as a small pass does."""
    tokens = 0 if asked.tokens is None else len(asked.tokens)
    one = pass_seconds(asked)
    return None if one is None else one * len(inputs.used_seeds) * (4 + 8 * inputs.steps / max(1, tokens))


def _draw_figures(result: GenerationResult) -> None:
    from mi_core.exports.generation import kl_figure, texts_figure
    from pages.shared.figure_card import figure_card

    for row, seed in enumerate(result.seeds):
        if len(result.seeds) > 1:
            st.markdown(f"**Seed {seed}**")
        figure_card(f"generation_{row}", texts_figure(result, row), formula=GENERATION_FORMULA)
    figure_card("generation_kl", kl_figure(result), formula=GENERATION_FORMULA)
