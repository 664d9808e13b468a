"""A word leads to a feature, a feature to its relatives, and the link opens it again, in a real browser."""

import re
from collections.abc import Callable
from typing import Any

from tests.browser.conftest import Server
from tests.browser.rest import at_rest
from tests.browser.test_first_light import begun, errors, in_view, press, tooltip_at, wait_for_model


def link_to(name: str) -> re.Pattern[str]:
    """The part of an address that chooses a feature."""
    layer, feature = re.findall(r"\d+", name)
    return re.compile(rf"layer={layer}(&.*)?&feature={feature}(&|$)")


def click_feature(tab: Any, card: str, other_than: str = "") -> str:
    """Click the first bar of a card that names another feature; its name as the tooltip says it."""
    drawn = in_view(tab, card)
    box = drawn.bounding_box()
    x, y = box["x"] + 0.4 * box["width"], box["y"] + 8.0
    for _ in range(60):
        found = re.search(r"L\d+F\d+", " ".join(tooltip_at(tab, x, y).values()))
        if found and found[0] != other_than:
            press(tab)
            return found[0]
        y += 8
    raise AssertionError(f"no feature in {card}: {box}")


def test_a_word_leads_to_a_feature_and_on_to_its_relatives(
    server: Server, new_tab: Callable[..., Any]
) -> None:
    tab = new_tab(f"{server.url}/features?prompt=The+king+of+France+lives+in&ft_tab=words")
    wait_for_model(tab)
    begun(tab, "word_search")
    word = tab.get_by_role("textbox", name="Word", exact=True)
    word.fill("king")
    word.press("Enter")
    tab.locator(".st-key-card_word_search_hits").wait_for()
    name = click_feature(tab, "word_search_hits")
    tab.get_by_role("heading", name=name, exact=True).wait_for()
    tab.wait_for_url(link_to(name))
    tab.locator(".st-key-card_feature_written").get_by_text("Standard deviation").wait_for()

    relative = click_feature(tab, "feature_reads_alike", other_than=name)
    assert relative != name
    tab.get_by_role("heading", name=relative, exact=True).wait_for()
    tab.locator(".st-key-card_feature_reads_alike").get_by_text(f"{relative} among").wait_for()

    # The heading is drawn as soon as it is known; the address is written when the page is complete.
    tab.wait_for_url(link_to(relative))
    at_rest(tab)
    other = new_tab(tab.url)
    other.get_by_role("heading", name=relative, exact=True).wait_for()
    other.locator(".st-key-card_feature_written").get_by_text("Standard deviation").wait_for()
    assert errors(tab) == []
