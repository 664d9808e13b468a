"""Interventions on features: what a user writes wrong, what is told, and what the record keeps."""

import gzip
import json
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mi_core.engine import build_model
from mi_core.errors import Cancelled, EditError, InputError, SiteMissing
from mi_core.exports.before_after import before_after_table
from mi_core.exports.feature_inject import (
    ADDED_UP,
    edited_table,
    features_figure,
    push_figure,
    top_figure,
    top_table,
)
from mi_core.model.model import LoadedModel
from mi_core.tokens import tokenize
from mi_core.transcoders import InjectInputs, InjectResult, inject
from mi_core.transcoders.feature_edits import FeatureEdit, format_feature_edits, parse_feature_edits
from mi_core.transcoders.feature_edits_compile import compile_feature_edits
from mi_core.transcoders.inject_checks import _beyond_corpus
from mi_core.transcoders.inject_passes import add_before_softcap
from mi_core.transcoders.names import Feature
from mi_core.transcoders.transcoder import Encoder, Hook, Transcoder
from tests.tiny import VOCAB, hf_model
from tests.transcoders import MemorySource, tiny_clt, use
from tests.words import word_tokenizer

PROMPT = "The capital of France is"


@lru_cache(maxsize=8)
def model_of(name: str = "llama", dtype: torch.dtype = torch.float64) -> LoadedModel:
    model = build_model(hf_model(name, dtype), word_tokenizer(bos=True, size=VOCAB))
    use(model, tiny_clt(model, density=0.5))
    return model


