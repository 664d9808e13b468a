"""Sweeps in a real browser: a click on the map chooses a head, a button adds it to the list."""

import re
from collections.abc import Callable
from typing import Any

from tests.browser.conftest import Server
from tests.browser.rest import at_rest
from tests.browser.test_first_light import begun, chart, errors, in_view, press, tooltip_at, wait_for_model

LINK = "knockout?prompt=The+Louvre+Museum+is+located+in+the+city+of&ko_tab=sweeps&vs=+Rome"


def click_head(tab: Any, layer: str, head: str) -> None:
    """Find a cell of the map by its tooltip and click it."""
    drawn = in_view(tab, "ablation_map")
    box = drawn.bounding_box()
    for down in range(30, int(box["height"]) - 60, 12):
        for across in range(50, int(box["width"]) - 10, 60):
            x, y = box["x"] + across, box["y"] + down
            said = tooltip_at(tab, x, y)
            if said.get("layer") == layer and said.get("head") == head:
                press(tab)
                return
            if said.get("layer") not in (None, layer):
                break  # another row
    raise AssertionError(f"no cell {layer}{head} in {box}")


def test_a_head_of_the_map_goes_into_the_list(server: Server, new_tab: Callable[..., Any]) -> None:
    tab = new_tab(f"{server.url}/{LINK}")
    wait_for_model(tab)
    begun(tab, "ablation_sweep")
    tab.get_by_text("Click a cell or a bar").wait_for()
    click_head(tab, "L3", "H1")
    tab.wait_for_url(re.compile("head=1"))
    at_rest(tab)
    tab.get_by_role("button", name="Add to the list").click()
    tab.wait_for_url(re.compile("ko=L3H1"))
    at_rest(tab)
    assert "joint effect" in (chart(tab, "ablation_joint").get_attribute("aria-label") or "")
    assert errors(tab) == []
