"""The planning preset in a real browser: loaded, drawn, restored by its link, and handed on to steering."""

from collections.abc import Callable
from typing import Any

from mi_core.transcoders.planning_presets import PRESETS
from tests.browser.conftest import Server
from tests.browser.rest import at_rest
from tests.browser.test_first_light import begun, chart, errors, wait_for_model, wait_for_value


def test_a_preset_runs_and_its_push_steers_a_text(cold_server: Server, new_tab: Callable[..., Any]) -> None:
    tab = new_tab(f"{cold_server.url}/features?ft_tab=planning")
    wait_for_model(tab)
    tab.get_by_role("button", name="Load", exact=True).click()
    wait_for_value(tab, "Second prompt, whose word is the answer", "The capital city of Italy is")
    preset = next(iter(PRESETS.values()))
    tab.wait_for_url(f"**fp_s={preset.strength:g}**")
    for slot in ("planning_pick_up", "planning_pick_down", "planning", "feature_routing"):
        begun(tab, slot)
    for card in ("planning_sweep", "planning_grid", "planning_ways", "planning_own", "routing_heads"):
        chart(tab, card)
    at_rest(tab)

    other = new_tab(tab.url)  # the link restores words, settings and figures
    wait_for_model(other)
    wait_for_value(other, "Second prompt, whose word is the answer", "The capital city of Italy is")
    chart(other, "planning_sweep")
    at_rest(tab)

    tab.get_by_role("button", name="Steer a text with these").click()
    tab.wait_for_url("**fg_f=**")
    begun(tab, "feature_generation")
    chart(tab, "steer_0")
    at_rest(tab)
    assert "fg_f=" in tab.url
    assert errors(tab) == []
    assert errors(other) == []
