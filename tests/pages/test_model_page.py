"""The model page: every tab twice, what a click filters, what a link opens, what is not there."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from mi_core.analyses import InspectInputs, NextTokenInputs, inspect_model, next_token
from mi_core.model.spec import ModelSpec
from pages.shared.model_fields import TABS
from pages.shared.session import default_spec, hub
from tests.disk import save_model
from tests.pages.conftest import assert_sound, load, open_frame, settle, texts

PROMPT = "The Louvre Museum is located in the city of"


def opened(session: AppTest, *slots: str) -> AppTest:
    for slot in slots:
        settle(session, slot)
    assert_sound(session)
    return session


def specs(session: AppTest) -> list[dict[str, Any]]:
    return [json.loads(chart.proto.spec) for chart in session.get("vega_lite_chart")]


def atlas() -> Any:
    model = hub().resident(default_spec())
    assert model is not None
    return model


@pytest.mark.parametrize("tab", [word for word in TABS if word != "circuits"])
def test_every_tab_opens_twice(frame: Callable[..., AppTest], tab: str) -> None:
    for _ in range(2):
        session = opened(frame("model", md_tab=tab), "next_token" if tab == "next" else "inspect")
        assert session.session_state["model_tabs"] == TABS[tab]
        assert session.run().session_state["model_tabs"] == TABS[tab]


def test_without_a_choice_the_whole_model_is_listed(frame: Callable[..., AppTest]) -> None:
    session = opened(frame("model"), "inspect")
    result = inspect_model(atlas())
    table = session.dataframe[0].value
    assert table["weight"].tolist() == [w.full_name for w in result.weights if w.head is None]
    np.testing.assert_allclose(
        table["frobenius"],
        [n for n, w in zip(result.frobenius, result.weights, strict=True) if w.head is None],
    )


@pytest.mark.parametrize(
    ("link", "first", "count"),
    [
        ({"layer": "3", "kind": "attn"}, "blocks.3.attn.W_Q", 4),
        ({"layer": "3", "kind": "mlp"}, "blocks.3.mlp.W_gate", 3),
        ({"layer": "3"}, "blocks.3.attn.W_Q", 9),
        ({"layer": "3", "md_part": "norm"}, "blocks.3.input_layernorm.weight", 2),
        ({"md_part": "embed"}, "embed.W_E", 1),
        ({"md_part": "unembed"}, "unembed.W_U", 1),
        ({"md_part": "final_norm"}, "model.norm.weight", 1),
        ({"layer": "3", "kind": "attn", "md_heads": "1"}, "blocks.3.attn.W_Q", 20),
        ({"layer": "99", "kind": "attn"}, "embed.W_E", 75),
    ],
)
def test_a_link_filters_the_table(
    frame: Callable[..., AppTest], link: dict[str, str], first: str, count: int
) -> None:
    session = opened(frame("model", **link), "inspect")
    table = session.dataframe[0].value
    assert (table["weight"].iloc[0], len(table)) == (first, count)


def test_a_click_on_a_box_chooses_a_part_and_show_all_lets_go(frame: Callable[..., AppTest]) -> None:
    session = opened(frame("model", pos="4"), "inspect")
    live = next(layer for layer in specs(session)[0]["layer"] if "params" in layer)
    assert live["params"][0]["select"]["fields"] == ["part", "layer"]
    session.session_state["selected_layer"], session.session_state["selected_kind"] = 2, "mlp"  # its callback
    session.run()
    assert "layer 2, MLP" in texts(session)
    next(button for button in session.button if button.label == "Show all").click().run()
    assert session.session_state["selected_layer"] is None
    assert session.session_state["selected_position"] == 4, "the token stays chosen"
    assert "the whole model" in texts(session)


def test_singular_values_come_on_request(frame: Callable[..., AppTest]) -> None:
    session = opened(frame("model", layer="1", kind="attn"), "inspect")
    assert "largest_singular_value" not in session.dataframe[0].value
    session.button(key="start_singular").click().run()
    opened(session, "inspect_singular")
    shown = session.dataframe[0].value["largest_singular_value"]
    result = inspect_model(atlas(), InspectInputs(singular_values=True))
    expected = [result.largest_singular_value[result.index_of(f"blocks.1.attn.W_{r}") or 0] for r in "QKVO"]
    np.testing.assert_allclose(shown, expected)
    session.selectbox(key="model_statistic").set_value("largest_singular_value").run()
    assert_sound(session)


def test_weights_that_take_long_wait_for_a_button(
    frame: Callable[..., AppTest], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mi_core.analyses.inspect_run.NUMBERS_PER_SECOND", 1e6)
    session = opened(frame("model"), "inspect")
    assert len(specs(session)) == 1, "the plan is there at once"
    assert "frobenius" not in session.dataframe[0].value
    session.button(key="start_inspect_numbers").click().run()
    opened(session, "inspect_numbers")
    assert len(specs(session)) == 3
    assert np.isfinite(session.dataframe[0].value["frobenius"].to_numpy(float)).all()


def test_a_link_opens_one_weight(frame: Callable[..., AppTest]) -> None:
    session = opened(frame("model", md_weight="blocks.2.attn.W_K[1]"), "inspect", "inspect_weight")
    assert "Singular values of blocks.2.attn.W_K[1]" in texts(session).replace("\\", "")
    assert len(specs(session)) == 5  # plan, entries, spectrum, lines, embeddings
    session.button(key="close_weight").click().run()
    assert len(specs(session)) == 3


def test_a_weight_that_is_not_there_is_said(frame: Callable[..., AppTest]) -> None:
    session = opened(frame("model", md_weight="<img src=x>"), "inspect")
    assert any("no weight called `<img src=x>`" in element.value for element in session.warning)


def test_next_tokens_are_the_librarys(frame: Callable[..., AppTest]) -> None:
    link = {"prompt": PROMPT, "pos": "5", "md_k": "7", "md_temp": "2", "target": "Paris"}
    session = opened(frame("model", md_tab="next", **link), "next_token")
    table = session.dataframe[0].value
    inputs = NextTokenInputs(PROMPT, k=7, position=5, temperature=2.0, answer="Paris")
    expected = next_token(atlas(), inputs)
    np.testing.assert_allclose(table["probability"], expected.probabilities, rtol=1e-6)
    assert table["id"].tolist() == expected.ids.tolist()
    session.button(key="next_last").click().run()
    opened(session, "next_token")
    assert session.session_state["_run_next_token"].result.position == 11


@pytest.mark.parametrize("prompt", ["", "a", "日本 \N{GRINNING FACE}", "the the the the", "Paris " * 120])
def test_any_prompt_can_be_looked_at(frame: Callable[..., AppTest], prompt: str) -> None:
    session = frame("model", md_tab="next")
    session.session_state["prompt"] = prompt
    session.run()
    assert_sound(session)
    if prompt:
        opened(session, "next_token")
        assert len(specs(session)) == 2


def test_a_prompt_that_is_too_long_is_one_sentence(frame: Callable[..., AppTest]) -> None:
    session = frame("model", md_tab="next", prompt="Paris " * 2000)
    assert_sound(session)
    assert any("at most 256" in element.value for element in session.info)


def test_a_position_that_is_not_there_is_said(frame: Callable[..., AppTest]) -> None:
    session = opened(frame("model", md_tab="next", pos="77"), "next_token")
    assert any("no token 77" in element.value for element in session.info)


@pytest.mark.usefixtures("_atlas")
def test_a_model_with_an_unread_key_says_so(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "odd")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "secret_scale": 2}))
    load(ModelSpec(str(folder)))
    session = opened(open_frame("model", model=str(folder), md_tab="config"), "inspect")
    assert any("secret_scale" in element.value for element in session.warning)
