"""One feature in a text of one's own: the weights' own numbers, the scale, BOS, mistakes."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mi_core.errors import InputError
from mi_core.transcoders import CorpusPassInputs, FeatureTextInputs, FeatureTextResult, corpus_pass
from mi_core.transcoders import feature_on_text as look
from tests.corpus_oracle import TEXT, naive, worded
from tests.transcoders import MemorySource, tiny_plt, use

PROMPT = "The capital of Poland is Warsaw and Big Ben is in London"


@pytest.fixture
def model(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return worded()


def test_every_feature_is_the_weights_own_number(model):
    ids = model.tokenizer(PROMPT)["input_ids"]
    slow = naive(model, [ids])
    active = 0
    for layer, index in itertools.product(range(4), range(12)):
        result = look(model, FeatureTextInputs(PROMPT, f"L{layer}F{index}"))
        assert all(check.passed for check in result.checks), result.checks
        np.testing.assert_allclose(result.activations, slow[layer][0][:, index], rtol=1e-4, atol=1e-5)
        passed = result.pre_activations > result.threshold
        passed[0] = False
        np.testing.assert_array_equal(result.activations > 0, passed)
        assert result.active == passed.sum()
        assert np.isnan(result.shown[0]), "BOS is grey"
        active += result.active
    assert active > 50


def test_top_k_switches_off_what_stronger_features_beat(model):
    transcoder = tiny_plt(model, skip=False)
    source = transcoder.source
    assert isinstance(source, MemorySource)
    source.encoders = {layer: replace(one, k=1) for layer, one in source.encoders.items()}
    use(model, transcoder, "top-k")
    results = [look(model, FeatureTextInputs(PROMPT, f"L2F{i}", transcoder="top-k")) for i in range(12)]
    assert all(check.passed for result in results for check in result.checks)
    together = np.stack([result.activations for result in results])
    assert ((together > 0).sum(0) <= 1).all()
    assert any((result.pre_activations > 0).sum() > result.active for result in results)


def test_the_scale_is_the_corpus_and_else_the_text(model, tmp_path):
    alone = look(model, FeatureTextInputs(PROMPT, "L1F2"))
    assert (alone.bound_from, alone.bound) == ("text", alone.activations.max())
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    result = corpus_pass(model, CorpusPassInputs(str(tmp_path / "text.txt")))
    peak = result.largest[(result.layers == 1) & (result.indices == 2)][0]
    known = look(model, FeatureTextInputs(PROMPT, "L1F2"))
    assert known.bound_from == "corpus"
    assert known.bound == pytest.approx(peak)
    given = look(model, FeatureTextInputs(PROMPT, "L1F2", bound=0.01))
    assert (given.bound_from, given.bound) == ("you", 0.01)
    assert given.clipped == given.active > 0


def test_bos_counts_when_asked_for(model):
    shown = [look(model, FeatureTextInputs(PROMPT, f"L0F{i}", show_bos=True)) for i in range(12)]
    assert all(result.first == 0 for result in shown)
    assert any(result.activations[0] > 0 for result in shown)


def test_it_comes_back_from_json_and_as_a_table(model):
    result = look(model, FeatureTextInputs(PROMPT, "L1F2"))
    again = FeatureTextResult.from_json(result.to_json())
    assert again.to_json() == result.to_json()
    np.testing.assert_array_equal(again.activations, result.activations)
    frame = result.to_frame()
    assert len(frame) == 2 * len(result.tokens)
    assert set(frame["quantity"]) == {"activation", "pre-activation"}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"text": ""}, "text is empty"),
        ({"feature": "102"}, "names no feature"),
        ({"bound": float("nan")}, "end of the colours"),
        ({"bos": "perhaps"}, "bos"),
    ],
)
def test_settings_that_make_no_sense(changed, said):
    with pytest.raises(InputError, match=said):
        FeatureTextInputs(**({"text": "a"} | changed))


def test_a_feature_or_a_layer_that_is_not_there(model):
    for name in ("L1F99", "L9F0"):
        with pytest.raises(InputError, match="has no feature"):
            look(model, FeatureTextInputs(PROMPT, name))
