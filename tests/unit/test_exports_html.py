"""The HTML file: whole in itself, hover kept, no request, nothing in it runs but our program."""

import re
import shutil
import time
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from mi_core.errors import InputError
from mi_core.exports import offline_html
from mi_core.exports.causal_trace import heatmap_figure
from mi_core.exports.export import export
from mi_core.exports.figure import Figure
from tests.examples import example_result

EVIL = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>"


class Collector(HTMLParser):
    """Elements, and everything that a browser would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.fetched += [
            f"{name}={value}" for name, value in attrs if name in ("src", "href", "srcset", "action", "data")
        ]


@pytest.fixture(scope="module")
def page() -> str:
    result = example_result()
    tokens = (replace(result.tokens[0], visible=EVIL), *result.tokens[1:])
    result = replace(result, tokens=tokens, inputs=replace(result.inputs, prompt=EVIL), warnings=(EVIL,))
    figure = heatmap_figure(result)
    return export(replace(figure, title=EVIL, how_to_read=EVIL), "html").decode()


def test_hostile_text_makes_no_element_and_nothing_is_fetched(page: str) -> None:
    found = Collector()
    found.feed(page)
    assert found.elements.count("script") == 5
    assert "img" not in found.elements
    assert found.fetched == []


def test_a_policy_forbids_every_request(page: str) -> None:
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)
    assert policy is not None
    assert "default-src &#x27;none&#x27;" in policy[1]
    assert "http" not in policy[1]


def test_the_whole_result_and_the_record_are_inside(page: str) -> None:
    assert offline_html.record_of(page.encode()).startswith('{"schema":"lantern/figure"')
    assert (offline_html.result_of(page.encode()) or "").startswith('{"schema": "lantern/causal_trace"')


def test_a_result_too_large_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    figure = heatmap_figure(example_result())
    monkeypatch.setattr(offline_html, "MAX_RESULT_CHARACTERS", 1000)
    assert offline_html.result_of(export(figure, "html")) is None


def test_a_file_of_another_kind_is_refused() -> None:
    with pytest.raises(InputError, match="was not made here"):
        offline_html.record_of(b"<!doctype html><p>hello")


def test_a_program_that_would_end_its_own_element_is_refused() -> None:
    figure: Figure = heatmap_figure(example_result())
    with pytest.raises(ValueError, match="script element"):
        offline_html.page(figure, {}, "x = '</script>'", dark=False)


def chromium() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.mark.browser
@pytest.mark.skipif(chromium() is None, reason="no Chromium on this machine")
def test_in_a_browser_without_network_it_draws_and_tells_the_value_under_the_pointer(
    page: str, tmp_path
) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    path = tmp_path / "figure.html"
    path.write_text(page, encoding="utf-8")
    requests: list[str] = []
    with playwright.sync_playwright() as program:
        browser = program.chromium.launch(executable_path=chromium(), args=["--no-sandbox", "--disable-gpu"])
        tab = browser.new_context(offline=True, viewport={"width": 1000, "height": 900}).new_page()
        tab.set_default_timeout(120_000)
        tab.on("request", lambda request: requests.append(request.url))
        tab.goto(path.as_uri())
        cell = tab.locator("#figure svg.marks path[aria-roledescription='rect mark']").nth(36)
        cell.wait_for(state="attached")
        box = cell.bounding_box()
        assert box is not None
        told = tab.locator("#vg-tooltip-element.visible")
        end = time.monotonic() + 120
        while told.count() == 0:  # the figure is drawn before it listens
            assert time.monotonic() < end, "the pointer's value is never told"
            for step in (4, 2, 1, 0):
                tab.mouse.move(box["x"] + box["width"] / 2 - step, box["y"] + box["height"] / 2)
            tab.wait_for_timeout(50)
        shown = tab.locator("#vg-tooltip-element").inner_text()
        hacked = tab.evaluate("window.hacked")
        browser.close()
    assert "P(·Paris) [probability]" in shown
    assert hacked is None
    assert requests == [path.as_uri()]
