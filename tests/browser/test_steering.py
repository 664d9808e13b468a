"""Steering in a real browser: the example's curve, the tab of layers, a vector from a file."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.browser.conftest import Server
from tests.browser.rest import at_rest
from tests.browser.test_first_light import begun, chart, errors, wait_for_model

PROMPT = "prompt=The+Louvre+Museum+is+located+in+the+city+of"


def test_the_example_is_one_click_and_layers_are_the_next(
    server: Server, new_tab: Callable[..., Any]
) -> None:
    tab = new_tab(f"{server.url}/steering?{PROMPT}")
    wait_for_model(tab)
    begun(tab, "steering_dose")
    chart(tab, "steering_dose")
    at_rest(tab)
    tab.get_by_role("button", name="Example: from Paris to Rome").click()
    tab.wait_for_url(re.compile("st_layer=5"))
    begun(tab, "steering_dose")
    tab.get_by_text("It reaches 0.5 at coefficient 1.26").wait_for()
    tab.get_by_role("tab", name="Layers").click()
    tab.wait_for_url(re.compile("st_tab=layers"))
    for slot in ("steering_layers", "steering_convergence", "steering_routing"):
        begun(tab, slot)
    assert "Heatmap of cosine" in (chart(tab, "steering_cosine").get_attribute("aria-label") or "")
    tab.get_by_text("Attention to the steered tokens", exact=True).wait_for()
    assert not errors(tab)


def test_a_vector_from_a_file_is_used_or_refused(
    server: Server, new_tab: Callable[..., Any], tmp_path: Path
) -> None:
    np.save(tmp_path / "bad.npy", np.full(128, np.nan))
    np.save(tmp_path / "good.npy", np.random.default_rng(0).standard_normal(128))
    tab = new_tab(f"{server.url}/steering?{PROMPT}&st_from=file")
    wait_for_model(tab)
    upload = tab.locator("[data-testid=stFileUploader] input[type=file]")
    upload.set_input_files(str(tmp_path / "bad.npy"))
    tab.get_by_text("contains NaN or an infinity").wait_for()
    at_rest(tab)
    upload.set_input_files(str(tmp_path / "good.npy"))
    tab.get_by_text("Read from 'good.npy'").first.wait_for()
    begun(tab, "steering_dose")
    chart(tab, "steering_dose")
    assert not errors(tab)
