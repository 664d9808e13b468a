"""A stranger's first minutes in a real browser: start, trace, click, read, export, share the link."""

import re
import socket
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import SOON, Server
from tests.browser.rest import at_rest

FILES = (
    ("SVG", b"<svg"),
    ("PNG 300 dpi", b"\x89PNG"),
    ("PDF", b"%PDF"),
    ("HTML", b"<!"),
    ("CSV", b"kind,"),
    ("JSON", b"{"),
    ("All (zip)", b"PK"),
)
PROMPT = "The+Louvre+Museum+is+located+in+the+city+of"


def wait_for_model(tab: Any) -> None:
    tab.get_by_text("checks passed").first.wait_for()
    at_rest(tab)


def wait_for_value(tab: Any, label: str, value: str) -> None:
    """Wait until a text field holds a value; Streamlit fills it a moment after it has drawn it."""
    from playwright.sync_api import expect

    expect(tab.get_by_role("textbox", name=label, exact=True)).to_have_value(value, timeout=SOON)


def errors(tab: Any) -> list[str]:
    """What the console complained about. On a deep link Streamlit looks for its server below the path."""
    return [text for text in tab.said if "404" not in text]


def begun(tab: Any, slot: str) -> None:
    """Press a run's button where this machine is so slow that the page tells its cost and waits."""
    at_rest(tab)
    start = tab.locator(f".st-key-start_{slot} button")
    if start.count():
        start.click()
        at_rest(tab)


def chart(tab: Any, card: str) -> Any:
    drawn = tab.locator(f".st-key-card_{card} [data-testid=stVegaLiteChart]").first
    drawn.locator("svg, canvas").first.wait_for()
    return drawn


def in_view(tab: Any, card: str) -> Any:
    """A chart in the middle of the window, once nothing moves any more."""
    drawn = chart(tab, card)
    at_rest(tab)
    drawn.evaluate("element => element.scrollIntoView({block: 'center'})")
    at_rest(tab)
    return drawn


def tooltip_at(tab: Any, x: float, y: float) -> dict[str, str]:
    """What the tooltip says at a point, approached in small steps: Vega ignores a pointer that jumps."""
    for step in (4, 2, 1, 0):
        tab.mouse.move(x - step, y - step)
    tab.tooltip = tooltip(tab)
    return tab.tooltip


def tooltip(tab: Any) -> dict[str, str]:
    """What the tooltip says now that the page has answered the pointer; frames tell, a clock would guess."""
    tab.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    rows = tab.locator("#vg-tooltip-element.visible tr").all_inner_texts()
    return {key.strip().rstrip(":"): value.strip() for key, _, value in (row.partition("\t") for row in rows)}


def press(tab: Any) -> None:
    """Click where the pointer is: at the thing that the last tooltip named."""
    assert tooltip(tab) == tab.tooltip
    tab.mouse.down()
    tab.mouse.up()


def click_cell(tab: Any, panel: str, position: int, layer: int) -> float:
    """Find a cell of the heatmap by its tooltip, click it, and return the number that the tooltip gives."""
    drawn = in_view(tab, "trace_heatmap")
    box = drawn.bounding_box()
    x, y = box["x"] + 0.72 * box["width"], box["y"] + 20.0  # inside the third panel's first column
    for _ in range(200):
        said = tooltip_at(tab, x, y)
        row, column = said.get("token", "").startswith(f"{position} "), said.get("layer") == str(layer)
        if row and column and said["panel"] == panel:
            break
        x, y = (x + 12, y) if row else (x, y + 12)
    else:
        raise AssertionError(f"no cell {panel} {position} {layer} in {box}")
    press(tab)
    number = next(value for key, value in said.items() if key.endswith("[probability]"))
    return float(number.replace("\N{MINUS SIGN}", "-"))


def cell_value(tab: Any) -> str:
    """The chosen cell's number as the page says it."""
    metric = tab.locator(".st-key-cell_numbers [data-testid=stMetric]", has_text="P(answer)")
    return metric.get_by_test_id("stMetricValue").inner_text()


