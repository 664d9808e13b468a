"""The tabs Planning and Steer of the features page: the library's numbers, presets, sentences."""

from collections.abc import Callable

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from mi_core.transcoders import (
    FeatureGenerationInputs,
    FeatureRoutingInputs,
    PlanningInputs,
    feature_generation,
    feature_routing,
    planning,
)
from mi_core.transcoders.planning_presets import PRESETS
from pages.shared.session import default_spec, hub
from tests.page_runs import until_idle
from tests.pages.conftest import assert_sound, settle, texts

PROMPT = "The capital city of France is"


def resident():
    model = hub().resident(default_spec())
    assert model is not None
    return model


def opened(frame: Callable[..., AppTest], *slots: str, **link: str) -> AppTest:
    """The tab, drawn twice: the second run must find what the first one left."""
    session = frame("features", **{"prompt": PROMPT, "ft_tab": "planning", **link})
    for slot in slots:
        settle(session, slot)
    session.run()
    assert_sound(session)
    return session


def test_the_tab_shows_the_librarys_numbers(frame: Callable[..., AppTest]) -> None:
    session = opened(
        frame, "planning", "feature_routing", target=" Rome", vs=" Paris", fp_up="L0F5, L1F7", fp_down="L2F9",
        fp_s="4", fp_grid="1, 4", fp_n="2",
    )  # fmt: skip
    inputs = PlanningInputs(
        PROMPT, inject="L0F5, L1F7", suppress="L2F9", answer=" Rome", distractor=" Paris", strength=4.0,
        strengths=(1.0, 4.0), controls=2,
    )  # fmt: skip
    result = session.session_state["_run_planning"].result
    assert result.inputs == inputs
    np.testing.assert_allclose(result.values, planning(resident(), inputs).values, atol=1e-5)
    routing = session.session_state["_run_feature_routing"].result
    best = int(np.nanargmax(result.line("probability")[:-1]))
    assert routing.position == result.positions[best]
    asked = FeatureRoutingInputs(
        PROMPT, inject="L0F5, L1F7", suppress="L2F9", position=routing.position, strength=4.0,
        strengths=routing.inputs.strengths, controls=2,
    )  # fmt: skip
    np.testing.assert_allclose(routing.after, feature_routing(resident(), asked).after, atol=1e-5)
    assert len(session.get("vega_lite_chart")) >= 7


def test_a_preset_picks_its_features_and_fills_everything(frame: Callable[..., AppTest]) -> None:
    session = opened(frame)
    session.button(key="planning_load").click().run()
    for slot in ("planning_pick_up", "planning_pick_down", "planning"):
        settle(session, slot)
    session.run()
    assert_sound(session)
    preset = next(iter(PRESETS.values()))
    result = session.session_state["_run_planning"].result
    assert result.inputs.prompt == preset.prompt
    assert result.inputs.answer == preset.answer
    assert result.inputs.strength == preset.strength
    assert result.positions[result.best] < result.output
    session.button(key="planning_keep").click().run()
    assert session.session_state["planning_source"] == "named"
    assert session.session_state["planning_inject"] == result.inputs.inject


def test_a_push_goes_on_to_the_other_tabs(frame: Callable[..., AppTest]) -> None:
    link = {"fp_up": "L0F5", "fp_down": "L2F9", "fp_s": "4", "fp_n": "0", "target": " Rome"}
    session = opened(frame, "planning", **link)
    result = session.session_state["_run_planning"].result
    at = result.positions[result.best]
    session.button(key="planning_to_inject").click().run()
    listed = session.session_state["feature_edits"].replace(" ", "")
    assert listed == f"L2F9@{at}:suppress=4,L0F5@{at}:add=4"
    assert session.session_state["features_tabs"] == "Intervene"
    session = opened(frame, "planning", **link)
    session.button(key="planning_to_steer").click().run()
    assert session.session_state["steer_features"] == "L2F9:suppress=4, L0F5:add=4"
    settle(session, "feature_generation")
    assert not session.exception


def test_a_preset_of_another_model_says_so(frame: Callable[..., AppTest]) -> None:
    session = opened(frame)
    session.selectbox(key="_planning_preset").select("llama-524k").run()
    assert "meta-llama/Llama-3.2-1B" in texts(session)
    assert_sound(session)


