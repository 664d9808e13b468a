"""Takes the pictures of the documentation from the running dashboard: `python -m docs.write_images`.

Starts the server on a free port, opens it in the system's Chromium, and saves what a user sees.
"""

import contextlib
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
FLAGS = ["--no-sandbox", "--disable-gpu", "--force-color-profile=srgb"]
SETTLED = "[data-testid=stApp][data-test-script-state=notRunning]"


@contextlib.contextmanager
def server() -> Iterator[str]:
    """The dashboard, as `streamlit run app.py` starts it; yields its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "streamlit", "run", "app.py", "--server.port", str(port)], cwd=ROOT
    )
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for(f"{address}/_stcore/health")
        yield address
    finally:
        process.terminate()
        process.wait(timeout=20)


def wait_for(address: str, seconds: float = 60.0) -> None:
    """Wait until an address answers.

    Raises:
        TimeoutError: it never did.
    """
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(address, timeout=2).close()
            return
        time.sleep(0.2)
    raise TimeoutError(address)


def click_brightest_early_cell(page: Page) -> None:
    """Click the last subject token's cell in layer 2, in small steps: one long jump misses on a canvas."""
    box = page.locator("[data-testid=stVegaLiteChart] :is(canvas, svg).marks").first.bounding_box()
    if box is None:
        raise RuntimeError("the heatmap has no size")
    x, y = box["x"] + 0.135 * box["width"], box["y"] + 0.37 * box["height"]
    for distance in (4, 2, 1, 0):
        page.mouse.move(x - distance, y - distance)
    page.mouse.down()
    page.mouse.up()
    page.wait_for_timeout(1500)
    page.wait_for_selector(SETTLED)


def picture_of_trace(page: Page, address: str) -> None:
    """The causal trace with a cell clicked."""
    page.goto(f"{address}/causal_trace")
    page.locator(".st-key-run_trace button").click(timeout=60_000)
    page.get_by_role("button", name="Export").first.wait_for(timeout=120_000)  # the trace is complete
    page.wait_for_timeout(2000)
    click_brightest_early_cell(page)
    save(page, "causal_trace")


LOOKS = {
    "attention": "prompt=red+blue+green+gold+red+blue+green+gold+red+blue&layer=4&head=3",
    "logit_lens": "prompt=The+Eiffel+Tower+is+located+in+the+city+of&layer=4&pos=11",
    "features": "prompt=The+Eiffel+Tower+is+located+in+the+city+of&ft_tab=graph",
}
"""Pages whose picture is taken as their link opens them."""


def save(page: Page, name: str) -> None:
    """Take the picture, without a tooltip or a toolbar over it."""
    page.mouse.move(5, 5)
    page.wait_for_timeout(500)
    page.screenshot(path=IMAGES / f"{name}.png")


def main() -> None:
    """Save the pictures into docs/images."""
    IMAGES.mkdir(exist_ok=True)
    with server() as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        page = browser.new_page(
            viewport={"width": 1320, "height": 1400}, device_scale_factor=1.5, color_scheme="light"
        )
        picture_of_trace(page, address)
        for name, link in LOOKS.items():
            page.goto(f"{address}/{name}?{link}")
            page.get_by_role("button", name="Export").first.wait_for(timeout=60_000)
            page.wait_for_selector(SETTLED)
            page.wait_for_timeout(2000)
            save(page, name)
        browser.close()


if __name__ == "__main__":
    main()
