"""The tabs of one feature and of the word search: links, figures, mistakes, pins."""

from collections.abc import Callable
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from mi_core.transcoders import FeatureWeightsInputs, WordSearchInputs, feature_weights, word_search
from pages.shared import running
from pages.shared.feature_one_fields import FIELDS
from pages.shared.link import read_link, write_link
from pages.shared.session import default_spec, hub
from tests.page_runs import until_idle
from tests.pages.conftest import assert_sound, texts

PROMPT = "The king of France lives in"
SLOTS = ("feature_source", "feature_weights", "feature_neighbours", "word_search")
GOOD = {
    "fw_at": "5",
    "fw_n": "7",
    "fw_rel": "3",
    "fw_word": "a & <b>",
    "fw_side": "reads",
    "fw_by": "cosine",
    "fw_k": "5",
}


@pytest.fixture
def opened(frame: Callable[..., AppTest]) -> Callable[..., AppTest]:
    """Opens the page and waits for everything of these tabs."""
    return lambda **link: ready(frame("features", prompt=PROMPT, **link))


def ready(session: Any) -> Any:
    """Wait until no run of these tabs is under way."""
    return until_idle(session, SLOTS)


def said(session: Any) -> str:
    """What is shown, without the marks that keep texts from being formatted."""
    return texts(session).replace("\\", "")


def test_every_choice_survives_its_link() -> None:
    values, problems = read_link(GOOD, FIELDS)
    assert problems == []
    assert len(values) == len(FIELDS) == len(GOOD)
    assert write_link(values, FIELDS) == GOOD


@pytest.mark.parametrize(
    ("key", "raw"),
    [("fw_side", "eats"), ("fw_by", "luck"), ("fw_n", "0"), ("fw_k", "x"), ("fw_word", "x" * 101)],
)
def test_a_bad_value_in_a_link_is_told_and_left_out(key: str, raw: str) -> None:
    values, problems = read_link({key: raw}, FIELDS)
    assert values == {}
    assert len(problems) == 1


def test_without_a_feature_the_tab_says_how_to_choose_one(opened) -> None:
    session = opened(ft_tab="feature")
    for _ in range(2):
        assert_sound(session)
        assert "No feature is chosen" in said(session)
        ready(session.run())


def test_a_link_opens_a_feature_with_the_librarys_words(opened) -> None:
    session = opened(ft_tab="feature", layer="3", feature="10", fw_at="5", fw_n="4", fw_rel="2")
    model = hub().resident(default_spec())
    assert model is not None
    result = feature_weights(model, FeatureWeightsInputs("L3F10", tokens=4))
    for _ in range(2):
        assert_sound(session)
        shown = said(session)
        assert "**L3F10: words written (layer 5)**" in shown
        assert f"Standard deviation over the vocabulary {result.effect_deviation[3]:.3g}" in shown
        for title in ("where it writes", "effects on all words", "words read", "who reads alike",
                      "who writes alike", "upstream (input-independent)"):  # fmt: skip
            assert f"**L3F10: {title}**" in shown
        assert "Independent of the input" in shown
        ready(session.run())


@pytest.mark.parametrize(
    ("link", "sentence"),
    [
        ({"layer": "99", "feature": "1"}, "There is no layer 99"),
        ({"layer": "3", "feature": "99999"}, "Layer 3 has no feature 99,999"),
        ({"layer": "6", "feature": "1", "fw_at": "2"}, "does not write to layer 2"),
        ({"layer": "6", "feature": "1", "fw_at": "<b>"}, "does not write to layer"),
    ],
)
def test_what_is_not_there_is_told(opened, monkeypatch, link: dict[str, str], sentence: str) -> None:
    monkeypatch.setattr(running, "PATIENCE_SECONDS", 0.0)  # a slow machine: figures come with a later run
    hub().results.clear()
    session = opened(ft_tab="feature", **link)
    assert_sound(session)
    assert sentence in said(session)


def test_pinning_is_kept_and_leads_back(opened) -> None:
    session = opened(ft_tab="feature", layer="3", feature="10", fw_rel="1")
    ready(session.button(key="feature_pin").click().run())
    assert session.session_state["feature_pins"] == "L3F10"
    ready(session.number_input(key="selected_feature").set_value(11).run())
    assert "**L3F11: words read**" in said(session)
    ready(session.button(key="pinned_L3F10").click().run())
    assert_sound(session)
    assert "**L3F10: words read**" in said(session)
    session.button(key="feature_intervene").click().run()
    assert_sound(session)
    assert session.session_state["features_tabs"] == "Intervene"


def test_a_word_is_searched_on_both_sides(opened) -> None:
    model = hub().resident(default_spec())
    for side, verb in (("writes", "write"), ("reads", "read")):
        session = opened(ft_tab="words", fw_word="king", fw_side=side, fw_k="6")
        assert_sound(session)
        assert f"**Features that {verb} ·king**" in said(session)
        assert ("**Where ·king is written**" in said(session)) == (side == "writes")
        assert model is not None
        wanted = word_search(model, WordSearchInputs("king", side, count=6))  # type: ignore[arg-type]
        assert session.session_state["_run_word_search"].result.features == wanted.features


@pytest.mark.parametrize(
    "word", ["", "  ", "<script>alert(1)</script>", "日本 🎉", "**x** $y$", "·king", "x" * 100]
)
def test_hostile_words(opened, word: str) -> None:
    session = opened(ft_tab="words", fw_word=word)
    for _ in range(2):
        assert_sound(session)
        if not word.strip():
            assert "Type a word" in said(session)
        ready(session.run())
