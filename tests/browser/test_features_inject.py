"""Features changed in a real browser: one is picked and has an effect, a bar selects its own, out again."""

import re
from collections.abc import Callable
from typing import Any

from tests.browser.conftest import Server
from tests.browser.rest import at_rest
from tests.browser.test_first_light import (
    begun,
    chart,
    errors,
    in_view,
    press,
    tooltip_at,
    wait_for_model,
    wait_for_value,
)

LINK = "features?ft_tab=inject&prompt=The+Louvre+Museum+is+located+in+the+city+of&fi_steps=3"


def test_a_feature_is_set_and_let_go_again(cold_server: Server, new_tab: Callable[..., Any]) -> None:
    tab = new_tab(f"{cold_server.url}/{LINK}")
    wait_for_model(tab)
    tab.get_by_text("an empty list gives the baseline bit for bit").wait_for()
    at_rest(tab)
    tab.get_by_role("button", name="Add L0F0@all:set=5").click()
    wait_for_value(tab, "Edits of features", "L0F0@all:set=5")
    begun(tab, "inject")
    for card in ("inject_top", "inject_features", "inject_push"):
        chart(tab, card)
    tab.get_by_text("Greedy continuation", exact=True).wait_for()
    at_rest(tab)
    assert "fi=L0F0" in tab.url

    box = in_view(tab, "inject_features").bounding_box()
    said = tooltip_at(tab, box["x"] + box["width"] / 2, box["y"] + 14)
    assert re.search(r"L\d+F\d+", " ".join(said.values())), said
    press(tab)
    tab.wait_for_url(re.compile("feature="))
    at_rest(tab)
    other = new_tab(tab.url)  # the link restores list and selection
    wait_for_model(other)
    wait_for_value(other, "Edits of features", "L0F0@all:set=5")
    chart(other, "inject_top")

    tab.get_by_role("button", name="L0F0@all:set=5", exact=True).click()
    tab.get_by_text("an empty list gives the baseline bit for bit").wait_for()
    at_rest(tab)
    assert "fi=" not in tab.url
    assert tab.locator(".st-key-card_inject_top").count() == 0
    assert errors(tab) == []
    assert errors(other) == []
