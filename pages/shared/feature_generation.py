"""The tab Steer: several features edited at once while the text is continued, default and steered text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import streamlit as st

from mi_core.analyses.generation_inputs import MAX_STEPS
from mi_core.errors import InputError
from mi_core.transcoders.feature_generation_inputs import FeatureGenerationInputs
from pages.shared.feature_generation_fields import HOWS
from pages.shared.feature_generation_text import STEER_FORMULA
from pages.shared.features_page import FeaturesAsked, chosen_feature, features_asked, pins
from pages.shared.figure_card import figure_card
from pages.shared.generation_fields import WHERES, parse_seeds
from pages.shared.instant import draw_warnings, instant, pass_seconds
from pages.shared.link import BadValue
from pages.shared.text import plain

if TYPE_CHECKING:
    from mi_core.model.model import LoadedModel
    from mi_core.transcoders.feature_generation_result import FeatureGenerationResult
    from mi_core.transcoders.names import Feature

SLOT = "feature_generation"


def draw_feature_generation_tab() -> None:
    """The tab."""
    st.markdown(
        "Let the model continue the prompt twice: as it is, and with features pushed or held at a value at "
        "every step, as many at once as you like."
    )
    _draw_list()
    _draw_sampling()
    asked = features_asked()
    if asked is None or asked.asked.about is None:
        return
    try:
        inputs = _inputs(asked)
    except InputError as error:
        st.error(plain(str(error)), icon=":material/error:")
        return
    except BadValue as problem:
        seeds = plain(st.session_state["steer_seeds"])
        st.warning(f"Seeds: {seeds}, {problem}.", icon=":material/warning:")
        return
    if not inputs.edits:
        st.info(
            "No feature is edited yet. Write edits such as `L5F102:add=5`, or add the selected or the "
            "pinned features.",
            icon=":material/edit:",
        )
        return
    result: FeatureGenerationResult | None = instant(
        SLOT, inputs, _run, "Steering by features", about=asked.asked.about, seconds=_seconds(asked, inputs),
        draw_partial=_draw_figures,
    )  # fmt: skip
    if result is not None:
        draw_warnings(result)
        _draw_figures(result)


def _draw_list() -> None:
    selected, pinned = chosen_feature(), pins()
    with st.container(border=True, key="steer_list"):
        st.text_input(
            "Edits of features", key="steer_features",
            placeholder="e.g. L5F102:add=5, L3F7:suppress=2, L2F9:set=4",
            help="add = so many times what the feature writes for an activation of 1, whether or not it is "
            "active; suppress = the same taken away. set = the activation becomes this at every token, scale "
            "= so many times what it is, ablate = 0: these read the feature anew at every token. All act "
            "together.",
        )  # fmt: skip
        with st.container(horizontal=True, gap="small", vertical_alignment="bottom"):
            st.selectbox(
                "How", list(HOWS), format_func=HOWS.__getitem__, key="steer_how", width=110,
                help="What the buttons beside this do to a feature.",
            )  # fmt: skip
            st.number_input(
                "Value", -1e6, 1e6, key="steer_amount", width=120, format="%g",
                help="Of the buttons beside this. 1 = what a feature writes for an activation of 1.",
            )  # fmt: skip
            st.button(
                "Add the selected feature" if selected is None else f"Add {selected.text}",
                icon=":material/add:", key="steer_add", disabled=selected is None, on_click=_add,
                args=((selected,) if selected else (),),
            )  # fmt: skip
            st.button(
                f"Add the pinned features ({len(pinned)})", icon=":material/keep:", key="steer_add_pins",
                disabled=not pinned, on_click=_add, args=(pinned,),
            )  # fmt: skip
            st.selectbox("Act on", list(WHERES), format_func=WHERES.__getitem__, key="steer_where", width=170)


def _add(features: tuple[Feature, ...]) -> None:
    """A callback: more edits with the chosen value; a feature that is listed already stays as it is."""
    state = st.session_state
    amount, listed = float(state["steer_amount"]), state["steer_features"].strip().rstrip(",")
    new = [f"{one.text}:{state['steer_how']}={amount:g}" for one in features if f"{one.text}:" not in listed]
    state["steer_features"] = ", ".join(part for part in (listed, *new) if part)


def _draw_sampling() -> None:
    with st.container(horizontal=True, gap="small", vertical_alignment="bottom", key="steer_sampling"):
        st.number_input("Tokens", min_value=1, max_value=MAX_STEPS, key="steer_steps", width=110)
        st.number_input(
            "Temperature", min_value=0.0, max_value=100.0, step=0.1, key="steer_temperature", width=130,
            help="0 = greedy: always the likeliest token.",
        )  # fmt: skip
        drawn = st.session_state["steer_temperature"] > 0
        st.number_input(
            "top_p", min_value=0.01, max_value=1.0, step=0.05, key="steer_top_p", width=110,
            disabled=not drawn,
        )  # fmt: skip
        st.text_input(
            "Seeds", key="steer_seeds", width=140, disabled=not drawn,
            help="One pair of texts for each. Only a temperature above 0 draws anything.",
        )  # fmt: skip


def _inputs(asked: FeaturesAsked) -> FeatureGenerationInputs:
    state = st.session_state
    drawn = state["steer_temperature"] > 0
    return FeatureGenerationInputs(
        prompt=asked.asked.prompt,
        features=state["steer_features"],
        where=state["steer_where"],
        transcoder=asked.transcoder,
        steps=state["steer_steps"],
        temperature=state["steer_temperature"],
        top_p=state["steer_top_p"] if drawn else 1.0,
        seeds=parse_seeds(state["steer_seeds"]) if drawn else (0,),
        bos=asked.asked.bos,  # type: ignore[arg-type]  # one of the header's three words
    )


def _seconds(asked: FeaturesAsked, inputs: FeatureGenerationInputs) -> float | None:
    """Token by token, every step costs as a small pass does."""
    tokens = 0 if asked.asked.tokens is None else len(asked.asked.tokens)
    one = pass_seconds(asked.asked)
    seeds = len(inputs.plain.used_seeds)
    if one is None:
        return None
    looks = len({edit.feature.layer for edit in inputs.held})  # whole passes per new token, ever longer
    longer = 1 + inputs.steps / max(1, tokens) / 2
    return one * seeds * (5 + 8 * inputs.steps / max(1, tokens) + looks * (2 + inputs.steps * longer))


def _run(model: LoadedModel, inputs: Any, *, on_step: Any) -> FeatureGenerationResult:
    """Runs on the worker thread."""
    from mi_core.transcoders import feature_generation

    return feature_generation(model, inputs, on_step=on_step)


def _draw_figures(result: FeatureGenerationResult) -> None:
    from mi_core.exports.feature_generation import found_figure, pushed_kl_figure, pushed_texts_figure

    formula = STEER_FORMULA
    for row, seed in enumerate(result.texts.seeds):
        if len(result.texts.seeds) > 1:
            st.markdown(f"**Seed {seed}**")
        figure_card(f"steer_{row}", pushed_texts_figure(result, row), formula=formula)
        if result.held and (result.found[row] == result.found[row]).any():  # not NaN
            figure_card(f"steer_found_{row}", found_figure(result, row), formula=formula)
    figure_card("steer_kl", pushed_kl_figure(result), formula=formula)
