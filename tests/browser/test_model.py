"""The model page in a real browser: click a box of the plan, mark a weight, read a token, share the link."""

import re
from collections.abc import Callable
from typing import Any

from tests.browser.conftest import Server
from tests.browser.rest import at_rest
from tests.browser.test_first_light import errors, in_view, press, tooltip_at, wait_for_model


def test_click_a_box_and_open_the_link(server: Server, new_tab: Callable[..., Any]) -> None:
    tab = new_tab(f"{server.url}/model")
    wait_for_model(tab)
    tab.get_by_text("Weights: the whole model").wait_for()
    click(tab, "architecture", "part", "layer 5, MLP", across=0.5, down=75)
    tab.get_by_text("Weights: layer 5, MLP").wait_for()
    tab.wait_for_url(re.compile(r"layer=5&kind=mlp"))
    click(tab, "architecture", "part", "layer 5, attention", across=0.2, down=225)
    tab.get_by_text("Weights: layer 5, attention").wait_for()
    tab.wait_for_url(re.compile("layer=5&kind=attn"))
    at_rest(tab)

    again = new_tab(tab.url)
    again.get_by_text("Weights: layer 5, attention").wait_for()
    click(again, "architecture", "part", "embed", across=0.05, down=60)
    again.get_by_text("Weights: embedding").wait_for()
    again.wait_for_url(re.compile("md_part=embed"))
    assert errors(tab) == []
    assert errors(again) == []


def test_click_a_token_of_the_coloured_text(server: Server, new_tab: Callable[..., Any]) -> None:
    tab = new_tab(f"{server.url}/model?md_tab=next")
    wait_for_model(tab)
    said = click(tab, "surprise", "position", "5", across=0.1, down=20)
    assert "other choices" in said["note"]
    tab.wait_for_url(re.compile("pos=5"))
    after = tab.locator(".st-key-next_facts [data-testid=stMetric]", has_text="After token")
    after.get_by_text("5 ·Tower").wait_for()
    assert errors(tab) == []


def click(tab: Any, card: str, field: str, value: str, *, across: float, down: float) -> dict[str, str]:
    """Go right from a starting point until the tooltip says the value; click there."""
    drawn = in_view(tab, card)
    box = drawn.bounding_box()
    x, y = box["x"] + across * box["width"], box["y"] + down
    for _ in range(120):
        said = tooltip_at(tab, x, y)
        if said.get(field) == value:
            press(tab)
            return said
        x += 8
    raise AssertionError(f"no {field} {value} in {box}")
