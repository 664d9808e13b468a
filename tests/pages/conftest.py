"""The frame as a test drives it, and the models that the tests load."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from mi_core.model.spec import ModelSpec
from pages.shared.jobs import SERVER
from pages.shared.session import default_spec, downloads, hub
from tests.disk import save_model
from tests.page_runs import PATIENCE, patient, until_idle

FRAME = Path(__file__).resolve().parents[2] / "pages" / "shared" / "frame.py"


def load(spec: ModelSpec) -> None:
    """Bring a model into memory, or raise what prevents it."""
    job = hub().load(spec, "test")
    assert job.wait(PATIENCE)
    job.value()


@pytest.fixture(scope="session")
def _atlas() -> None:
    load(default_spec())


@pytest.fixture(autouse=True)
def _nothing_runs_on() -> Iterator[None]:
    """Ends what a test leaves behind, for which the next one would wait: its session never disconnects."""
    yield
    live = [*hub().worker._all_live(), *downloads()._all_live()]
    left = [job for job in live if SERVER not in job.waiters]
    for job in left:
        job.cancel()
    assert all(job.wait(PATIENCE) for job in left)


@pytest.fixture
def frame(_atlas: None) -> Callable[..., AppTest]:
    """Makes browser sessions: `frame(prompt="...", subject="2-5")` opens a deep link.

    The bundled model is in memory.
    """
    if hub().resident(default_spec()) is None:
        load(default_spec())
    return open_frame


def open_frame(page: str = "home", **link: str) -> AppTest:
    """One session on a page; the keywords are the link's values. Its runs wait for what they have begun."""
    return patient(session_on(page, **link)).run()


def session_on(page: str = "home", **link: str) -> AppTest:
    """A session that has not run yet, and whose runs wait for nothing longer than a page does."""
    session = AppTest.from_file(str(FRAME), default_timeout=PATIENCE)
    for key, value in link.items():
        session.query_params[key] = value
    if page != "home":
        session.switch_page(f"../{page}.py")
    return session


def settle(session: AppTest, slot: str = "causal_trace") -> AppTest:
    """Wait for the page's run, for those that come before and after it, and let the page draw them."""
    until_idle(session, [slot])
    assert f"_run_{slot}" in session.session_state, f"no {slot} was begun:\n{texts(session)}"
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
