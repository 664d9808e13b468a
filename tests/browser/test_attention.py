"""Attention in a real browser: look at a head, lock it, mask the first token, take its PDF, open its link."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.browser.conftest import Server
from tests.browser.rest import at_rest
from tests.browser.test_first_light import chart, errors, wait_for_model

LAYERS, MARGIN, HEADER = 8, 30, 16  # of Atlas, and of the canvas


def point_at(tab: Any, layer: int, head: int) -> tuple[float, float]:
    """Move the pointer to a head's picture; returns where it is."""
    grid = tab.locator("#heads")
    at_rest(tab)
    grid.scroll_into_view_if_needed()
    box = grid.bounding_box()
    cell = (box["height"] - HEADER) / LAYERS
    x, y = box["x"] + MARGIN + (head + 0.5) * cell, box["y"] + HEADER + (layer + 0.5) * cell
    tab.mouse.move(x - 3, y - 3)
    tab.mouse.move(x, y)
    return x, y


def wait_for_label(tab: Any, said: str) -> None:
    tab.locator(f"#heads[aria-label*='{said}']").wait_for()


def test_lock_mask_export_and_link(server: Server, new_tab: Callable[..., Any], tmp_path: Path) -> None:
    tab = new_tab(f"{server.url}/attention")
    wait_for_model(tab)
    wait_for_label(tab, "32 shown")

    x, y = point_at(tab, 3, 2)  # a preview needs no run of the page
    tab.locator("#title", has_text="L3H2").wait_for()
    assert "layer=" not in tab.url
    tab.mouse.click(x, y)
    tab.get_by_role("heading", name="Layer 3, head 2").wait_for()
    tab.wait_for_url("**layer=3**head=2**")

    tab.mouse.dblclick(*point_at(tab, 3, 2))  # alone, and the page still shows the same head
    wait_for_label(tab, "1 shown")
    at_rest(tab)
    tab.locator("#heads").press("Space")
    wait_for_label(tab, "32 shown")
    at_rest(tab)

    tab.locator("#heads").press("ArrowRight")
    tab.locator("#title", has_text="L3H3").wait_for()
    tab.locator("#heads").press("Enter")
    tab.get_by_role("heading", name="Layer 3, head 3").wait_for()
    tab.wait_for_url("**head=3**")
    at_rest(tab)

    tab.get_by_text("Mask the first token").click()
    tab.wait_for_url("**at_mask=1**")
    tab.get_by_text("is masked", exact=False).first.wait_for()
    at_rest(tab)

    square = tab.locator(".st-key-card_attention_square")
    square.get_by_role("button", name="Export").click()
    with tab.expect_download() as download:
        tab.get_by_role("button", name="PDF", exact=True).click()
    download.value.save_as(tmp_path / "head.pdf")
    assert (tmp_path / "head.pdf").read_bytes().startswith(b"%PDF")
    assert download.value.suggested_filename.startswith("attention_atlas_")

    again = new_tab(tab.url)
    again.get_by_role("heading", name="Layer 3, head 3").wait_for()
    chart(again, "attention_square")
    at_rest(again)
    assert again.get_by_role("checkbox", name="Mask the first token").is_checked()
    assert again.locator("#title").inner_text() == "L3H3, shown below"
    assert errors(tab) == []
    assert errors(again) == []
