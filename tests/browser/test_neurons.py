"""Neurons in a real browser: survey, click, the neuron's page, a text of one's own, the link."""

import re
from collections.abc import Callable
from typing import Any

from playwright.sync_api import expect

from tests.browser.conftest import SOON, Server
from tests.browser.rest import at_rest
from tests.browser.test_first_light import errors, in_view, press, tooltip_at, wait_for_model


def click_neuron(tab: Any, layer: int) -> str:
    """Click the first neuron of a layer in the survey; its name as the tooltip says it."""
    drawn = in_view(tab, "neuron_survey")
    box = drawn.bounding_box()
    x, y = box["x"] + 0.08 * box["width"], box["y"] + 24.0
    for _ in range(60):
        said = " ".join(tooltip_at(tab, x, y).values())
        found = re.search(rf"L{layer}N\d+", said)
        if found:
            press(tab)
            return found[0]
        y += 8
    raise AssertionError(f"no neuron of layer {layer} in {box}")


def test_a_neuron_is_found_opened_and_shared(server: Server, new_tab: Callable[..., Any]) -> None:
    tab = new_tab(f"{server.url}/neurons?nn_by=selectivity&nn_kind=arithmetic")
    wait_for_model(tab)
    name = click_neuron(tab, 2)
    heading = tab.get_by_role("heading", name=name, exact=True)
    heading.wait_for()
    layer, neuron = re.findall(r"\d+", name)
    tab.wait_for_url(re.compile(rf"layer={layer}&neuron={neuron}"))
    at_rest(tab)

    # A text of one's own on the fixed scale.
    test = tab.get_by_role("textbox", name="Test text")
    test.fill("What is 7 + 5?")
    test.press("Control+Enter")
    tab.wait_for_url(re.compile("nn_test=What"))
    mine = tab.locator(".st-key-card_neuron_test_text")
    mine.get_by_text("fixed by the set of texts").wait_for()
    at_rest(tab)
    bound = re.search(r"from (\S+) to (\S+),", mine.inner_text())
    assert bound is not None
    others = tab.locator(".st-key-card_neuron_contexts").inner_text()
    assert f"Scale from {bound[1]} to {bound[2]}, fixed by the set" in others

    # The link opens all of it in another browser.
    other = new_tab(tab.url)
    other.get_by_role("heading", name=name, exact=True).wait_for()
    expect(other.get_by_role("textbox", name="Test text")).to_have_value("What is 7 + 5?", timeout=SOON)
    again = other.locator(".st-key-card_neuron_test_text")
    again.get_by_text(f"from {bound[1]} to {bound[2]}").wait_for()
    assert errors(tab) == []
