"""Whatever a user types, every page that asks for a prompt draws a figure or says in a sentence why not."""

from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from mi_core.model.spec import ModelSpec
from mi_core.tokens import tokenize
from pages.shared.catalogue import PAGES
from pages.shared.features_fields import TABS
from pages.shared.session import hub
from tests.disk import save_model
from tests.page_runs import until_idle
from tests.pages.conftest import assert_sound, load, open_frame, texts
from tests.transcoders import tiny_clt, write_clt

LOOK = [card.name for card in PAGES if card.section == "Look"]
ASKING = [*LOOK, *(card.name for card in PAGES if card.section == "Intervene")]

PROMPTS = {
    "empty": "",
    "one token": "a",
    "one space": " ",
    "duplicates": "the the the the the",
    "emoji and Chinese": "\N{GRINNING FACE} 世界 \N{FAMILY}",
    "right to left": "שלום עולם",
    "markup": "<script>alert(1)</script> $x$ **b** [l](http://x)",
    "line breaks": "a\nb\n\nc",
}
STRANGE = ("empty", "one token", "duplicates", "emoji and Chinese", "markup", "line breaks")
ASKED = {
    "prompt": {"fq_sort": "effect"},
    "feature": {"layer": "1", "feature": "2"},
    "words": {"fw_word": " the"},
    "inject": {"fi": "L0F1@-1:set=5,L1F2@1:ablate"},
    "steer": {"fg_f": "L0F1:add=5", "fg_n": "5"},
    "planning": {"fp_up": "L0F1", "target": " a", "fp_n": "1", "fp_grid": "1", "fr_grid": "1"},
    "graph": {},
    "probe": {},
}
"""What makes every tab of the features page draw something."""
RUNS = {
    "prompt": ("features_on_prompt",),
    "feature": ("feature_weights",),
    "words": ("word_search",),
    "inject": ("inject",),
    "steer": ("feature_generation",),
    "planning": ("planning",),
    "graph": ("feature_graph",),
    "probe": ("clt_probe",),
}
"""What draws it."""
LONG = "The Space Needle is in downtown Seattle. " * 180


@pytest.fixture(scope="module")
def long_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model without a BOS token of its own that reads 4,096 tokens."""
    return save_model(tmp_path_factory.mktemp("long") / "m", "gpt_neox", max_position_embeddings=4096)


def test_the_pages_that_look_are_there() -> None:
    assert LOOK == ["model", "attention", "logit_lens", "neurons", "attribution"]


@pytest.mark.parametrize("page", ASKING)
def test_no_prompt_breaks_a_page(page: str, frame: Callable[..., AppTest]) -> None:
    session = frame(page)
    assert_sound(session)
    for name, prompt in PROMPTS.items():
        session.session_state["prompt"] = prompt
        session.run()
        assert_sound(session)
        assert "broke" not in texts(session), name


@pytest.mark.parametrize("page", ASKING)
def test_two_thousand_tokens_without_a_bos(page: str, long_model: Path) -> None:
    load(ModelSpec(str(long_model)))
    session = open_frame(page, model=str(long_model), prompt=LONG)
    about = hub().about(ModelSpec(str(long_model)))
    assert about is not None
    assert 1_900 < len(tokenize(about.tokenizer, LONG)) < 2_300
    assert_sound(session)
    assert "broke" not in texts(session)


@pytest.mark.parametrize("tab", TABS)
def test_no_prompt_breaks_a_tab_of_features(tab: str, frame: Callable[..., AppTest]) -> None:
    session = frame("features", ft_tab=tab, **ASKED[tab])
    for name in STRANGE:
        session.session_state["prompt"] = PROMPTS[name]
        until_idle(session.run(), RUNS[tab])
        assert_sound(session)
        assert bool(session.get("vega_lite_chart")) == (name != "empty"), name
        assert ("Type a prompt" in texts(session)) == (name == "empty"), name


@pytest.fixture(scope="module")
def long_features(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A tiny model that reads 4,096 tokens, and the folder of a tiny transcoder of it."""
    place = tmp_path_factory.mktemp("long_features")
    folder = save_model(place / "m", max_position_embeddings=4096)
    load(ModelSpec(str(folder)))
    model = hub().resident(ModelSpec(str(folder)))
    assert model is not None
    return folder, write_clt(tiny_clt(model), place / "clt")


@pytest.mark.parametrize("tab", TABS)
def test_two_thousand_tokens_without_a_bos_in_features(tab: str, long_features: tuple[Path, Path]) -> None:
    folder, transcoder = long_features
    load(ModelSpec(str(folder)))
    session = open_frame(
        "features", model=str(folder), ft_tc=str(transcoder), prompt=LONG, bos="never", ft_tab=tab,
        **ASKED[tab],
    )  # fmt: skip
    assert_sound(session)
    asks = [button for button in session.button if button.label == "Run"]
    assert session.get("vega_lite_chart") or asks
