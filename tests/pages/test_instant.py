"""Pages that only look: no button unless it takes long; errors and stopped runs can be tried again."""

from collections.abc import Callable

import pytest
from streamlit.testing.v1 import AppTest

from mi_core.errors import Cancelled, InputError
from pages.shared import attribution_page, instant, running
from pages.shared.session import hub
from tests.pages.conftest import assert_sound, settle, texts

SLOT = attribution_page.SLOT
PROMPT = "The Colosseum is located in the city of"


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The inputs that were really computed, in order."""
    seen: list[object] = []
    own = attribution_page._run

    def counted(model, inputs, *, on_step):
        seen.append(inputs)
        return own(model, inputs, on_step=on_step)

    monkeypatch.setattr(attribution_page, "_run", counted)
    hub().results.clear()
    return seen


def run_of(session: AppTest) -> running.Run:
    return session.session_state[f"_run_{SLOT}"]


def test_a_result_is_there_without_a_button_and_is_computed_once(
    frame: Callable[..., AppTest], computed: list[object]
) -> None:
    session = frame("attribution", prompt=PROMPT)
    settle(session, SLOT)
    first = run_of(session).result
    session.run()
    assert run_of(session).result is first
    other = frame("attribution", prompt=PROMPT)  # another tab
    settle(other, SLOT)
    assert run_of(other).result is first
    assert len(computed) == 1
    session.text_input(key="prompt").set_value(f"{PROMPT} the").run()
    settle(session, SLOT)
    assert run_of(session).result.inputs.prompt == f"{PROMPT} the"
    session.text_input(key="prompt").set_value(PROMPT).run()
    assert run_of(session).result is first
    assert len(computed) == 2
    assert_sound(session)


def test_what_takes_long_says_its_cost_and_waits(
    frame: Callable[..., AppTest], computed: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(instant, "AUTOMATIC_SECONDS", 1e-9)
    session = frame("attribution", prompt=PROMPT)
    assert f"_run_{SLOT}" not in session.session_state
    assert "Attribution: about" in texts(session)
    assert computed == []
    session.button(key=f"start_{SLOT}").click().run()
    settle(session, SLOT)
    assert len(computed) == 1
    assert run_of(session).result is not None
    assert_sound(session)


def test_an_error_is_told_and_can_be_tried_again(
    frame: Callable[..., AppTest], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub().results.clear()
    own, answers = attribution_page._run, [InputError("Not today", fix="Come back")]

    def moody(model, inputs, *, on_step):
        if answers:
            raise answers.pop()
        return own(model, inputs, on_step=on_step)

    monkeypatch.setattr(attribution_page, "_run", moody)
    session = frame("attribution", prompt=PROMPT)
    settle(session, SLOT)
    assert any("Not today" in error.value for error in session.error)
    session.button(key=f"again_{SLOT}").click().run()
    settle(session, SLOT)
    assert run_of(session).result is not None
    assert not session.error


def test_a_stopped_run_can_be_started_again(
    frame: Callable[..., AppTest], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub().results.clear()
    own, stops = attribution_page._run, [Cancelled()]

    def stopped(model, inputs, *, on_step):
        if stops:
            raise stops.pop()
        return own(model, inputs, on_step=on_step)

    monkeypatch.setattr(attribution_page, "_run", stopped)
    session = frame("attribution", prompt=PROMPT)
    settle(session, SLOT)
    assert any("stopped" in info.value for info in session.info)
    session.button(key=f"again_{SLOT}").click().run()
    settle(session, SLOT)
    assert run_of(session).result is not None


def test_a_click_on_a_token_chooses_it_and_a_second_click_lets_go(frame: Callable[..., AppTest]) -> None:
    session = frame("attribution", prompt=PROMPT, pos="3")
    assert "looking at token 3" in texts(session)
    session.session_state["selected_position"] = 99
    session.run()
    assert "token 99 is chosen, the prompt ends at" in texts(session)
    session.session_state["selected_position"] = None
    session.run()
    assert "click a token to look at it" in texts(session)


def test_a_second_prompt_is_opened_and_closed_by_a_switch(frame: Callable[..., AppTest]) -> None:
    session = frame("attribution", prompt=PROMPT)
    assert not [box for box in session.text_input if box.key == "second_prompt"]
    session.button(key="compare_on").click().run()
    session.text_input(key="second_prompt").set_value("The Louvre is").run()
    assert_sound(session)
    assert session.query_params["b"] == "The Louvre is"
    session.button(key="compare_off").click().run()
    assert "b" not in session.query_params
    assert not [box for box in session.text_input if box.key == "second_prompt"]
