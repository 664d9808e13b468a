"""The feature probe: the same by whole passes, hand-worked numbers, candle-mi's file, hostile files."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mi_core.engine import Edit, build_model, observe, run
from mi_core.errors import Cancelled, InputError
from mi_core.tokens import tokenize
from mi_core.transcoders import (
    CltProbeInputs,
    CltProbeResult,
    candle_json,
    clt_probe,
    read_candle_json,
)
from mi_core.transcoders.probe_result import ARRAYS
from tests.tiny import hf_model
from tests.transcoders import tiny_clt, tiny_plt, use, write_clt
from tests.words import word_tokenizer

TEXT = "Mary gave John a drink in Paris"
REFERENCE = Path("/work/shared/data/candle_mi/clt_probe/clt_position_sweep_reference.json")
"""Written by candle-mi with Gemma 2 and a transcoder of 426,000 features; not part of this repository."""


@pytest.fixture(scope="module")
def made():
    """Models by family with BOS and a tiny transcoder."""
    found = {}

    def of(family, kind="clt"):
        if (family, kind) not in found:
            model = build_model(hf_model(family), tokenizer=word_tokenizer(bos=True))
            build = tiny_clt if kind == "clt" else tiny_plt
            found[family, kind] = model, use(model, build(model, density=0.4))
        return found[family, kind]

    return of


# --- identities ---


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2"])
@pytest.mark.parametrize("kind", ["clt", "plt"])
def test_everything_by_plain_formulas_and_whole_passes(made, family, kind):
    model, transcoder = made(family, kind)
    result = clt_probe(model, CltProbeInputs(TEXT, layer=1, feature=3, strength=2.0, top=4))
    assert all(check.passed for check in result.checks), result.checks
    assert len(result.checks) == 2
    ids = tokenize(model.tokenizer, TEXT).ids
    x = observe(model, ids, ("resid_mid",))["resid_mid", 1].double()
    encoder = transcoder.encoder(1)
    pre = x @ encoder.stored.double().T + encoder.b_enc.double()
    bar = 0 if encoder.threshold is None else encoder.threshold.double()
    wanted = torch.where(pre > bar, pre, 0).clamp(min=0).numpy()
    np.testing.assert_array_equal(result.n_active, (wanted > 0).sum(1))
    for position, row in enumerate(wanted):
        order = [index for index in np.argsort(-row, kind="stable")[:4].tolist() if row[index] > 0]
        assert list(result.top_of(position)) == order
        np.testing.assert_allclose(result.top_activations[position, : len(order)], row[order], atol=1e-4)
    clean = run(model, torch.tensor([ids])).logits[0, -1].double()
    rows = transcoder.source.decoders[1][3]
    for position in range(len(ids)):
        edits = [
            Edit("resid_post", target, "add", (position,), value=2.0 * rows[j].double())
            for j, target in enumerate(transcoder.targets(1))
        ]
        moved = run(model, torch.tensor([ids]), edits=edits).logits[0, -1].double()
        np.testing.assert_allclose(result.l2[position], float((moved - clean).norm()), rtol=1e-5, atol=1e-5)


def test_defaults_read_the_middle_layer_and_inject_the_strongest_of_the_last_token(made):
    model, _ = made("llama")
    result = clt_probe(model, CltProbeInputs(TEXT))
    assert result.layer == 2
    assert result.masked == (0,)
    assert result.feature == result.top_of(len(result) - 1)[0]
    assert result.activation == result.top_activations[-1, 0]
    assert result.has_injection
    nothing = clt_probe(model, CltProbeInputs(TEXT, strength=0.0))
    np.testing.assert_array_equal(nothing.l2, 0)
    assert nothing.concentration_ratio == np.inf
    assert nothing.max_pos == 0
    assert nothing.last_rank == 1
    assert json.loads(candle_json(nothing))["causal"]["concentration_ratio"] is None
    assert all(check.passed for check in read_candle_json(candle_json(nothing)).checks)


def test_with_the_encoders_alone_it_reads_and_says_that_nothing_was_injected(made, tmp_path):
    model, transcoder = made("llama")
    whole = clt_probe(model, CltProbeInputs(TEXT, layer=1))
    write_clt(transcoder, tmp_path)
    for file in tmp_path.glob("W_dec_*"):
        file.unlink()
    result = clt_probe(model, CltProbeInputs(TEXT, str(tmp_path), layer=1))
    np.testing.assert_array_equal(result.n_active, whole.n_active)
    np.testing.assert_array_equal(result.top_features, whole.top_features)
    assert (result.feature, result.has_injection) == (whole.feature, False)
    assert any(said.startswith("Nothing was injected. The decoder of layer 1") for said in result.warnings)
    assert CltProbeResult.from_json(result.to_json()).to_json() == result.to_json()


def test_records_come_back_exactly(made):
    model, _ = made("llama")
    result = clt_probe(model, CltProbeInputs(TEXT))
    again = CltProbeResult.from_json(result.to_json())
    assert again.to_json() == result.to_json()
    other = read_candle_json(candle_json(result))
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(again, name), getattr(result, name), name)
    np.testing.assert_array_equal(other.l2, result.l2)
    np.testing.assert_array_equal(other.n_active, result.n_active)
    assert [other.top_of(n) for n in range(8)] == [result.top_of(n) for n in range(8)]
    assert all(check.passed for check in other.checks), other.checks
    assert candle_json(other) == candle_json(result)
    assert other.provenance is None


# --- worked out by hand ---


def by_hand(**changes):
    """Four tokens, two features kept per token."""
    record = {
        "model_id": "m", "clt_repo": "r", "prompt": "a b c d", "token_ids": [0, 1, 2, 3], "encode_layer": 5,
        "correlational": {
            "positions": [
                {"pos": 0, "token_id": 0, "token": "<s>", "n_active": 900,
                 "top_features": [[7, 90.0], [8, 80.0]]},
                {"pos": 1, "token_id": 1, "token": "b", "n_active": 2, "top_features": [[1, 3.0], [2, 1.5]]},
                {"pos": 2, "token_id": 2, "token": "c", "n_active": 0, "top_features": []},
                {"pos": 3, "token_id": 3, "token": "d", "n_active": 3, "top_features": [[2, 5.0], [4, 4.0]]},
            ],
            "unique_top1_count": 3, "jaccard_first_last": 0.0,
        },
        "causal": {
            "chosen_feature": 2, "chosen_activation": 5.0, "injection_strength": 5.0,
            "l2_distances": [
                {"pos": position, "token": "x", "l2": value}
                for position, value in enumerate([1.0, 6.0, 2.0, 3.0])
            ],
            "max_l2": 6.0, "max_pos": 1, "last_l2": 3.0, "last_rank": 2, "concentration_ratio": 1.0,
        },
    }  # fmt: skip
    for path, value in changes.items():
        place: Any = record
        keys = path.split("__")
        for key in keys[:-1]:
            place = place[int(key) if key.isdigit() else key]
        place[keys[-1]] = value
    return json.dumps(record)


def test_the_numbers_of_a_small_file():
    result = read_candle_json(by_hand())
    assert all(check.passed for check in result.checks), result.checks
    assert len(result.checks) == 9
    assert (result.unique_top1_count, result.unique_top1_words) == (3, 2)
    assert result.jaccard_first_last == 0.0
    assert result.jaccard_words == pytest.approx(1 / 3)
    assert result.jaccard(2, 2) == 1.0
    assert (result.max_pos, result.max_l2, result.last_l2, result.last_rank) == (1, 6.0, 3.0, 2)
    assert result.median_l2 == 3.0
    assert result.concentration_ratio == 1.0
    assert result.masked == (0,)
    assert "bfloat16" in result.warnings[0]


@pytest.mark.parametrize(
    ("change", "failed"),
    [
        ({"causal__last_rank": 1}, "last_rank"),
        ({"causal__max_pos": 2}, "max_pos"),
        ({"causal__concentration_ratio": 1.01}, "concentration_ratio"),
        ({"correlational__jaccard_first_last": 0.5}, "jaccard"),
        ({"correlational__unique_top1_count": 4}, "unique_top1"),
        ({"correlational__positions__1__n_active": 1}, "as many as are active"),
        ({"correlational__positions__1__top_features": [[1, 1.0], [2, 1.5]]}, "falling"),
        ({"causal__chosen_feature": 4}, "strongest one at the last token"),
    ],
)
def test_a_file_that_contradicts_itself_is_flagged(change, failed):
    result = read_candle_json(by_hand(**change))
    assert [check.name for check in result.checks if not check.passed] != []
    assert all(failed in check.name for check in result.checks if not check.passed)


@pytest.mark.skipif(not REFERENCE.is_file(), reason="candle-mi's own file is not here")
def test_candles_own_file():
    result = read_candle_json(REFERENCE.read_bytes())
    assert all(check.passed for check in result.checks), result.checks
    assert result.n_active.tolist() == [1596, 3, 2, 11, 8, 15, 14, 27]
    assert result.unique_top1_count == 6
    assert result.concentration_ratio == pytest.approx(1.2657868316715521, rel=1e-12)
    assert result.feature == 6717
    assert json.loads(candle_json(result)).keys() == json.loads(REFERENCE.read_text()).keys()
    again, was = json.loads(candle_json(result)), json.loads(REFERENCE.read_text())
    assert again["causal"] == was["causal"]
    assert again["correlational"] == was["correlational"]


# --- what users do wrong ---


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nothing", "not a JSON file"),
        ("[1]", "not a feature probe"),
        ('{"correlational": 1, "causal": 2, "encode_layer": 3}', "damaged"),
        (by_hand(encode_layer=-1), "damaged"),
        (by_hand(causal__chosen_feature="2"), "damaged"),
        (by_hand(causal__l2_distances=[]), "damaged"),
        (by_hand(correlational__positions=[]), "damaged"),
        (by_hand(causal__last_rank="first"), "damaged"),
        (by_hand().replace('"l2": 6.0', '"l2": NaN'), "not a JSON file"),
        (by_hand(token_ids=[1]), "damaged"),
    ],
)
def test_hostile_files(text, said):
    with pytest.raises(InputError, match=said):
        read_candle_json(text)


def test_refusals(made):
    model, _ = made("llama")
    with pytest.raises(InputError, match="no features in layer 9"):
        clt_probe(model, CltProbeInputs(TEXT, layer=9))
    with pytest.raises(InputError, match="has no feature 99"):
        clt_probe(model, CltProbeInputs(TEXT, layer=0, feature=99))
    for wrong in ({"strength": float("nan")}, {"top": 0}, {"layer": -1}, {"prompt": ""}):
        with pytest.raises(InputError):
            CltProbeInputs(**{"prompt": TEXT, **wrong})


def test_a_silent_layer_is_told_and_not_injected(made):
    model, transcoder = made("llama")
    source = transcoder.source
    quiet = {layer: replace(encoder, b_enc=encoder.b_enc - 1e6) for layer, encoder in source.encoders.items()}
    use(
        model,
        replace(transcoder, source=replace(source, encoders=quiet), _encoders=type(transcoder.memo)()),
        "q",
    )
    result = clt_probe(model, CltProbeInputs(TEXT, "q"))
    assert result.feature is None
    assert not result.has_injection
    assert "none was injected" in result.warnings[-1]
    assert CltProbeResult.from_json(result.to_json()).to_json() == result.to_json()
    with pytest.raises(InputError, match="no complete injection"):
        candle_json(result)


def test_changes_that_are_only_rounding_are_told(made):
    model, _ = made("llama")
    result = clt_probe(model, CltProbeInputs(TEXT, strength=1e-15))
    assert "no more than rounding" in result.warnings[-1]


def test_it_can_be_stopped(made):
    model, _ = made("llama")
    told = []

    def on_step(step):
        told.append(step.text)
        if told.count("injections") > 1:
            raise Cancelled

    result = clt_probe(model, CltProbeInputs(TEXT), on_step=on_step)
    assert result.cancelled
    assert not result.has_injection
    assert np.isnan(result.concentration_ratio)
    assert len(result.to_frame()) > 0


def test_figures_say_what_they_show(made):
    from mi_core.exports import feature_probe as figures

    model, _ = made("llama")
    result = clt_probe(model, CltProbeInputs(TEXT))
    shown = [
        figures.top_figure(result, 3, chosen=(3, 0)),
        figures.injection_figure(result, 3),
        figures.count_figure(result, 3),
    ]
    for figure in shown:
        assert "n = 1 prompt of 8 tokens" in figure.caption
        assert "import CltProbeInputs, clt_probe" in figure.recipe
        assert len(figure.frame())
    assert "injected minus unchanged" in shown[1].caption
    assert "special tokens are left out" in shown[2].caption
    labels = [record["name"] for record in shown[1].spec["datasets"]["bars"]]
    assert labels[-1].endswith("(output)")
    read = figures.top_figure(read_candle_json(by_hand()), 0)
    assert "From a file about the model m." in read.caption
    assert not read.recipe
