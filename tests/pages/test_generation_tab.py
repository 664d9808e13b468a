"""The generation tab of the Steering page: its texts are the library's, mistakes are told."""

from collections.abc import Callable

import numpy as np
from streamlit.testing.v1 import AppTest

from mi_core.analyses import GenerationInputs, RecurrentFeedbackInputs, generation, recurrent_feedback
from pages.shared.generation_fields import FIELDS
from pages.shared.session import default_spec, hub
from tests.page_runs import until_idle
from tests.pages.conftest import assert_sound, settle, texts

PROMPT = "The Louvre Museum is located in the city of"


def opened(frame: Callable[..., AppTest], **link: str) -> AppTest:
    """The tab, drawn twice: the second run must find what the first one left."""
    session = frame("steering", **{"prompt": PROMPT, "st_tab": "generation", **link})
    until_idle(session, ["generation"])
    session.run()
    assert_sound(session)
    return session


def test_the_tab_shows_the_librarys_texts(frame: Callable[..., AppTest]) -> None:
    session = opened(frame, ge_ko="L1H2:zero, c2@all", ge_t="0.8", ge_seeds="0,1", ge_n="8", ge_stop="0")
    model = hub().resident(default_spec())
    assert model is not None
    inputs = GenerationInputs(
        PROMPT, interventions="L1H2:zero, c2@all", temperature=0.8, seeds=(0, 1), steps=8, stop_at_end=False
    )
    result = session.session_state["_run_generation"].result
    assert result.inputs == inputs
    again = generation(model, inputs)
    np.testing.assert_array_equal(result.edited_ids, again.edited_ids)
    np.testing.assert_allclose(result.kl, again.kl, atol=1e-6)
    assert len(session.get("vega_lite_chart")) == 3  # two seeds and KL
    shown = texts(session).replace("\\", "")
    assert "Seed 1" in shown


def test_without_edits_it_says_what_to_do_and_bad_input_is_told(frame: Callable[..., AppTest]) -> None:
    assert "Nothing is edited yet" in texts(opened(frame))
    assert "L99H0:zero" in texts(opened(frame, ge_ko="L99H0:zero")).replace("\\", "")
    assert "Steering needs two texts" in texts(opened(frame, ge_plus="Rome"))
    half = opened(frame, ge_ko="L1H2:zero", ge_t="1")
    half.text_input(key="generation_seeds").set_value("one").run()
    assert_sound(half)
    assert "Seeds: one, which is not a list" in texts(half).replace("\\", "")


def test_the_buttons_copy_what_other_tabs_hold(frame: Callable[..., AppTest]) -> None:
    session = opened(frame)
    session.button(key="generation_take_sets").click().run()
    state = session.session_state
    assert state["generation_plus"] == state["steering_positive"]
    assert state["generation_minus"] == state["steering_negative"]
    settle(session, "generation")
    assert_sound(session)
    assert session.session_state["_run_generation"].result.layer == 4


def test_recurrent_feedback_waits_for_its_switch(frame: Callable[..., AppTest]) -> None:
    session = opened(frame)
    assert "_run_recurrent_feedback" not in session.session_state
    session.toggle(key="generation_loop").set_value(True).run()
    settle(session, "recurrent_feedback")
    assert_sound(session)
    model = hub().resident(default_spec())
    assert model is not None
    again = recurrent_feedback(model, RecurrentFeedbackInputs())
    assert session.session_state["_run_recurrent_feedback"].result.lines == again.lines
    assert "Second lines that end in a rhyme" in texts(session)


def test_names_and_keys_are_the_tabs_own() -> None:
    assert all(field.key.startswith("ge_") for field in FIELDS)
    assert len({field.key for field in FIELDS}) == len({field.name for field in FIELDS}) == len(FIELDS)
