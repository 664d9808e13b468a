"""The counting tab of the steering page: asks, draws every layer of one run, tells mistakes."""

from collections.abc import Callable

from streamlit.testing.v1 import AppTest

from tests.pages.conftest import assert_sound, settle, texts

SHORT = {
    "st_tab": "counting",
    "hx_from": "20",
    "hx_to": "40",
    "hx_step": "20",
    "hx_max": "30",
    "hx_least": "3",
    "hx_tokens": "100",
}


def test_it_asks_then_draws_and_another_layer_needs_no_new_run(frame: Callable[..., AppTest]) -> None:
    session = frame("steering", **SHORT)
    assert_sound(session)
    settle(session, "character_helix")
    session.run()
    assert_sound(session)
    result = session.session_state["_run_character_helix"].result
    assert result.inputs.widths == (20, 40)
    assert len(session.get("vega_lite_chart")) == 4
    assert f"in layer {result.n_layers // 2}" in texts(session)
    session.selectbox(key="selected_layer").select(1).run()
    assert_sound(session)
    assert session.session_state["_run_character_helix"].result is result
    assert "The path of the count in layer 1, PC1 and PC2" in texts(session)


def test_widths_turned_round_are_told(frame: Callable[..., AppTest]) -> None:
    session = frame("steering", **{**SHORT, "hx_from": "90"})
    assert_sound(session)
    assert "The narrowest line is wider than the widest" in texts(session)


def test_a_file_is_asked_for(frame: Callable[..., AppTest]) -> None:
    session = frame("steering", **{**SHORT, "hx_set": "file"})
    assert_sound(session)
    assert "Choose a file" in texts(session)
