"""The circuits tab in a real browser: click a head, click a pair of heads, open the link in a new tab."""

import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.browser.conftest import Server
from tests.browser.rest import at_rest
from tests.browser.test_first_light import begun, errors, in_view, press, tooltip_at, wait_for_model


def test_click_a_head_and_a_pair_and_open_the_link(server: Server, new_tab: Callable[..., Any]) -> None:
    tab = new_tab(f"{server.url}/model?md_tab=circuits")
    wait_for_model(tab)
    begun(tab, "copying_scores")
    click(tab, "copying_scores", {"layer": "L3", "head": "3"})
    tab.get_by_text("L3H3: strongest directions of the OV circuit").wait_for()
    tab.wait_for_url(re.compile("layer=3&head=3"))
    begun(tab, "composition")

    said = click(tab, "composition_pairs", {"writing head": "L2H0", "reading head": "L7H3"})
    tab.wait_for_url(re.compile("mc_pair=L2H0-L7H3"))
    at_rest(tab)
    shown = pair_score(tab)
    assert float(shown) == pytest.approx(float(said["K-composition score"]), rel=0.01)

    again = new_tab(tab.url)
    again.get_by_text("L3H3: strongest directions of the OV circuit").wait_for()
    assert pair_score(again) == shown
    assert errors(tab) == []
    assert errors(again) == []


def pair_score(tab: Any) -> str:
    """K-composition of the chosen pair, as the page says it."""
    metric = tab.locator(".st-key-pair [data-testid=stMetric]", has_text="K-composition")
    metric.wait_for()
    at_rest(tab)
    return metric.get_by_test_id("stMetricValue").inner_text()


def click(tab: Any, card: str, wanted: dict[str, str]) -> dict[str, str]:
    """Find a cell by what its tooltip says, first down to its row, then along it; click it."""
    drawn = in_view(tab, card)
    box = drawn.bounding_box()
    x, y = box["x"] + 0.97 * box["width"], box["y"] + 24.0
    row, value = next(iter(wanted.items()))
    for _ in range(300):
        said = tooltip_at(tab, x, y)
        if wanted.items() <= said.items():
            press(tab)
            return said
        x, y = (x - 14, y) if said.get(row) == value else (x, y + 10)
    raise AssertionError(f"no cell {wanted} in {box}")
