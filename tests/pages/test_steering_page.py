"""The steering page: its numbers are the library's, its example crosses 50 %, bad settings are sentences."""

from collections.abc import Callable

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from mi_core.analyses import SteeringInputs, steering_dose
from pages.shared.session import default_spec, hub
from pages.shared.steering_fields import EXAMPLE, NEGATIVE, POSITIVE
from tests.page_runs import until_idle
from tests.pages.conftest import assert_sound, settle, texts


def opened(frame: Callable[..., AppTest], **link: str) -> AppTest:
    """The page, drawn twice: the second run must find what the first one left."""
    session = frame("steering", **{"prompt": EXAMPLE["prompt"], **link})
    settle(session, "steering_dose")
    session.run()
    assert_sound(session)
    return session


def test_the_page_shows_the_librarys_numbers(frame: Callable[..., AppTest]) -> None:
    session = opened(frame, target=" Rome", vs=" Paris", st_layer="5")
    result = session.session_state["_run_steering_dose"].result
    model = hub().resident(default_spec())
    assert model is not None
    inputs = SteeringInputs(
        EXAMPLE["prompt"], source="sets", positive=POSITIVE, negative=NEGATIVE, layer=5, answer=" Rome",
        distractor=" Paris",
    )  # fmt: skip
    assert result.inputs == inputs
    np.testing.assert_allclose(result.values, steering_dose(model, inputs).values, atol=1e-5)
    assert result.wished_dose == pytest.approx(float(session.metric[0].value), abs=0.01)
    assert len(session.get("vega_lite_chart")) == 3


def test_the_example_fills_everything(frame: Callable[..., AppTest]) -> None:
    session = opened(frame)
    session.button(key="steering_example").click().run()
    settle(session, "steering_dose")
    session.run()
    assert_sound(session)
    result = session.session_state["_run_steering_dose"].result
    assert result.wished_dose is not None
    assert result.band("probability")[1].max() < 0.5


def test_layers_convergence_and_routing(frame: Callable[..., AppTest]) -> None:
    session = frame("steering", prompt=EXAMPLE["prompt"], target=" Rome", st_tab="layers", st_c="1")
    for slot in ("steering_layers", "steering_convergence", "steering_routing"):
        settle(session, slot)
    session.run()
    assert_sound(session)
    assert len(session.get("vega_lite_chart")) == 5
    assert session.session_state["_run_steering_convergence"].result.cosine.shape == (8, 8)


@pytest.mark.parametrize(
    ("link", "said"),
    [
        ({"st_doses": "1, x"}, "cannot be read"),
        ({"st_where": "chosen", "st_pos": "99"}, "no token 99"),
        ({"st_layer": "77"}, "There is no layer 77"),
        ({"st_from": "unembedding", "st_token": "Paris and Rome"}, "tokens"),
        ({"st_minus": POSITIVE}, "vector is zero"),
    ],
)
def test_bad_settings_are_sentences(frame: Callable[..., AppTest], link: dict[str, str], said: str) -> None:
    session = frame("steering", **{"prompt": EXAMPLE["prompt"], **link})
    until_idle(session, ["steering_dose"])
    assert not session.exception
    shown = texts(session) + " ".join(error.value for error in session.error)
    assert said in shown
