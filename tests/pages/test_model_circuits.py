"""The circuits tab of the model page: its figures, what a link opens, large models, what is not there."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from mi_core.analyses import CompositionInputs, HeadViewsInputs, composition, head_views
from mi_core.model.spec import ModelSpec
from pages.shared import link, model_circuits_fields
from pages.shared.session import default_spec, hub
from tests.disk import save_model
from tests.pages.conftest import assert_sound, load, open_frame, settle, texts

SLOTS = ("copying_scores", "head_views", "composition")


def opened(session: AppTest, slots: tuple[str, ...] = SLOTS) -> AppTest:
    for slot in slots:
        settle(session, slot)
    assert_sound(session)
    return session


def panels(session: AppTest) -> list[dict[str, Any]]:
    return [json.loads(chart.proto.spec) for chart in session.get("vega_lite_chart")]


def test_the_tab_shows_the_librarys_numbers_and_opens_twice(frame: Callable[..., AppTest]) -> None:
    head = {"layer": "3", "head": "1", "mc_circuit": "QK", "mc_n": "3", "mc_k": "4"}
    opened(frame("model", md_tab="circuits", **head))
    session = opened(frame("model", md_tab="circuits", **head))
    assert len(panels(session)) == 5  # copying, directions, spectrum, pairs, strongest pairs
    model = hub().resident(default_spec())
    assert model is not None
    shown = session.session_state["_run_head_views"].result
    again = head_views(model, HeadViewsInputs(3, 1, "QK", 3, 4))
    np.testing.assert_allclose(shown.right_top_values, again.right_top_values)
    scores = composition(model, CompositionInputs()).scores
    np.testing.assert_allclose(session.session_state["_run_composition"].result.scores, scores, atol=1e-7)


def test_a_link_opens_a_pair_of_heads(frame: Callable[..., AppTest]) -> None:
    session = frame("model", md_tab="circuits", mc_pair="L2H0-L3H0", mc_kind="V", mc_excess="1")
    opened(session, ("copying_scores", "composition"))
    assert "L2H0 \u2192 L3H0" in texts(session)
    assert {metric.label for metric in session.metric} >= {"K-composition", "Random"}
    assert "Click a head above" in texts(session)
    session.button(key="look_reader").click().run()
    opened(session)
    assert session.session_state["selected_layer"] == 3
    assert session.session_state["selected_head"] == 0
    session.button(key="close_pair").click().run()
    assert session.session_state["composition_pair"] is None
    assert_sound(session)


def test_heads_and_pairs_that_the_model_does_not_have(frame: Callable[..., AppTest]) -> None:
    session = frame("model", md_tab="circuits", layer="3", head="77", mc_pair="L3H0-L2H0")
    opened(session, ("copying_scores", "composition"))
    assert "This model has no head 77" in texts(session)
    assert "L3H0 \u2192 L2H0 is no pair of this model" in texts(session)
    assert session.session_state["selected_head"] == 77  # kept for another model, until the user lets go
    session.button(key="close_head").click().run()
    session.button(key="close_pair").click().run()
    assert "Click a head above" in texts(session)
    assert "no pair" not in texts(session)


def test_more_heads_than_fit_are_shown_by_pairs_of_layers_first(
    frame: Callable[..., AppTest], tmp_path: Path
) -> None:
    folder = save_model(tmp_path / "wide", num_attention_heads=16, num_key_value_heads=4, num_hidden_layers=7)
    load(ModelSpec(str(folder)))
    session = frame("model", model=str(folder), md_tab="circuits")
    opened(session, ("copying_scores", "composition"))
    assert len(panels(session)) == 3  # copying, pairs of layers, strongest pairs
    assert "Click a pair of layers" in texts(session)
    session = open_frame("model", model=str(folder), md_tab="circuits", mc_layers="1-4")
    opened(session, ("copying_scores", "composition"))
    assert len(panels(session)) == 4
    assert "layer 1 to layer 4" in texts(session)
    session = open_frame("model", model=str(folder), md_tab="circuits", mc_layers="4-1")
    opened(session, ("copying_scores", "composition"))
    assert "Layers 4 to 1 are no pair of this model" in texts(session)


def test_a_model_of_one_layer(frame: Callable[..., AppTest], tmp_path: Path) -> None:
    folder = save_model(tmp_path / "flat", num_hidden_layers=1)
    load(ModelSpec(str(folder)))
    session = opened(frame("model", model=str(folder), md_tab="circuits"), ("copying_scores",))
    assert "no head can read what another writes" in texts(session)


@pytest.mark.parametrize(
    ("name", "good", "value"),
    [
        ("composition_pair", "L2H0-L13H11", ((2, 0), (13, 11))),
        ("composition_layers", "2-13", (2, 13)),
    ],
)
def test_pairs_in_links(name: str, good: str, value: object) -> None:
    field = next(field for field in model_circuits_fields.FIELDS if field.name == name)
    assert field.parse(good) == value
    assert field.show(value) == good
    for bad in ("", "L2H0", "2-", "L2H0-L3H0-L4H0", "a-b"):
        with pytest.raises(link.BadValue):
            field.parse(bad)
