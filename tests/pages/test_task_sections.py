"""A task on the head-circuit tab: its numbers are the library's, and what it cannot ask is said."""

from collections.abc import Callable

import numpy as np
from streamlit.testing.v1 import AppTest

from mi_core.analyses import HeadAblationInputs, TaskInputs, head_ablation, task_baseline, task_heads
from pages.shared.session import default_spec, hub
from tests.pages.conftest import assert_sound, settle, texts

TAB = {
    "ko_tab": "circuits",
    "tk_n": "8",
    "prompt": "When Mary and John went to the store, John gave a drink to",
}


def opened(frame: Callable[..., AppTest], slots: tuple[str, ...], **link: str) -> AppTest:
    """The tab, drawn until these analyses are there, and once more."""
    session = frame("knockout", **{**TAB, **link})
    for slot in slots:
        settle(session, slot)
    session.run()
    assert_sound(session)
    return session


def test_the_sections_show_the_librarys_numbers(frame: Callable[..., AppTest]) -> None:
    slots = ("task_baseline", "head_ablation", "task_heads")
    session = opened(frame, slots, tk_seed="3", tk_order="ABBA", tk_mode="zero")
    model = hub().resident(default_spec())
    assert model is not None
    inputs = TaskInputs("ioi", 8, 3, "ABBA")
    got = {slot: session.session_state[f"_run_{slot}"].result for slot in slots}
    assert got["task_baseline"].inputs == inputs
    assert got["task_baseline"].differences.tolist() == task_baseline(model, inputs).differences.tolist()
    ablation = head_ablation(model, HeadAblationInputs("zero", "ioi", 8, 3, "ABBA"))
    np.testing.assert_allclose(got["head_ablation"].effects, ablation.effects, atol=1e-5)
    np.testing.assert_allclose(got["task_heads"].direct, task_heads(model, inputs).direct, atol=1e-6)
    assert "8 prompts" in texts(session)


def test_a_task_that_the_model_cannot_be_asked_is_said(frame: Callable[..., AppTest]) -> None:
    session = opened(frame, ("task_baseline",), tk="greater-than")
    assert "two tokens of two digits" in texts(session)


def test_uploaded_pairs_are_asked_for(frame: Callable[..., AppTest]) -> None:
    session = opened(frame, (), tk="pairs")
    assert "Upload pairs" in texts(session)
