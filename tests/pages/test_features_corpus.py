"""A feature over a corpus in a session: examples, histogram, test text, label, dead list, no files at all."""

import shutil
from typing import Any

import pytest

from mi_core.transcoders import CorpusPassInputs, CorpusPassResult, corpus_pass
from mi_core.transcoders.corpus_density import own_folder
from mi_core.transcoders.labels import export_labels, import_labels, label_of
from pages.shared.session import default_spec, hub
from tests.page_runs import until_idle
from tests.pages.conftest import assert_sound, texts

PROMPT = "The capital of France is"
SLOTS = ("feature_weights", "feature_corpus", "corpus_text_prompt", "corpus_text_test")
CARDS = (
    "**Where L{}F{} is strongest**",
    "**How strongly L{}F{} is active**",
    "**The prompt in L{}F{}'s colours**",
)


@pytest.fixture
def opened(frame: Any, tmp_path: Any, monkeypatch: Any) -> Any:
    """Opens one feature's page and waits for everything of it; the user's data folder is empty."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return lambda layer, feature, **link: ready(
        frame("features", prompt=PROMPT, ft_tab="feature", layer=str(layer), feature=str(feature), **link)
    )


def ready(session: Any) -> Any:
    """Wait until no run of this part of the page is under way."""
    return until_idle(session, SLOTS)


@pytest.fixture(scope="module")
def short_pass(_atlas: None, tmp_path_factory: Any) -> CorpusPassResult:
    """A pass over two sentences."""
    model, folder = hub().resident(default_spec()), tmp_path_factory.mktemp("corpus")
    assert model is not None
    (folder / "text.txt").write_text("The capital of France is Paris.\n\nJohn gave a ring to Mary.\n")
    text, to = str(folder / "text.txt"), str(folder / "features")
    inputs = CorpusPassInputs(text, save_to=to, top=2, groups=1, per_group=1, sampled=3, words=0)
    result = corpus_pass(model, inputs)
    assert all(check.passed for check in result.checks)
    return result


@pytest.fixture
def passed(short_pass: CorpusPassResult, tmp_path: Any, monkeypatch: Any) -> CorpusPassResult:
    """Its files in the user's data folder."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    shutil.copytree(short_pass.folder, own_folder(short_pass.transcoder_fingerprint))
    return short_pass


def test_files_are_shown_with_the_prompt_and_a_text(passed, opened):
    chosen = int(passed.counts.argmax())
    layer, feature = int(passed.layers[chosen]), int(passed.indices[chosen])
    session = opened(layer, feature, fc_test="The capital of <b>Rome</b>")
    for _ in range(2):
        assert_sound(session)
        shown = texts(session)
        for card in CARDS:
            assert card.format(layer, feature) in shown
        assert f"**Your text in L{layer}F{feature}'s colours**" in shown
        assert f"{passed.n_tokens:,} tokens" in [metric.value for metric in session.metric]
        assert ("Line: the prompt at" in shown) != ("The prompt has no line in it" in shown)
        session.run()
    for width in ("5", "all"):
        session.segmented_control(key="feature_around").set_value(width).run()
        assert_sound(session)


def test_a_dead_feature_says_so(passed, opened):
    chosen = int(passed.dead.argmax())
    session = opened(int(passed.layers[chosen]), int(passed.indices[chosen]))
    assert_sound(session)
    assert "never active on the corpus" in texts(session)


def test_a_label_is_saved_shown_and_taken_away(passed, opened):
    session = opened(1, 2)
    fingerprint = passed.transcoder_fingerprint
    session.text_input(key="_feature_label").set_value("  capital   cities ").run()
    assert label_of(fingerprint, 1, 2) == "capital cities"
    assert session.text_input(key="_feature_label").value == "capital cities"
    session.session_state["selected_feature"] = 3
    ready(session.run())
    assert session.text_input(key="_feature_label").value == ""
    assert label_of(fingerprint, 1, 2) == "capital cities"
    session.session_state["selected_feature"] = 2
    ready(session.run())
    assert session.text_input(key="_feature_label").value == "capital cities"
    import_labels(
        export_labels(fingerprint).replace("capital cities", "<b>bold</b>"), fingerprint, replace=True
    )
    session.run()
    assert session.text_input(key="_feature_label").value == "<b>bold</b>"
    session.text_input(key="_feature_label").set_value("").run()
    assert label_of(fingerprint, 1, 2) == ""
    assert_sound(session)


def test_nothing_is_fetched_from_neuronpedia_without_a_button(passed, opened):
    session = opened(1, 2)
    assert "Nothing is fetched unless you ask" in texts(session)
    session.text_input(key="feature_np_model").set_value("gemma-2-2b").run()
    session.text_input(key="feature_np_source").set_value("{layer}-x").run()
    assert "api/feature/gemma-2-2b/1-x/2" in texts(session)
    session.text_input(key="feature_np_source").set_value("../x").run()
    assert "is no source of Neuronpedia" in texts(session)
    assert_sound(session)


def test_without_files_the_page_says_how_to_make_them(opened, monkeypatch):
    monkeypatch.setattr("mi_core.transcoders.corpus_density.local_folders", lambda transcoder: ())
    monkeypatch.setattr("mi_core.transcoders.feature_files_places.local_folders", lambda transcoder: ())
    monkeypatch.setattr("mi_core.transcoders.feature_files_places.folder_of", lambda transcoder: None)
    session = opened(1, 2)
    assert_sound(session)
    shown = texts(session)
    assert "density, histogram and examples are not known" in shown
    assert "python -m mi_core corpus-pass --model atlas --text FILE" in shown
    assert any(button.label == "Run" for button in session.button)
