"""The knock-out page: its numbers are the library's, the list is in the link, every way to add and remove."""

from collections.abc import Callable

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from mi_core.analyses import KnockoutInputs, KnockoutResult, knockout
from pages.shared.session import default_spec, hub
from tests.page_runs import until_idle
from tests.pages.conftest import assert_sound, settle, texts

PROMPT = "The Louvre Museum is located in the city of"
LIST = "L4H0:zero,e9-1@L3H1"


def opened(frame: Callable[..., AppTest], **link: str) -> AppTest:
    """The page, drawn twice: the second run must find what the first one left."""
    session = frame("knockout", **{"prompt": PROMPT, **link})
    settle(session, "knockout")
    session.run()
    assert_sound(session)
    return session


def result_of(session: AppTest) -> KnockoutResult:
    return session.session_state["_run_knockout"].result


def press(session: AppTest, key: str) -> None:
    session.button(key=key).click().run()
    settle(session, "knockout")
    assert_sound(session)


def test_the_page_shows_the_librarys_numbers_and_its_link_restores_the_list(
    frame: Callable[..., AppTest],
) -> None:
    session = opened(frame, ko=LIST, vs=" Rome", target=" Paris", ko_pins="L3H1", ko_steps="3")
    model = hub().resident(default_spec())
    assert model is not None
    inputs = KnockoutInputs(
        PROMPT, LIST, answer=" Paris", distractor=" Rome", pinned_heads=("L3H1",), continuation=3
    )
    again, result = knockout(model, inputs), result_of(session)
    assert result.inputs == inputs
    np.testing.assert_allclose(result.logits, again.logits, atol=1e-5)
    shown = session.dataframe[0].value
    assert shown["quantity"].tolist()[0] == "probability of the target"
    assert session.text_input(key="interventions").value == LIST
    assert session.query_params["ko"] == LIST
    said = texts(session)
    assert "Before and after" in said
    assert "Greedy continuation" in said
    assert len(session.get("vega_lite_chart")) == 2


def test_picking_adds_removing_brings_the_baseline_back(frame: Callable[..., AppTest]) -> None:
    session = opened(frame)
    baseline = result_of(session)
    assert baseline.kl == 0
    assert "Nothing is changed yet" in texts(session)
    press(session, "add_picked")
    assert session.session_state["interventions"] == "L0H0:zero"
    assert result_of(session).kl > 0
    press(session, "preset_candle")
    assert session.session_state["interventions"].startswith("L0H0:zero,e")
    press(session, "remove_intervention_1")
    press(session, "remove_intervention_0")
    assert session.session_state["interventions"] == ""
    assert np.array_equal(result_of(session).logits, baseline.logits)
    assert "Nothing is changed yet" in texts(session)


@pytest.mark.parametrize("target", ["attention", "mlp", "neuron", "residual", "edge", "row", "column"])
def test_every_target_can_be_picked(frame: Callable[..., AppTest], target: str) -> None:
    session = opened(frame)
    session.selectbox(key="pick_target").set_value(target).run()
    press(session, "add_picked")
    assert result_of(session).interventions == (session.session_state["interventions"],)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("L9H0:zero", "L9H0:zero does not fit"),
        ("boom", "is not an intervention"),
        ("e2-5@L1", "an edge from the future"),
        ("L1H0:resample", "needs prompt B"),
        ("L1H0:zero,L1H0:zero", "in the list twice"),
    ],
)
def test_a_wrong_list_is_named_and_stays(frame: Callable[..., AppTest], text: str, said: str) -> None:
    session = frame("knockout", prompt=PROMPT, ko=text)
    until_idle(session, ["knockout"])
    assert not session.exception
    assert said in texts(session).replace("\\", "")
    assert session.text_input(key="interventions").value == text


def test_means_show_their_prompts_and_own_ones_can_be_given(frame: Callable[..., AppTest]) -> None:
    session = opened(frame, ko="L2mlp:mean")
    assert len(result_of(session).reference_prompts) == 16
    assert "The weather in the mountains" in texts(session)
    session.selectbox(key="knockout_reference").set_value("own").run()
    assert "no reference prompts" in texts(session)
    lines = [f"The number {n} is" for n in range(8)]
    session.text_area(key="knockout_own").set_value("\n".join(lines)).run()
    settle(session, "knockout")
    assert result_of(session).reference_prompts == tuple(lines)
    assert_sound(session)


def test_a_hostile_link_is_refused_by_name(frame: Callable[..., AppTest]) -> None:
    session = frame("knockout", prompt=PROMPT, ko="<script>alert(1)</script>")
    settle(session, "knockout")
    assert session.session_state["interventions"] == ""
    assert "no list of interventions" in texts(session)