def done(edits: str, **more: Any) -> InjectResult:
    return inject(model_of(), InjectInputs(PROMPT, edits, **{"continuation": 2, **more}))


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("L5F102@7:set=3", "L5F102@7:set=3"),
        (" 5:102@7:set=3.0 ", "L5F102@7:set=3"),
        ("5/102@3+4:add=2e-3", "L5F102@3+4:add=0.002"),
        ("l5f102@-1:scale=-1", "L5F102@-1:scale=-1"),
        ("L5F102:ablate,L1F2@all:suppress=.5", "L5F102@all:ablate,L1F2@all:suppress=0.5"),
        ("L5F102@1:set=0.1", "L5F102@1:set=0.1"),
        (" , ", ""),
        ("L5F102 @ 3 + 4 : SET = 2", "L5F102@3+4:set=2"),
        ("L5F102@7:set=3\nL3F7@all:ablate,\r\n", "L5F102@7:set=3,L3F7@all:ablate"),
    ],
)
def test_the_text_form_comes_back(text: str, canonical: str) -> None:
    edits = parse_feature_edits(text)
    assert format_feature_edits(edits) == canonical
    assert parse_feature_edits(canonical) == edits


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("L5F102@7:set", "needs a number"),
        ("L5F102@7:ablate=3", "ablate takes no number"),
        ("L5F102@7:suppress=-3", "use add"),
        ("L5F102@7+7:set=1", "one twice"),
        ("L5F102@:set=1", "no token position"),
        ("L5F102@x:set=1", "no token position"),
        ("L5F102@7:set=nan", "no number"),
        ("L5F102@7:set=1e9", "beyond"),
        ("L5F102@7:boost=2", "none of set"),
        ("L5H102@7:set=3", "names no feature"),
        ("L5F102@7", "no edit of a feature"),
        ("L1F1@1:set=1,L1F1@1:set=1", "in the list twice"),
        ("L1F1@" + "1+" * 300 + "2:ablate", "no edit of a feature"),
        (",".join(f"L1F{i}:ablate" for i in range(201)), "too long"),
    ],
)
def test_what_cannot_be_read_is_told(text: str, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        parse_feature_edits(text)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("edits", "said"),
    [
        ("L9F1@1:set=1", "no features in layer 9"),
        ("L1F99@1:set=1", "no feature 99"),
        ("L1F1@6:set=1", "tokens 0 to 5"),
        ("L1F1@-7:set=1", "tokens 0 to 5"),
        ("L1F1@5+-1:set=1", "names a token twice"),
        ("L1F1@5:set=1,L1F1@all:ablate", "both change L1F1@5"),
        ("L1F1@5:set=1,L1F1@-1:add=1", "both change L1F1@5"),
    ],
)
def test_what_does_not_fit_is_told(edits: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        done(edits)


def test_inputs_refuse_what_no_model_could_do() -> None:
    for more in (
        {"prompt": ""}, {"frozen": "all"}, {"continuation": 99}, {"top": 0}, {"features": -1}, {"answer": ""},
        {"edits": "L1F1@1:set=1;rm"}, {"edits": "L" * 30_000}, {"bos": "no"},
    ):  # fmt: skip
        with pytest.raises(InputError):
            InjectInputs(**{"prompt": PROMPT, **more})
    inputs = InjectInputs(PROMPT, "L1F1@1:set=1", frozen="attention", answer=" Paris")
    assert InjectInputs.from_dict(json.loads(json.dumps(inputs.to_dict()))) == inputs
    with pytest.raises(InputError, match="same token"):
        done("", answer=" Paris", distractor=" Paris")


def test_what_a_reader_must_know_is_told() -> None:
    told = " ".join(done("L1F1@2:suppress=50,L2F3@3:set=-2").warnings)
    assert "takes more than is there" in told
    assert "set below 0" in told
    assert "times as long as the stream" in told
    assert "direct effects" in " ".join(done("L1F1@2:add=1", frozen="everything").warnings)
    assert "attend freely" in " ".join(done("L1F1@2:add=1", frozen="attention").warnings)
    assert done("").warnings == ()


def test_what_the_corpus_knows_is_told(tmp_path: Path) -> None:
    transcoder = replace(model_of().transcoders[""], folder=tmp_path, fingerprint="known")
    use(model_of(), transcoder, "known")
    layers = {str(layer): {"counts": [1] * 12, "largest": [4.0] * 12} for layer in range(4)}
    summary = {
        "schema": "lantern/features", "version": 1, "text": "a text", "n_tokens": 100, "n_documents": 1,
        "fingerprint": "known", "layers": layers,
    }  # fmt: skip
    features = tmp_path / "features"
    features.mkdir()
    (features / "index.json.gz").write_bytes(gzip.compress(b"{}"))
    (features / "lantern.json.gz").write_bytes(gzip.compress(json.dumps(summary).encode()))
    result = done("L1F1@2:set=9,L1F2@2:set=3", transcoder="known")
    assert result.activation_largest.tolist() == [4, 4]
    assert "L1F1@2 to 9 (corpus: at most 4)." in " ".join(result.warnings)
    assert "L1F2" not in " ".join(result.warnings)
    assert InjectResult.from_json(result.to_json()).to_json() == result.to_json()
    assert np.isnan(done("L1F1@2:set=9").activation_largest).all()
    (features / "lantern.json.gz").write_bytes(b"damaged")
    assert np.isnan(done("L1F1@2:set=9", transcoder="known").activation_largest).all()


def test_values_beyond_the_format_are_refused() -> None:
    model = model_of("llama", torch.float16)
    with pytest.raises((InputError, EditError), match="numbers"):
        inject(model, InjectInputs(PROMPT, "L1F1@all:set=1000000"))


def test_half_precision_keeps_its_promises() -> None:
    model = model_of("llama", torch.bfloat16)
    result = inject(model, InjectInputs(PROMPT, "L0F3@2:set=2,L2F1@3:set=1", continuation=0))
    assert all(check.passed for check in result.checks)
    full = done("L0F3@2:set=2,L2F1@3:set=1", continuation=0)
    np.testing.assert_allclose(result.activation_to, full.activation_to, atol=1e-6)


def test_a_model_without_the_site_is_refused() -> None:
    model = build_model(hf_model("gpt_neox"), word_tokenizer(bos=True, size=VOCAB))
    use(model, replace(model_of().transcoders[""]))
    with pytest.raises(SiteMissing):
        inject(model, InjectInputs(PROMPT, "L1F1@2:set=1"))


def autoencoder(model: LoadedModel) -> Transcoder:
    """A tiny sparse autoencoder of the stream after layer 1, of two features."""
    weights = torch.randn(2, 32, generator=torch.Generator().manual_seed(3))
    source = MemorySource({1: Encoder(weights, torch.zeros(2), None)}, {1: weights[:, None]}, {1: weights[0]})
    return Transcoder(
        name="sae", kind="sae", model_name="", n_layers=4, n_features={1: 2}, d_model=32,
        reads=Hook("resid_post"), writes=Hook("resid_post"), fingerprint="sae", source=source,
    )  # fmt: skip


@pytest.mark.parametrize("frozen", ["nothing", "attention", "everything"])
def test_an_autoencoder_writes_where_it_reads(frozen: str) -> None:
    model = model_of()
    use(model, autoencoder(model), "sae")
    result = done("L1F0@2:add=2,L1F1@3:ablate", transcoder="sae", frozen=frozen)
    assert result.pushed_layers.tolist() == [1]
    assert result.kl > 0
    assert result.transcoder == "sae"
    assert all(check.passed for check in result.checks)


def test_the_softcap_is_applied_after_a_direct_effect() -> None:
    inside = torch.tensor([-3.0, 0.0, 7.0], dtype=torch.float64)
    capped = 5 * torch.tanh(inside / 5)
    change = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    expected = 5 * torch.tanh((inside + change) / 5)
    torch.testing.assert_close(add_before_softcap(capped, change, 5.0), expected)
    torch.testing.assert_close(add_before_softcap(inside, change, None), inside + change)


def test_it_can_be_cancelled_at_every_step() -> None:
    for stop in range(5):
        count = 0

        def on_step(step: object, stop: int = stop) -> None:
            nonlocal count
            count += 1
            if count > stop:
                raise Cancelled

        with pytest.raises(Cancelled):
            inject(model_of(), InjectInputs(PROMPT, "L1F1@all:set=1"), on_step=on_step)


# --- record, table, figures ---


def test_the_record_brings_back_every_number() -> None:
    result = done("L1F1@2:set=3,L2F3@all:ablate", distractor=" Rome")
    again = InjectResult.from_json(result.to_json())
    assert again.to_json() == result.to_json()
    assert again.to_frame().equals(result.to_frame())
    record = json.loads(result.to_json())
    for damage in ({"ranks": [[1]]}, {"edited_positions": [99] * len(result.edited_pieces)}, {"tokens": 3}):
        with pytest.raises(InputError):
            InjectResult.from_json(json.dumps({**record, **damage}))
    with pytest.raises(InputError, match="schema"):
        InjectResult.from_json("{}")


def test_the_table_has_every_number_once_with_its_unit() -> None:
    result = done("L1F1@2:set=3,L2F3@all:ablate", distractor=" Rome")
    frame = result.to_frame()
    assert not frame[["kind", "quantity", "unit"]].isna().to_numpy().any()
    edited = frame[(frame["kind"] == "edited feature") & (frame["run"] == "to")]
    assert edited["value"].tolist() == result.activation_to.tolist()
    push = frame[frame["quantity"] == "||delta|| / ||residual||"]
    np.testing.assert_array_equal(push["value"], result.delta_ratios.ravel())
    assert len(before_after_table(result)) == 10
    assert top_table(result)["rank after"].tolist() == result.top_ranks[1].tolist()
    assert len(edited_table(result)) == len(result.edited_pieces)
    shown = edited_table(result, idle=False)
    assert (np.abs(shown[["from", "to"]].to_numpy()).max(1) > 0).all()


def test_figures_say_what_they_show() -> None:
    result = done("L1F1@2:set=3,L2F3@all:ablate")
    for figure in (top_figure(result), features_figure(result), push_figure(result)):
        assert "nothing is frozen" in figure.caption
        assert "0 = no" in figure.caption
        assert "inject" in figure.recipe
        assert len(figure.frame()) > 0
        assert figure.description
    assert result.feature_names[0].feature.text in features_figure(result).description


def test_an_edit_says_what_it_makes_of_an_activation() -> None:
    feature = Feature(1, 2)
    values = {"set": 3.0, "add": 3.0, "scale": 3.0, "ablate": None, "suppress": 3.0}
    new = {mode: FeatureEdit(feature, mode, value).new_activation(2.0) for mode, value in values.items()}  # type: ignore[arg-type]
    assert new == {"set": 3, "add": 5, "scale": 6, "ablate": 0, "suppress": -1}


@pytest.mark.parametrize("text", ["L1F2@3:set=1 2", "L1F2@3 4:set=1", "L1F2@3:set=1e 2"])
def test_a_space_inside_a_number_is_not_read_over(text: str) -> None:
    with pytest.raises(InputError, match="no edit of a feature"):
        parse_feature_edits(text)


@pytest.mark.parametrize("frozen", ["nothing", "everything"])
def test_several_pushes_of_one_activation_stand_one_after_the_other(frozen: str) -> None:
    """Both act, so the last "to" is what the activation becomes: that of one push by their sum."""
    both = done("L1F4@3:add=3,L1F4@3:add=4,L1F4@3:suppress=1", frozen=frozen)
    once = done("L1F4@3:add=6", frozen=frozen)
    assert both.kl == pytest.approx(once.kl, rel=1e-9)
    start = float(once.activation_from[0])
    np.testing.assert_allclose(both.activation_from, [start, start + 3, start + 7], atol=1e-6)
    np.testing.assert_allclose(both.activation_to, [start + 3, start + 7, start + 6], atol=1e-6)
    assert edited_table(both)["rows added"].tolist() == pytest.approx([3, 4, -1])
    assert not any("pushes the other way" in warning for warning in both.warnings)


def test_only_the_end_of_several_pushes_can_be_below_zero() -> None:
    there = done("L1F4@3:add=-900,L1F4@3:add=950")
    assert not any("below 0" in warning for warning in there.warnings)
    below = done("L1F4@3:add=-900,L1F4@3:add=20")
    assert any("L1F4@3: set below 0" in warning for warning in below.warnings)


def test_what_is_added_up_over_the_layers_stands_beside_the_largest_push() -> None:
    result = done("L0F3@2:add=2")
    row = edited_table(result).iloc[0]
    assert row[ADDED_UP] == pytest.approx((result.sum_norms / result.residual_norms).max())
    assert row["||delta|| / ||residual||"] == pytest.approx(
        (result.delta_norms / result.residual_norms).max()
    )


def test_a_feature_that_is_never_active_in_the_corpus_is_told() -> None:
    model = model_of()
    edits, ids = parse_feature_edits("L1F4@3:set=2"), tokenize(model.tokenizer, PROMPT).ids
    compiled = compile_feature_edits(model, model.transcoders[""], ids, edits)
    said = list(_beyond_corpus(compiled, np.array([2.0]), np.array([0.0])))
    assert said[0].endswith("L1F4@3 to 2 (corpus: never active).")