@pytest.mark.parametrize(
    ("link", "said"),
    [
        ({}, "Name features"),
        ({"fp_up": "hello"}, "names no feature"),
        ({"fp_up": "L0F5", "fp_down": "L0F5"}, "injected and suppressed"),
        ({"fp_up": "L99F5"}, "no features in layer 99"),
        ({"fp_up": "L0F5", "fp_grid": "1, x"}, "cannot be read"),
        ({"fp_by": "pick"}, "second prompt"),
    ],
)
def test_settings_that_cannot_be_used_are_sentences(
    frame: Callable[..., AppTest], link: dict[str, str], said: str
) -> None:
    session = frame("features", **{"prompt": PROMPT, "ft_tab": "planning", **link})
    until_idle(session, ["planning"])
    assert not session.exception
    shown = [*(one.value for one in session.error), *(one.value for one in session.info)]
    assert said in texts(session) + " ".join(shown)


def test_clicks_choose_token_and_strength(frame: Callable[..., AppTest]) -> None:
    opened(frame)
    result = planning(resident(), PlanningInputs(PROMPT, inject="L0F5", strengths=(1.0, 2.0), controls=0))

    def script() -> None:
        import streamlit as st

        from pages.shared.feature_planning import _choose_cell, _choose_token

        _choose_token({"series": "total", "x": 3})
        st.session_state["after_line"] = st.session_state["routing_position"]
        _choose_cell(st.session_state["result"], {"strength": 1, "position": 2})
        _choose_cell(st.session_state["result"], {"strength": 99, "position": "x"})

    session = AppTest.from_function(script)
    session.session_state["result"] = result
    session.run()
    assert not session.exception
    assert session.session_state["after_line"] == 3
    assert session.session_state["routing_position"] == 2
    assert session.session_state["planning_strength"] == 2.0


def test_steering_by_several_features_shows_the_librarys_texts(frame: Callable[..., AppTest]) -> None:
    pushes = "L0F5:add=20, L1F7:suppress=3"
    session = opened(frame, "feature_generation", ft_tab="steer", fg_f=pushes, fg_n="5")
    result = session.session_state["_run_feature_generation"].result
    inputs = FeatureGenerationInputs(PROMPT, features=pushes, steps=5)
    assert result.inputs == inputs
    np.testing.assert_array_equal(result.edited_ids, feature_generation(resident(), inputs).edited_ids)
    assert len(session.get("vega_lite_chart")) >= 2


def test_features_are_set_while_the_text_grows(frame: Callable[..., AppTest]) -> None:
    edits = "L0F5:set=20, L1F7:ablate"
    session = opened(frame, "feature_generation", ft_tab="steer", fg_f=edits, fg_n="5")
    result = session.session_state["_run_feature_generation"].result
    assert result.held == ("L0F5@all:set=20", "L1F7@all:ablate")
    assert all(check.passed for check in result.checks)
    assert "What the held features were" in texts(session)
    assert len(session.get("vega_lite_chart")) >= 3


def test_pinned_and_selected_features_are_added_once(frame: Callable[..., AppTest]) -> None:
    session = opened(frame, ft_tab="steer", ft_pins="L0F5,L1F7", layer="2", feature="9")
    session.button(key="steer_add_pins").click().run()
    session.button(key="steer_add").click().run()
    session.button(key="steer_add_pins").click().run()
    settle(session, "feature_generation")
    session.run()
    assert_sound(session)
    assert session.session_state["steer_features"] == "L0F5:add=5, L1F7:add=5, L2F9:add=5"


@pytest.mark.parametrize(
    ("pushes", "said"), [("L0F5@2:set=3", "names tokens"), ("x", "no edit"), ("L0F99999:add=1", "no feature")]
)
def test_pushes_that_cannot_be_used_are_sentences(
    frame: Callable[..., AppTest], pushes: str, said: str
) -> None:
    session = frame("features", prompt=PROMPT, ft_tab="steer", fg_f=pushes)
    until_idle(session, ["feature_generation"])
    assert not session.exception
    assert said in texts(session) + " ".join(one.value for one in session.error)


def test_the_steering_page_takes_a_feature(frame: Callable[..., AppTest]) -> None:
    session = frame(
        "steering", prompt=PROMPT, target=" Rome", st_from="feature", st_feat="L0F5", st_layer="2"
    )
    settle(session, "steering_feature")
    session.run()
    settle(session, "steering_dose")
    session.run()
    assert_sound(session)
    result = session.session_state["_run_steering_dose"].result
    assert result.inputs.source == "feature"
    assert "L0F5" in result.made
