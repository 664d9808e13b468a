"""Generation with edits in a real browser: type an intervention, see two texts, reopen the link."""

from collections.abc import Callable
from typing import Any

from tests.browser.conftest import Server
from tests.browser.rest import at_rest
from tests.browser.test_first_light import begun, chart, errors, wait_for_model

PROMPT = "The+Eiffel+Tower+is+located+in+the+city+of"


def test_type_an_intervention_and_open_its_link(server: Server, new_tab: Callable[..., Any]) -> None:
    tab = new_tab(f"{server.url}/steering?st_tab=generation&ge_n=6&ge_stop=0&prompt={PROMPT}")
    wait_for_model(tab)
    tab.get_by_text("Nothing is edited yet").wait_for()
    at_rest(tab)
    box = tab.get_by_label("Interventions", exact=True)
    box.fill("L4attn:zero, L4mlp:zero")
    box.press("Enter")
    tab.wait_for_url("**ge_ko=**")
    begun(tab, "generation")
    chart(tab, "generation_0")
    chart(tab, "generation_kl")
    at_rest(tab)
    said = tab.get_by_text("by the default and by the edited model", exact=False).first.inner_text()
    assert "L4attn:zero, L4mlp:zero" in said
    assert "ge_ko=" in tab.url

    again = new_tab(tab.url)
    chart(again, "generation_0")
    at_rest(again)
    told = again.get_by_text("by the default and by the edited model", exact=False).first.inner_text()
    assert told == said
    assert errors(tab) == []
    assert errors(again) == []
