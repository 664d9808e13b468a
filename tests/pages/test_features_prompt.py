"""The tabs "This prompt" and "Probe" in a session: links, filters, odd prompts, files."""

import json
from typing import Any

import pytest

from tests.page_runs import until_idle
from tests.pages.conftest import assert_sound, texts

PROMPT = "The capital of France is"
SLOTS = ("feature_source", "features_on_prompt", "clt_probe")
CARDS = (
    "**Active features by layer and token**",
    "**Leading features, token by token**",
    "**Reconstruction error by layer and token**",
)


@pytest.fixture
def opened(frame: Any) -> Any:
    """Opens the page and waits for everything on it."""
    return lambda **link: ready(frame("features", **{"prompt": PROMPT, **link}))


def ready(session: Any) -> Any:
    """Wait until no run of the page is under way."""
    return until_idle(session, SLOTS)


def test_the_tab_shows_everything_at_once(opened):
    session = opened()
    for _ in range(2):
        assert_sound(session)
        for title in (*CARDS, "**Leading features**"):
            assert title in texts(session)
        assert "1 leading special token masked" in texts(session)
        assert len(session.dataframe) >= 1
        ready(session.run())


def test_a_link_sorts_filters_and_chooses(opened):
    first = opened()
    row = first.dataframe[0].value.iloc[0]
    session = opened(
        fq_sort="effect", target="Paris", fq_tokens="4,5", fq_layers="0,1,2", fq_n="7",
        layer=str(row["layer"]), feature=row["feature"].split("F")[1], ft_bos="1",
    )  # fmt: skip
    for _ in range(2):
        assert_sound(session)
        said = texts(session)
        assert "**Effects of features on the target**" in said
        assert "Listed: layers 0, 1, 2" in said.replace("\\", "")
        assert "special tokens are shown" in said
        table = session.dataframe[0].value
        assert set(table["layer"]) <= {0, 1, 2}
        assert set(table["position"]) <= {4, 5}
        sizes = table["effect_logits"].abs().tolist()
        assert sizes == sorted(sizes, reverse=True)
        assert any(button.label == "Pin" for button in session.button)
        ready(session.run())


def test_what_a_link_asks_for_and_the_prompt_lacks_is_told(opened):
    session = opened(fq_tokens="3,99", fq_layers="1,77")
    assert_sound(session)
    assert "Left out: tokens 99" in texts(session)
    assert "Left out: layers 77" in texts(session)
    assert session.session_state["feature_tokens"] == [3]
    assert_sound(opened(fq_tokens="x", fq_layers="1;2", fq_sort="beauty", fq_dense="1000"))


def test_hiding_dense_features_works_where_densities_are_known_and_is_told_where_not(opened, monkeypatch):
    import numpy as np

    from mi_core.transcoders import prompt_parts

    monkeypatch.setattr(prompt_parts, "densities", lambda model, transcoder: None)
    unknown = opened(prompt=f"{PROMPT} big", fq_dense="5")
    assert_sound(unknown)
    assert "No density is known here" in texts(unknown)
    every = {layer: np.ones(1024, np.float32) for layer in range(8)}
    monkeypatch.setattr(prompt_parts, "densities", lambda model, transcoder: every)
    session = opened(prompt=f"{PROMPT} small", fq_dense="5")
    assert_sound(session)
    assert "are hidden because they are dense" in texts(session)


@pytest.mark.parametrize("prompt", ["", "a", "🎉 日本", "the " * 150])
@pytest.mark.parametrize("tab", ["prompt", "probe"])
def test_odd_prompts(opened, prompt, tab):
    session = opened(prompt=prompt, ft_tab=tab, bos="never", pos="900")
    assert_sound(session)
    if prompt and tab == "prompt":
        assert CARDS[0] in texts(session)


def test_a_pin_is_kept_in_the_session(opened):
    session = opened()
    row = session.dataframe[0].value.iloc[0]["feature"]
    layer, feature = row[1:].split("F")
    session = opened(layer=layer, feature=feature)
    ready(session.button(key="feature_prompt_pin").click().run())
    assert session.session_state["feature_pins"] == row
    assert any(button.label == "Unpin" for button in session.button)


def test_the_probe_runs_by_itself(opened):
    session = opened(ft_tab="probe", layer="3", fb_s="2.5")
    for _ in range(2):
        assert_sound(session)
        said = texts(session)
        assert "**Strongest features of layer 3 at every token**" in said
        assert "at every token**" in said
        assert "times 2.5" in said.replace("\\", "")
        assert [metric.label for metric in session.metric if metric.label == "Concentration ratio"]
        ready(session.run())
    asked = opened(ft_tab="probe", fb_which="chosen")
    assert_sound(asked)
    assert "No feature is chosen" in texts(asked)


def test_a_probe_from_a_file(opened):
    from tests.unit.test_transcoder_probe import by_hand

    session = opened(ft_tab="probe")
    session.file_uploader[0].upload("probe.json", b"{}", "application/json")
    session.run()
    assert_sound(session)
    assert "not a feature probe" in texts(session)
    session.file_uploader[0].upload("probe.json", by_hand(causal__last_rank=1).encode(), "application/json")
    session.run()
    assert_sound(session)
    said = texts(session)
    assert "Check failed" in said
    assert "Injecting L5F2" in said.replace("\\", "")
    drawn = [json.loads(chart.proto.spec) for chart in session.get("vega_lite_chart")]
    assert len(drawn) == 3
    ready(session.button(key="probe_close").click().run())
    assert_sound(session)
    assert "Check failed" not in texts(session)


def test_names_of_features_are_shown_as_text(opened, monkeypatch):
    from mi_core.transcoders import labels

    row = opened().dataframe[0].value.iloc[0]["feature"]
    layer, feature = row[1:].split("F")
    named = {row: labels.Label("**capital** <b>cities</b>", labels.YOU, "")}
    monkeypatch.setattr(labels, "labels_of", lambda fingerprint, folder=None: named)
    session = opened(layer=layer, feature=feature)
    assert_sound(session)
    assert session.dataframe[0].value.iloc[0]["label"] == "**capital** <b>cities</b>"
    assert r"\*\*capital\*\* \<b\>cities\</b\>: activation" in texts(session)
