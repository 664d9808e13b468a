"""Knock-out in a real browser: a head on Attention goes into the list, has an effect, and goes again."""

from collections.abc import Callable
from typing import Any

from tests.browser.conftest import Server
from tests.browser.rest import at_rest
from tests.browser.test_attention import point_at, wait_for_label
from tests.browser.test_first_light import begun, chart, errors, wait_for_model, wait_for_value


def test_a_head_goes_from_attention_into_the_list_and_out_again(
    cold_server: Server, new_tab: Callable[..., Any]
) -> None:
    tab = new_tab(f"{cold_server.url}/attention?at_mask=1")
    wait_for_model(tab)
    wait_for_label(tab, "32 shown")
    x, y = point_at(tab, 4, 0)
    tab.mouse.click(x, y)
    tab.get_by_role("heading", name="Layer 4, head 0").wait_for()
    tab.wait_for_url("**layer=4**head=0**")
    at_rest(tab)
    tab.get_by_role("link", name="Ablate this head").click()

    tab.get_by_role("heading", name="Knock-out", exact=True).wait_for()
    wait_for_value(tab, "Interventions", "L4H0:zero")
    wait_for_value(tab, "Attention of heads", "L4H0")
    begun(tab, "knockout")
    chart(tab, "knockout_changed")
    chart(tab, "knockout_attention")
    at_rest(tab)
    assert "ko=L4H0" in tab.url
    other = new_tab(tab.url)  # the link restores the list
    wait_for_model(other)
    wait_for_value(other, "Interventions", "L4H0:zero")
    chart(other, "knockout_changed")

    tab.get_by_role("button", name="L4H0:zero", exact=True).click()
    tab.get_by_text("Nothing is changed yet").wait_for()
    tab.get_by_text("an empty list gives the baseline bit for bit").wait_for()
    at_rest(tab)
    assert "ko=" not in tab.url
    assert tab.locator(".st-key-card_knockout_changed").count() == 0
    assert errors(tab) == []
    assert errors(other) == []

    tab.get_by_role("link", name="Attention", exact=True).click()  # its settings are still there
    tab.get_by_role("heading", name="Layer 4, head 0").wait_for()
    at_rest(tab)
    assert tab.get_by_role("checkbox", name="Mask the first token").is_checked()
