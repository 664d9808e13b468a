"""The logit-lens page: instant, its numbers are the library's, a link opens a cell, and mistakes are told."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
from streamlit.testing.v1 import AppTest

from mi_core.analyses import LogitLensInputs, LogitLensResult, PredictionSweepResult, logit_lens
from pages.shared.session import default_spec, hub
from tests.pages.conftest import assert_sound, settle, texts

PROMPT = "The Louvre Museum is located in the city of"


def open_lens(frame: Callable[..., AppTest], **link: str) -> AppTest:
    session = frame("logit_lens", **{"prompt": PROMPT, **link})
    for slot in ("logit_lens", "logit_lens_steps"):
        settle(session, slot)
    assert_sound(session)
    return session


def lens_of(session: AppTest) -> LogitLensResult:
    return session.session_state["_run_logit_lens"].result


def specs(session: AppTest) -> list[dict[str, Any]]:
    return [json.loads(chart.proto.spec) for chart in session.get("vega_lite_chart")]


def test_the_page_shows_the_librarys_numbers_without_a_button(frame: Callable[..., AppTest]) -> None:
    session = open_lens(frame, ll_words="Rome, London")
    model = hub().resident(default_spec())
    assert model is not None
    again = logit_lens(model, LogitLensInputs(PROMPT, tracked=("Rome", "London")))
    result = lens_of(session)
    np.testing.assert_allclose(result.kl, again.kl, atol=1e-5)
    assert [word.visible for word in result.words][1:] == ["·Rome", "·London"]
    assert len(specs(session)) == 3  # grid, words, attention against MLP
    assert "Click a cell" in texts(session)
    session.run()
    assert_sound(session)
    assert lens_of(session) is result, "a rerun computes nothing"


def test_the_link_opens_a_cell(frame: Callable[..., AppTest]) -> None:
    session = open_lens(frame, layer="3", pos="8", ll_stat="kl", ll_site="resid_mid")
    result = lens_of(session)
    assert result.inputs.site == "resid_mid"
    shown = texts(session).replace("\\", "")
    assert f"Layer 3 at 8 {result.tokens[8].visible}: top tokens" in shown
    assert "KL(final || lens)" in shown
    assert len(specs(session)) == 4
    assert session.session_state["_run_logit_lens_steps"].result.position == 8
    session.button(key="close_lens_cell").click().run()
    assert session.session_state["selected_layer"] is None
    assert "Click a cell" in texts(session)


def test_colour_and_lines_need_no_new_run(frame: Callable[..., AppTest]) -> None:
    session = open_lens(frame)
    result = lens_of(session)
    for statistic in ("rank", "entropy", "kl", "top_probability", "log_probability"):
        session.selectbox(key="lens_statistic").set_value(statistic).run()
        assert_sound(session)
    for measure in ("probability", "log_probability"):
        session.session_state["lens_measure"] = measure
        session.run()
        assert_sound(session)
    assert lens_of(session) is result


def test_a_click_is_a_selection_that_all_pages_share(frame: Callable[..., AppTest]) -> None:
    session = open_lens(frame)

    def script() -> None:
        import streamlit as st

        from pages.shared.lens_view import choose_cell
        from pages.shared.selection import selection

        st.session_state["selected_head"] = 2
        choose_cell({"kind": "lens", "layer": 4, "position": 7})
        choose_cell({"kind": "lens"})
        now = selection()
        st.text(f"{now.layer} {now.position} {now.head}")

    tried = AppTest.from_function(script).run()
    assert tried.text[0].value == "4 7 2"
    session.session_state["selected_layer"] = 4
    session.session_state["selected_position"] = 7
    session.run()
    assert "Layer 4 at 7" in texts(session).replace("\\", "")


def test_a_layer_that_is_not_there_is_told(frame: Callable[..., AppTest]) -> None:
    session = open_lens(frame, layer="99")
    assert any("layer 99 is not there" in element.value for element in session.warning)
    session = open_lens(frame, layer="2", ll_every="4")
    assert lens_of(session).layers == (3, 7)
    assert any("left out by the stride" in element.value for element in session.warning)


def test_a_long_prompt_shows_a_window_that_follows_the_selection(frame: Callable[..., AppTest]) -> None:
    long = "The Eiffel Tower is located in the city of Paris. " * 15
    session = open_lens(frame, prompt=long.strip(), pos="20")
    result = lens_of(session)
    assert len(result.tokens) > 100
    assert len(result.positions) == 24
    assert 20 in result.positions
    assert f"{result.positions[0]} to {result.positions[-1]} are shown" in texts(session)


def test_mistakes_are_told_and_nothing_breaks(frame: Callable[..., AppTest]) -> None:
    empty = frame("logit_lens", prompt="")
    assert_sound(empty)
    assert any("Type a prompt" in element.value for element in empty.info)
    many = frame("logit_lens", prompt=PROMPT, ll_words=",".join("abcdefghi"))
    assert_sound(many)
    assert any("at most 8" in element.value for element in many.error)
    bad = frame("logit_lens", prompt=PROMPT, ll_site="q", ll_stat="beauty")
    assert_sound(bad)
    assert bad.session_state["lens_site"] == "resid_post"
    stranger = frame("logit_lens", prompt=PROMPT, ll_lens="no such lens")
    settle(stranger, "logit_lensmissing")
    assert_sound(stranger)
    assert stranger.error


def test_nasty_prompts(frame: Callable[..., AppTest]) -> None:
    for prompt in ("a", "\N{GRINNING FACE} \u6771\u4eac <b>`$x$`</b>", "the the the the"):
        session = open_lens(frame, prompt=prompt, layer="1", pos="0")
        assert lens_of(session).positions[0] == 0
        assert len(specs(session)) == 4


def sweep_of(session: AppTest) -> PredictionSweepResult:
    settle(session, "prediction_sweep")
    assert_sound(session)
    return session.session_state["_run_prediction_sweep"].result


def test_the_sweep_of_the_facts(frame: Callable[..., AppTest]) -> None:
    session = frame("logit_lens", ll_tab="set", ll_n="30", layer="3", ll_case="7", ll_col="5")
    result = sweep_of(session)
    assert result.n_prompts == 30
    assert result.n_stable == 30, "Atlas knows its facts"
    assert len(specs(session)) == 2
    shown = texts(session)
    assert "Prompt 7" in shown
    session.button(key="open_case").click().run()
    settle(session, "logit_lens")
    assert_sound(session)
    assert session.session_state["prompt"] == result.inputs.cases[7].prompt
    assert lens_of(session).answer.text.strip() == result.inputs.cases[7].answer.strip()


def test_the_sweep_of_five_questions_and_of_no_file(frame: Callable[..., AppTest]) -> None:
    session = frame("logit_lens", ll_tab="set", ll_set="five")
    result = sweep_of(session)
    assert result.n_prompts == 5
    nothing = frame("logit_lens", ll_tab="set", ll_set="file")
    assert_sound(nothing)
    assert any("Choose or upload" in element.value for element in nothing.info)


def test_the_tuned_tab_is_there(frame: Callable[..., AppTest]) -> None:
    session = frame("logit_lens", ll_tab="tuned")
    assert_sound(session)
