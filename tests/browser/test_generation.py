"""Generation with edits in a real browser: type an intervention, see two texts, reopen the link."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.browser.conftest import SETTLED, Server
from tests.browser.test_first_light import chart, errors, wait_for_model

PROMPT = "The+Eiffel+Tower+is+located+in+the+city+of"


@pytest.mark.timeout(120)
def test_type_an_intervention_and_open_its_link(server: Server, new_tab: Callable[..., Any]) -> None:
    tab = new_tab(f"{server.url}/steering?st_tab=generation&ge_n=6&ge_stop=0&prompt={PROMPT}")
    wait_for_model(tab)
    tab.get_by_text("Nothing is edited yet").wait_for()
    box = tab.get_by_label("Interventions", exact=True)
    box.fill("L4attn:zero, L4mlp:zero")
    box.press("Enter")
    chart(tab, "generation_0")
    chart(tab, "generation_kl")
    tab.wait_for_selector(SETTLED)
    said = tab.get_by_text("by the default and by the edited model", exact=False).first.inner_text()
    assert "L4attn:zero, L4mlp:zero" in said
    assert "ge_ko=" in tab.url

    again = new_tab(tab.url)
    chart(again, "generation_0")
    again.wait_for_selector(SETTLED)
    told = again.get_by_text("by the default and by the edited model", exact=False).first.inner_text()
    assert told == said
    assert errors(tab) == []
    assert errors(again) == []
