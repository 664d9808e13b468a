"""Features changed in a real browser: one is picked and has an effect, a bar selects its own, out again."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.browser.conftest import SETTLED, Server
from tests.browser.test_first_light import chart, errors, wait_for_model, wait_for_value

LINK = "features?ft_tab=inject&prompt=The+Louvre+Museum+is+located+in+the+city+of&fi_steps=3"


@pytest.mark.timeout(180)
def test_a_feature_is_set_and_let_go_again(cold_server: Server, new_tab: Callable[..., Any]) -> None:
    tab = new_tab(f"{cold_server.url}/{LINK}")
    wait_for_model(tab)
    tab.get_by_text("an empty list gives the baseline bit for bit").wait_for()
    tab.get_by_role("button", name="Add L0F0@all:set=5").click()
    wait_for_value(tab, "Edits of features", "L0F0@all:set=5")
    for card in ("inject_top", "inject_features", "inject_push"):
        chart(tab, card)
    tab.get_by_text("Greedy continuation", exact=True).wait_for()
    tab.wait_for_selector(SETTLED)
    assert "fi=L0F0" in tab.url

    bars = chart(tab, "inject_features")
    bars.evaluate("element => element.scrollIntoView({block: 'center'})")
    tab.wait_for_timeout(400)
    box = bars.bounding_box()
    tab.mouse.click(box["x"] + box["width"] / 2, box["y"] + 14)
    tab.wait_for_function("() => location.search.includes('feature=')")
    other = new_tab(tab.url)  # the link restores list and selection
    wait_for_model(other)
    wait_for_value(other, "Edits of features", "L0F0@all:set=5")
    chart(other, "inject_top")

    tab.get_by_role("button", name="L0F0@all:set=5", exact=True).click()
    tab.get_by_text("an empty list gives the baseline bit for bit").wait_for()
    tab.wait_for_selector(SETTLED)
    assert "fi=" not in tab.url
    assert tab.locator(".st-key-card_inject_top").count() == 0
    assert errors(tab) == []
    assert errors(other) == []
