"""A real server and a real browser; skipped, with the reason, where there is no Chromium."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

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
SOON = 30_000


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark everything here, and say why it is skipped where it is."""
    reason = "no Chromium found (apt install chromium)" if CHROMIUM is None else ""
    for item in items:
        if Path(item.path).is_relative_to(ROOT / "tests" / "browser"):
            item.add_marker(pytest.mark.browser)
            if reason:
                item.add_marker(pytest.mark.skip(reason=reason))


class Server:
    """The dashboard as a user starts it, on a free port."""

    def __init__(self, *arguments: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "streamlit", "run", "app.py", "--server.port", str(self.port), *arguments],
            cwd=ROOT,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def get(self, path: str) -> str:
        """The answer to a plain request."""
        with urllib.request.urlopen(self.url + path, timeout=5) as answer:
            return answer.read().decode()

    def wait(self, until: Callable[[str], bool] = lambda health: True, seconds: float = 60) -> None:
        """Wait until the server answers and its health satisfies `until`."""
        end = time.monotonic() + seconds
        while True:
            try:
                if until(self.get("/api/health")):
                    return
            except OSError:
                if self.process.poll() is not None:
                    raise AssertionError(f"the server ended:\n{self.output()}") from None
            assert time.monotonic() < end, "the server does not become ready"
            time.sleep(0.1)

    def output(self) -> str:
        """What an ended server has printed."""
        return self.process.stdout.read() if self.process.stdout else ""

    def stop(self) -> float:
        """End the server as a service manager does; the seconds it took."""
        started = time.monotonic()
        self.process.terminate()
        self.process.wait(20)
        return time.monotonic() - started


@pytest.fixture(scope="module")
def cold_server() -> Iterator[Server]:
    """A server that nobody has visited yet."""
    server = Server()
    server.wait()
    yield server
    if server.process.poll() is None:
        server.stop()
    if server.process.stdout is not None:
        server.process.stdout.close()


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A server with the bundled model in memory, shared by all tests that do not care who came before."""
    shared = Server()
    shared.wait(lambda health: "ready" in health)
    yield shared
    shared.stop()
    if shared.process.stdout is not None:
        shared.process.stdout.close()


@pytest.fixture(scope="module")  # as long as it is open, Playwright's event loop runs in this thread
def browser() -> Iterator[Any]:
    """Headless Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


def is_outside(url: str) -> bool:
    """Whether a request would leave this machine."""
    return url.startswith(("http", "ws")) and urlsplit(url).hostname not in ("127.0.0.1", "localhost")


@pytest.fixture
def new_tab(browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens tabs, each its own session: `new_tab(url, color_scheme="dark")`; errors and requests that leave
    this machine are in `tab.said`."""
    contexts = []

    def open_tab(url: str, **options: Any) -> Any:
        context = browser.new_context(
            viewport={"width": 1400, "height": 1000}, accept_downloads=True, **options
        )
        contexts.append(context)
        tab = context.new_page()
        tab.said = []
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
