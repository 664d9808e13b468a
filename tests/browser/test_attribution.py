"""Attribution in a real browser: click a head on the map, read its source tokens, share the link."""

import re
from collections.abc import Callable
from typing import Any

from tests.browser.conftest import Server
from tests.browser.rest import at_rest
from tests.browser.test_first_light import begun, chart, errors, in_view, press, tooltip_at, wait_for_model

LINK = "attribution?prompt=The+Louvre+Museum+is+located+in+the+city+of&vs=+Rome&b=The+Colosseum+is+in"


def click_head(tab: Any, panel: str, layer: int, head: int) -> None:
    """Find a cell of the map by its tooltip and click it."""
    drawn = in_view(tab, "attribution_heads")
    box = drawn.bounding_box()
    for down in range(40, int(box["height"]) - 60, 14):
        for across in range(50, int(box["width"]) - 10, 24):
            x, y = box["x"] + across, box["y"] + down
            said = tooltip_at(tab, x, y)
            if (
                said.get("panel") == panel
                and said.get("layer") == f"L{layer}"
                and said.get("head") == str(head)
            ):
                press(tab)
                return
            if said.get("layer") not in (None, f"L{layer}"):
                break  # another row
    raise AssertionError(f"no cell {panel} L{layer}H{head} in {box}")


def test_a_head_is_chosen_by_a_click_and_its_link_opens_it(
    server: Server, new_tab: Callable[..., Any]
) -> None:
    tab = new_tab(f"{server.url}/{LINK}")
    wait_for_model(tab)
    begun(tab, "attribution")
    parts = chart(tab, "attribution_parts")
    assert "Bars of the contributions" in (parts.get_attribute("aria-label") or "")
    tab.get_by_text("Click a head").wait_for()
    click_head(tab, "prompt", 4, 0)
    tab.wait_for_url(re.compile("head=0"))
    at_rest(tab)
    tab.get_by_text("Where L4H0 brings it from", exact=True).wait_for()
    chart(tab, "attribution_sources_0")
    chart(tab, "attribution_sources_1")

    # The way of drawing is part of the link too.
    tab.get_by_role("radio", name="Waterfall").click()
    tab.wait_for_url(re.compile("dl_as=waterfall"))
    tab.get_by_text("From the embedding to the logit", exact=True).wait_for()
    at_rest(tab)
    other = new_tab(tab.url)
    wait_for_model(other)
    other.get_by_text("Where L4H0 brings it from", exact=True).wait_for()
    other.get_by_text("From the embedding to the logit", exact=True).wait_for()
    assert errors(tab) == []
    assert errors(other) == []
