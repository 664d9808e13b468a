"""The tuned lens in a real browser: measure the one that comes with Atlas, then draw the grid with it."""

from collections.abc import Callable
from typing import Any

from tests.browser.conftest import Server
from tests.browser.rest import at_rest
from tests.browser.test_first_light import chart, errors, wait_for_model


def test_measure_a_lens_and_draw_the_grid_with_it(server: Server, new_tab: Callable[..., Any]) -> None:
    tab = new_tab(f"{server.url}/logit_lens?ll_tab=tuned")
    wait_for_model(tab)
    tab.get_by_role("button", name="Measure").first.click()
    tab.get_by_text("How much of the final output each lens misses").wait_for()
    chart(tab, "tuned_quality")
    tab.get_by_text("3 of 3 checks passed").first.wait_for()

    at_rest(tab)
    tab.get_by_role("button", name="Use in the grid").first.click()
    tab.get_by_role("button", name="In use").wait_for()
    at_rest(tab)
    assert "ll_lens=atlas-text" in tab.url
    tab.get_by_role("tab", name="One prompt").click()
    chart(tab, "lens_grid")
    tab.get_by_text("Tuned lens atlas-text of", exact=False).first.wait_for()
    assert errors(tab) == []
