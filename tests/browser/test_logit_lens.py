"""The logit lens in a real browser: point at a cell, click it, open its link in a new tab."""

from collections.abc import Callable
from typing import Any

from tests.browser.conftest import Server
from tests.browser.rest import at_rest
from tests.browser.test_first_light import chart, errors, in_view, press, tooltip_at, wait_for_model


def test_click_a_cell_and_open_its_link(server: Server, new_tab: Callable[..., Any]) -> None:
    tab = new_tab(f"{server.url}/logit_lens?ll_words=Rome")
    wait_for_model(tab)
    said = click_cell(tab, layer="L3", position=8)
    assert said["token"].startswith("8 ")
    top = next(value for key, value in said.items() if "," in value)
    title = tab.get_by_text("Layer 3 at 8", exact=False).first
    title.wait_for()
    tab.wait_for_url("**layer=3**pos=8**")
    at_rest(tab)
    assert "layer=3" in tab.url
    assert "pos=8" in tab.url

    again = new_tab(tab.url)
    again.get_by_text("Layer 3 at 8", exact=False).first.wait_for()
    chart(again, "lens_cell_tops")
    at_rest(again)
    assert tooltip_of(again, layer="L3", position=8)[0] == said
    assert top
    assert errors(tab) == []
    assert errors(again) == []


def tooltip_of(tab: Any, layer: str, position: int) -> tuple[dict[str, str], float, float]:
    """Find a cell of the grid by what its tooltip says."""
    drawn = in_view(tab, "lens_grid")
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
    press(tab)
    return said
