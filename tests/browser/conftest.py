"""A real server and a real browser; skipped, with the reason, where there is no Chromium.

Every limit here is far above what a slow and busy machine needs: it ends only what hangs. When a test fails,
the report says what its tabs showed (see `pytest_runtest_makereport`).
"""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.browser.rest import PATIENCE, Traffic
from tests.browser.tabs import told

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SETTLED = "[data-testid=stApp][data-test-script-state=notRunning][data-test-connection-state=CONNECTED]"
SOON = int(1000 * PATIENCE)
"""How long a tab waits for anything, in milliseconds."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark everything here, and say why it is skipped where it is."""
    reason = "no Chromium found (apt install chromium)" if CHROMIUM is None else ""
    for item in items:
        if Path(item.path).is_relative_to(ROOT / "tests" / "browser"):
            item.add_marker(pytest.mark.browser)
            if reason:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Tell what a failed test's tabs showed, and what their server has printed."""
    report = yield
    if report.when == "call" and report.failed:
        used = getattr(item, "funcargs", {})
        for number, tab in enumerate(used.get("tabs", ())):
            report.sections.append((f"tab {number}", told(tab)))
        for name in used.keys() & {"server", "cold_server"}:
            report.sections.append((name, used[name].output()[-6000:]))
    return report


class Server:
    """The dashboard as a user starts it, on a free port."""

    def __init__(self) -> None:
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115  # a pipe that nobody reads fills and blocks
        self._start()

    def _start(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "streamlit", "run", "app.py", "--server.port", str(self.port)],
            cwd=ROOT,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
            stdout=self.log,
            stderr=subprocess.STDOUT,
        )

    def get(self, path: str) -> str:
        """The answer to a plain request."""
        with urllib.request.urlopen(self.url + path, timeout=60) as answer:
            return answer.read().decode()

    def wait(self, until: Callable[[str], bool] = lambda health: True) -> None:
        """Wait until the server answers and its health satisfies `until`."""
        end = time.monotonic() + 2 * PATIENCE
        while True:
            try:
                if until(self.get("/api/health")):
                    return
            except OSError:
                if self.process.poll() is not None:
                    assert "already in use" in self.output(), f"the server ended:\n{self.output()}"
                    self._start()  # between our look and its start, somebody else took the port
            assert time.monotonic() < end, f"the server does not become ready:\n{self.output()}"
            time.sleep(0.1)

    def output(self) -> str:
        """What the server has printed."""
        self.log.seek(0)
        return self.log.read()

    def stop(self) -> None:
        """End the server as a service manager does."""
        self.process.terminate()
        self.process.wait(PATIENCE)

    def close(self) -> None:
        """End the server, if it still runs, and forget what it said."""
        if self.process.poll() is None:
            self.stop()
        self.log.close()


@pytest.fixture(scope="module")
def cold_server() -> Iterator[Server]:
    """A server that nobody has visited yet."""
    server = Server()
    server.wait()
    yield server
    server.close()


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A server with the bundled model in memory, shared by all tests that do not care who came before."""
    shared = Server()
    shared.wait(lambda health: "ready" in health)
    yield shared
    shared.close()


@pytest.fixture(scope="module")  # as long as it is open, Playwright's event loop runs in this thread
def browser() -> Iterator[Any]:
    """Headless Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS, timeout=SOON)
        yield opened
        opened.close()


def is_outside(url: str) -> bool:
    """Whether a request would leave this machine."""
    return url.startswith(("http", "ws")) and urlsplit(url).hostname not in ("127.0.0.1", "localhost")


@pytest.fixture
def tabs() -> list[Any]:
    """The tabs that the test has opened, oldest first."""
    return []


@pytest.fixture
def new_tab(browser: Any, tabs: list[Any]) -> Iterator[Callable[..., Any]]:
    """Opens tabs, each its own session: `new_tab(url, color_scheme="dark")`; errors and requests that leave
    this machine are in `tab.said`."""
    contexts = []

    def open_tab(url: str, **options: Any) -> Any:
        context = browser.new_context(
            viewport={"width": 1400, "height": 1000}, accept_downloads=True, locale="en-US", **options
        )
        contexts.append(context)
        tab = context.new_page()
        tabs.append(tab)
        tab.said, tab.traffic = [], Traffic(tab)
        tab.set_default_timeout(SOON)
        tab.on("console", lambda message: tab.said.append(message.text) if message.type == "error" else None)
        tab.on("pageerror", lambda error: tab.said.append(str(error)))
        tab.on("request", lambda request: tab.said.append(request.url) if is_outside(request.url) else None)
        tab.goto(url)
        tab.wait_for_selector(SETTLED)
        return tab

    yield open_tab
    for context in contexts:
        context.close()
