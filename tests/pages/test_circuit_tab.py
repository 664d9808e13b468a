"""The tab "Head circuits": numbers are the library's, what is wrong is said, the link keeps the choices."""

from collections.abc import Callable

from streamlit.testing.v1 import AppTest

from mi_core.analyses import HeadClassesInputs, HeadClassesResult, PathPatchingResult
from tests.pages.conftest import assert_sound, settle, texts

LINK = {"ko_tab": "circuits", "tk_n": "4"}


def opened(frame: Callable[..., AppTest], **link: str) -> AppTest:
    session = frame("knockout", **{"prompt": "The capital of France is", **LINK, **link})
    assert_sound(session)
    return session


def ran(session: AppTest, slot: str) -> AppTest:
    """Wait for a section's result."""
    settle(session, slot)
    session.run()
    assert_sound(session)
    return session


def test_classes_of_heads_on_the_page(frame: Callable[..., AppTest]) -> None:
    session = ran(opened(frame, ci_with="resample"), "head_classes")
    result: HeadClassesResult = session.session_state["_run_head_classes"].result
    assert result.inputs == HeadClassesInputs(n=4, ablation="resample")
    tables = [table.value for table in session.dataframe if "rests on" in table.value.columns]
    assert "L0H3" in set(tables[0]["head"])


def test_paths_into_the_logits_and_a_receiver_that_is_not_there(frame: Callable[..., AppTest]) -> None:
    session = ran(opened(frame), "path_patching")
    result: PathPatchingResult = session.session_state["_run_path_patching"].result
    assert result.names == ("logits",)
    session.text_input(key="circuit_receivers").set_value("L5H1.x").run()
    assert_sound(session)
    assert "names no receiver" in texts(session)