def test_first_light(cold_server: Server, new_tab: Callable[..., Any], tmp_path: Path) -> None:
    # The very first visit is a deep link: the frame is there, and the link is followed once the model is.
    tab = new_tab(f"{cold_server.url}/causal_trace?prompt={PROMPT}")
    tab.get_by_test_id("stSidebar").get_by_role("heading", name="Model").wait_for()
    wait_for_value(tab, "Prompt", "The Louvre Museum is located in the city of")
    wait_for_model(tab)

    # Choose the subject by its tokens.
    chip = tab.get_by_role("button", name=re.compile("^token 5:")).element_handle()
    tab.get_by_role("button", name=re.compile("^token 2:")).click()
    tab.get_by_role("button", name=re.compile("^token 2:"), pressed=True).wait_for()
    at_rest(tab)
    tab.get_by_role("button", name=re.compile("^token 5:")).click()
    tab.get_by_role("button", name=re.compile("^token 5:"), pressed=True).wait_for()
    wait_for_value(tab, "Subject tokens", "2-5")
    assert chip.evaluate("chip => chip.isConnected"), "replaced while it is pressed, it gets no click"

    # Run; the figure is drawn.
    at_rest(tab)
    tab.locator(".st-key-run_trace button").click()
    heatmap = chart(tab, "trace_heatmap")
    assert "Heatmap of" in (heatmap.get_attribute("aria-label") or "")

    # Click a cell, read its number, share it.
    value = click_cell(tab, "MLP", 5, 1)
    tab.get_by_role("heading", name=re.compile("MLP, layer 1")).wait_for()
    tab.wait_for_url(re.compile("kind=mlp"))
    at_rest(tab)
    shown = cell_value(tab)
    assert float(shown) == pytest.approx(value, rel=0.01)

    # Take the figure away.
    tab.locator(".st-key-card_trace_heatmap").get_by_role("button", name="Export").click()
    for label, start in FILES:
        with tab.expect_download() as download:
            tab.get_by_role("button", name=label, exact=True).click()
        download.value.save_as(tmp_path / label)
        assert (tmp_path / label).read_bytes().lstrip().startswith(start), label
    assert "provenance" in (tmp_path / "SVG").read_text(encoding="utf-8")

    # The link opens exactly this cell, in another tab.
    other = new_tab(tab.url)
    other.get_by_role("heading", name=re.compile("MLP, layer 1")).wait_for()
    at_rest(other)
    assert cell_value(other) == shown
    assert errors(tab) == []
    assert errors(other) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_home_opens_an_example(cold_server: Server, new_tab: Callable[..., Any], scheme: str) -> None:
    tab = new_tab(cold_server.url, color_scheme=scheme)
    tab.get_by_role("heading", name="See inside a language model").wait_for()
    tab.locator("[data-testid=stVegaLiteChart] svg, [data-testid=stVegaLiteChart] canvas").first.wait_for()
    tab.locator(".st-key-card_space_needle").get_by_role("link", name="Open").click()
    tab.wait_for_url(re.compile("causal_trace.*run=1"))
    chart(tab, "trace_heatmap")
    wait_for_value(tab, "Second prompt", "The Eiffel Tower is in downtown")
    tab.go_back()
    tab.get_by_role("heading", name="See inside a language model").wait_for()
    assert errors(tab) == []


def test_a_hostile_prompt_stays_text(cold_server: Server, new_tab: Callable[..., Any]) -> None:
    hostile = "%3Cimg+src%3Dx+onerror%3D%22window.broken%3D1%22%3E+%3Cscript%3Ewindow.broken%3D1%3C/script%3E"
    tab = new_tab(f"{cold_server.url}/causal_trace?prompt={hostile}&target={hostile}&n={hostile}")
    wait_for_model(tab)
    tab.get_by_role("button", name=re.compile("^token 1:")).wait_for()
    assert tab.evaluate("window.broken") is None
    tab.get_by_text("This link asks for").wait_for()


@pytest.mark.parametrize(("host", "status"), [("evil.example", 403), ("127.0.0.1", 101)])
def test_the_page_talks_only_under_its_own_name(cold_server: Server, host: str, status: int) -> None:
    """DNS rebinding: a foreign page that points its own name at this machine gets no websocket."""
    request = (
        f"GET /_stcore/stream HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: bGFudGVybmxhbnRlcm5saQ==\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", cold_server.port), timeout=60) as connection:
        connection.sendall(request.encode())
        assert int(connection.recv(200).split()[1]) == status


def test_every_answer_has_the_headers(cold_server: Server) -> None:
    assert '"ok":true' in cold_server.get("/api/health")
    with urllib.request.urlopen(f"{cold_server.url}/", timeout=60) as answer:
        assert answer.headers["X-Frame-Options"] == "SAMEORIGIN"


def crowded() -> float:
    """How many times longer everything takes than on a machine of one's own: 1 where nobody else works."""
    started, used = time.monotonic(), time.process_time()
    while time.process_time() - used < 0.2:
        pass
    return (time.monotonic() - started) / 0.2


def test_the_server_ends_within_two_seconds(cold_server: Server) -> None:
    """Last in this file: the server that the others used ends now."""
    cold_server.wait(lambda health: "ready" in health)
    slow, started = crowded(), time.monotonic()
    cold_server.stop()
    seconds = time.monotonic() - started
    assert seconds < 2.0 * max(slow, crowded())
    assert cold_server.process.returncode in (0, -15)
