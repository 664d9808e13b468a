"""The planning preset in a real browser: loaded, drawn, restored by its link, and handed on to steering."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.browser.conftest import SETTLED, Server
from tests.browser.test_first_light import chart, errors, wait_for_model, wait_for_value


@pytest.mark.timeout(180)
def test_a_preset_runs_and_its_push_steers_a_text(cold_server: Server, new_tab: Callable[..., Any]) -> None:
    tab = new_tab(f"{cold_server.url}/features?ft_tab=planning")
    wait_for_model(tab)
    tab.get_by_role("button", name="Load", exact=True).click()
    wait_for_value(tab, "Second prompt, whose word is the answer", "The capital city of Italy is")
    for card in ("planning_sweep", "planning_grid", "planning_ways", "planning_own", "routing_heads"):
        chart(tab, card)
    tab.wait_for_selector(SETTLED)
    assert "fp_s=5" in tab.url

    other = new_tab(tab.url)  # the link restores words, settings and figures
    wait_for_model(other)
    wait_for_value(other, "Second prompt, whose word is the answer", "The capital city of Italy is")
    chart(other, "planning_sweep")

    tab.get_by_role("button", name="Steer a text with these").click()
    chart(tab, "steer_0")
    tab.wait_for_selector(SETTLED)
    assert "fg_f=" in tab.url
    assert errors(tab) == []
    assert errors(other) == []
