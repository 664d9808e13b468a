"""The tab Intervene: its numbers are the library's, the list is in the link, every way to add and remove."""

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from mi_core.tokens import tokenize
from mi_core.transcoders import InjectInputs, InjectResult, active_features, inject, load_transcoder
from pages.shared.session import default_spec, hub
from tests.pages.conftest import assert_sound, settle, texts

PROMPT = "The Louvre Museum is located in the city of"


@cache
def active_name() -> str:
    """A feature that is active at the last token, whatever the bundled transcoder is."""
    model = hub().resident(default_spec())
    assert model is not None
    ids = tokenize(model.tokenizer, PROMPT).ids
    found = active_features(model, load_transcoder(model), ids)
    last = (found.position == len(ids) - 1).nonzero().flatten()
    best = last[found.activation[last].argmax()]
    return f"L{int(found.layer[best])}F{int(found.feature[best])}"


def opened(frame: Callable[..., AppTest], **link: str) -> AppTest:
    """The tab, drawn twice: the second run must find what the first one left."""
    session = frame("features", **{"prompt": PROMPT, "ft_tab": "inject", **link})
    settle(session, "inject")
    session.run()
    assert_sound(session)
    return session


def result_of(session: AppTest) -> InjectResult:
    return session.session_state["_run_inject"].result


def press(session: AppTest, key: str) -> None:
    session.button(key=key).click().run()
    settle(session, "inject")
    assert_sound(session)


def test_the_tab_shows_the_librarys_numbers_and_its_link_restores_the_list(
    frame: Callable[..., AppTest],
) -> None:
    frame("home")  # the model is in memory from here on
    edits = f"{active_name()}@-1:ablate,{active_name()}@2:set=4"
    session = opened(frame, fi=edits, vs=" Rome", target=" Paris", fi_steps="3", fi_frozen="attention")
    model = hub().resident(default_spec())
    assert model is not None
    inputs = InjectInputs(
        PROMPT, edits, frozen="attention", answer=" Paris", distractor=" Rome", continuation=3
    )
    result, again = result_of(session), inject(model, inputs)
    assert result.inputs == inputs
    np.testing.assert_allclose(result.logits, again.logits, atol=1e-5)
    done, before, top = (element.value for element in session.dataframe[:3])
    assert sorted(text.split(" → ")[1] for text in done["from → to"]) == ["0", "4"]
    assert before["quantity"].tolist()[0] == "probability of the target"
    assert top["rank"].tolist() == [
        f"{before} → {after}" for before, after in zip(*result.top_ranks.tolist(), strict=True)
    ]
    assert session.query_params["fi"] == edits
    said = texts(session)
    for words in ("What is done", "Greedy continuation", "attention patterns are frozen"):
        assert words in said
    assert len(session.get("vega_lite_chart")) == 3


def test_with_everything_frozen_it_is_told_where_the_continuation_would_be(
    frame: Callable[..., AppTest],
) -> None:
    session = opened(frame, fi="L0F3@2:set=1", fi_frozen="everything")
    assert "No continuation with everything frozen" in " ".join(one.value for one in session.info)
    assert session.number_input(key="inject_steps").disabled
    session = opened(frame, fi="L0F3@2:set=1", fi_frozen="attention")
    assert "No continuation" not in " ".join(one.value for one in session.info)
    assert not session.number_input(key="inject_steps").disabled


def test_picking_adds_removing_brings_the_baseline_back(frame: Callable[..., AppTest]) -> None:
    frame("home")
    layer, feature = active_name()[1:].split("F")
    session = opened(frame, layer=layer, feature=feature, pos="11", ft_pins="L0F3,L1F5")
    assert result_of(session).kl == 0
    assert "Nothing is changed yet" in texts(session)
    press(session, "add_feature_edit")
    assert session.session_state["feature_edits"] == f"{active_name()}@11:set=5"
    assert result_of(session).kl > 0
    press(session, "add_pinned_edits")
    assert session.session_state["feature_edits"].endswith("L0F3@11:set=5,L1F5@11:set=5")
    press(session, "clear_feature_edits")
    assert result_of(session).kl == 0
    assert "Nothing is changed yet" in texts(session)


@pytest.mark.parametrize("mode", ["add", "scale", "ablate", "suppress"])
def test_every_mode_can_be_picked(frame: Callable[..., AppTest], mode: str) -> None:
    session = opened(frame, fi_steps="0")
    session.selectbox(key="inject_pick_mode").set_value(mode).run()
    press(session, "add_feature_edit")
    assert result_of(session).edits == (session.session_state["feature_edits"],)
    press(session, "remove_feature_edit_0")
    assert result_of(session).edits == ()


def test_what_cannot_be_read_or_does_not_fit_is_told(frame: Callable[..., AppTest]) -> None:
    session = opened(frame, fi="L0F3@2:set=1")
    for text, said in (
        ("L0F3@2:boost=1", "no edit of a feature"), ("L0F9999999@2:set=1", "no feature 9,999,999"),
        ("L0F3@99:set=1", "names token 99"), ("L0F3@2:set=1;drop", "is no number"),
    ):  # fmt: skip
        session.text_input(key="feature_edits").set_value(text).run()
        settle(session, "inject")
        assert_sound(session)
        assert said in texts(session).replace("\\", "")
    session.text_input(key="feature_edits").set_value("L0F3@2:ablate").run()
    settle(session, "inject")
    assert result_of(session).edits == ("L0F3@2:ablate",)
