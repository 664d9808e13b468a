"""The logit lens in a real browser: point at a cell, click it, open its link in a new tab."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.browser.conftest import SETTLED, Server
from tests.browser.test_first_light import chart, errors, tooltip_at, wait_for_model


@pytest.mark.timeout(120)
def test_click_a_cell_and_open_its_link(server: Server, new_tab: Callable[..., Any]) -> None:
    tab = new_tab(f"{server.url}/logit_lens?ll_words=Rome")
    wait_for_model(tab)
    said = click_cell(tab, layer="L3", position=8)
    assert said["token"].startswith("8 ")
    top = next(value for key, value in said.items() if "," in value)
    title = tab.get_by_text("Layer 3 at 8", exact=False).first
    title.wait_for()
    tab.wait_for_selector(SETTLED)
    assert "layer=3" in tab.url
    assert "pos=8" in tab.url

    again = new_tab(tab.url)
    again.get_by_text("Layer 3 at 8", exact=False).first.wait_for()
    chart(again, "lens_cell_tops")
    again.wait_for_selector(SETTLED)
    assert tooltip_of(again, layer="L3", position=8)[0] == said
    assert top
    assert errors(tab) == []
    assert errors(again) == []


def tooltip_of(tab: Any, layer: str, position: int) -> tuple[dict[str, str], float, float]:
    """Find a cell of the grid by what its tooltip says."""
    drawn = chart(tab, "lens_grid")
    drawn.evaluate("element => element.scrollIntoView({block: 'center'})")
    tab.wait_for_timeout(300)
    box = drawn.bounding_box()
    x, y = box["x"] + 0.4 * box["width"], box["y"] + 14.0
    for _ in range(200):
        said = tooltip_at(tab, x, y)
        row = said.get("layer", "") in (layer, layer.removeprefix("L"))
        if row and said.get("token", "").split(" ")[0] == str(position):
            return said, x, y
        x, y = (x + 14, y) if row else (x, y + 10)
    raise AssertionError(f"no cell {layer} {position} in {box}")


def click_cell(tab: Any, layer: str, position: int) -> dict[str, str]:
    """Click a cell of the grid; returns what its tooltip said."""
    said, _, _ = tooltip_of(tab, layer, position)
    tab.mouse.down()
    tab.mouse.up()
    return said
