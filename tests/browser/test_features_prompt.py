"""Features of a prompt in a real browser: a cell narrows the list, a bar chooses, a pin stays in the link."""

import re
from collections.abc import Callable
from typing import Any

from playwright.sync_api import expect

from tests.browser.conftest import SOON, Server
from tests.browser.rest import at_rest
from tests.browser.test_first_light import begun, errors, in_view, press, tooltip_at, wait_for_model

PROMPT = "The%20capital%20of%20France%20is"


def click_on(tab: Any, name: str, wanted: Callable[[dict[str, str]], bool]) -> dict[str, str]:
    """Point along a chart until the tooltip is the wanted one, and click there; what it says."""
    drawn = in_view(tab, name)
    box = drawn.bounding_box()
    for across in (0.3, 0.5, 0.7, 0.9):
        for down in range(20, 240, 12):
            said = tooltip_at(tab, box["x"] + across * box["width"], box["y"] + down)
            if said and wanted(said):
                press(tab)
                return said
    raise AssertionError(f"nothing wanted in {name}")


def test_from_a_cell_to_a_pinned_feature(server: Server, new_tab: Callable[..., Any]) -> None:
    tab = new_tab(f"{server.url}/features?prompt={PROMPT}")
    wait_for_model(tab)
    begun(tab, "features_on_prompt")
    tab.locator(".st-key-card_feature_error").wait_for(state="attached")
    cell = click_on(tab, "feature_counts", lambda said: float(said.get("active features", "0")) > 0)
    layer = int(cell["layer"].removeprefix("L"))
    tab.wait_for_url(re.compile(rf"fq_layers={layer}"))
    listed = tab.locator(".st-key-card_feature_list")
    listed.get_by_text(f"Listed: layers {layer}.").wait_for()

    click_on(tab, "feature_list", lambda said: True)
    tab.wait_for_url(re.compile(rf"layer={layer}&.*feature=\d+"))
    at_rest(tab)
    feature = re.search(r"feature=(\d+)", tab.url)
    assert feature is not None
    name = f"L{layer}F{feature[1]}"
    tab.get_by_role("button", name="Pin", exact=True).click()
    tab.wait_for_url(re.compile(f"ft_pins={name}"))
    at_rest(tab)

    other = new_tab(tab.url)
    expect(other.get_by_role("button", name="Unpin", exact=True)).to_be_visible(timeout=SOON)
    other.locator(".st-key-feature_chosen").get_by_text(name).wait_for()
    assert errors(tab) == []
