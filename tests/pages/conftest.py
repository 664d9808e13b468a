"""The frame as a test drives it, and the models that the tests load."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from mi_core.model.spec import ModelSpec
from pages.shared.jobs import SERVER
from pages.shared.session import default_spec, hub
from tests.disk import save_model

FRAME = Path(__file__).resolve().parents[2] / "pages" / "shared" / "frame.py"
SOON = 60.0


def load(spec: ModelSpec) -> None:
    """Bring a model into memory, or raise what prevents it."""
    job = hub().load(spec, "test")
    assert job.wait(SOON)
    job.value()


@pytest.fixture(scope="session")
def _atlas() -> None:
    load(default_spec())


@pytest.fixture(autouse=True)
def _nothing_runs_on() -> Iterator[None]:
    """Cancels what a test leaves behind, for which the next one would wait: its session never disconnects."""
    yield
    for job in hub().worker._all_live():
        if SERVER not in job.waiters:
            job.cancel()


@pytest.fixture
def frame(_atlas: None) -> Callable[..., AppTest]:
    """Makes browser sessions: `frame(prompt="...", subject="2-5")` opens a deep link.

    The bundled model is in memory.
    """
    if hub().resident(default_spec()) is None:
        load(default_spec())
    return open_frame


def open_frame(page: str = "home", **link: str) -> AppTest:
    """One session on a page; the keywords are the link's values."""
    session = AppTest.from_file(str(FRAME), default_timeout=SOON)
    for key, value in link.items():
        session.query_params[key] = value
    if page != "home":
        session.switch_page(f"../{page}.py")
    return session.run()


def settle(session: AppTest, slot: str = "causal_trace") -> AppTest:
    """Wait for the page's run and let the page draw it."""
    end = time.monotonic() + SOON
    while session.session_state[f"_run_{slot}"].active:
        assert time.monotonic() < end, "the run does not end"
        session.session_state[f"_run_{slot}"].job.wait(0.1)
        session.run()
    return session.run()


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of another, random model."""
    return save_model(tmp_path_factory.mktemp("models") / "small")


def texts(session: AppTest) -> str:
    """Everything that the session shows as text, for searching."""
    kinds = ("title", "subheader", "markdown", "caption", "error", "warning", "info", "code")
    shown = [str(element.value) for kind in kinds for element in getattr(session, kind)]
    shown += [str(element.value) for element in session.sidebar.caption]
    return "\n".join(shown)


def assert_sound(session: AppTest) -> None:
    """No exception, no bug behind the error boundary."""
    assert not session.exception, session.exception[0].value
    broken = [element.value for element in session.error if "broke" in element.value]
    assert not broken, broken
