"""Encoding and reconstruction against loops written out, on several families; names; the fit."""

import os
from pathlib import Path

import pytest
import torch

from mi_core import load_model
from mi_core.engine import observe, run
from mi_core.errors import InputError, TranscoderError
from mi_core.transcoders.encode import (
    active_features,
    fit,
    read_values,
    reconstruct,
    without_gain,
    written_values,
)
from mi_core.transcoders.names import Feature, FeatureAt, format_features, parse_feature, parse_features
from mi_core.transcoders.store import load_transcoder, stamp_of
from mi_core.transcoders.transcoder import Encoder, Transcoder
from tests.tiny import tiny
from tests.transcoders import MemorySource, tiny_clt, tiny_plt, write_clt

IDS = (5, 17, 3, 42, 8, 11, 60)


def slow_activation(encoder: Encoder, x: torch.Tensor, index: int) -> float:
    """One activation, number by number."""
    pre = float(sum(float(w) * float(v) for w, v in zip(encoder.stored[index], x, strict=True)))
    pre += float(encoder.b_enc[index])
    if encoder.threshold is not None:
        return pre if pre > float(encoder.threshold[index]) else 0.0
    return max(pre, 0.0)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
@pytest.mark.parametrize("make", [tiny_clt, tiny_plt])
def test_activations_and_reconstruction_equal_loops(family: str, make) -> None:
    model = tiny(family)
    transcoder: Transcoder = make(model)
    source = transcoder.source
    assert isinstance(source, MemorySource)
    active = active_features(model, transcoder, IDS)
    assert len(active) > 5
    seen = observe(model, IDS, ("resid_mid", "mlp_out"))
    told = {m: source.biases[m].clone().repeat(len(IDS), 1) for m in range(transcoder.n_layers)}
    for layer in transcoder.layers:
        for position in range(len(IDS)):
            x = seen["resid_mid", layer][position]
            for index in range(transcoder.n_features[layer]):
                value = slow_activation(source.encoders[layer], x, index)
                assert active.value(FeatureAt(layer, index, position)) == pytest.approx(value, abs=1e-4)
                for j, target in enumerate(transcoder.targets(layer)):
                    told[target][position] += value * source.decoders[layer][index, j]
    for target, matrix in source.skips.items():
        told[target] += seen["resid_mid", target].float() @ matrix
    expected = torch.stack([told[m] for m in range(transcoder.n_layers)])
    torch.testing.assert_close(reconstruct(model, transcoder, active), expected, rtol=1e-4, atol=1e-4)


def test_what_is_written_is_what_the_model_adds() -> None:
    model = tiny("gemma2")
    transcoder = tiny_clt(model)
    found = run(model, torch.tensor([IDS]), capture=["mlp_out", "resid_mid"])
    for layer in transcoder.layers:
        expected = found["mlp_out", layer][0].float()
        torch.testing.assert_close(written_values(model, transcoder, IDS)[layer], expected)
        expected = found["resid_mid", layer][0].float()
        torch.testing.assert_close(read_values(model, transcoder, IDS)[layer], expected)


def test_a_perfect_transcoder_leaves_nothing_unexplained_and_an_empty_one_everything() -> None:
    model = tiny("llama")
    true = observe(model, IDS, ("mlp_out",))
    transcoder = tiny_plt(model, skip=False)
    source = transcoder.source
    assert isinstance(source, MemorySource)
    for (
        layer
    ) in transcoder.layers:  # feature i answers to token i alone and writes exactly what the MLP wrote
        x = observe(model, IDS, ("resid_mid",))["resid_mid", layer].float()
        weights = torch.linalg.pinv(x).T
        source.encoders[layer] = Encoder(weights, torch.zeros(len(IDS)))
        source.decoders[layer] = true["mlp_out", layer].float()[:, None].clone()
        source.biases[layer] = torch.zeros(transcoder.d_model)
    transcoder = Transcoder(
        **{**_fields(transcoder), "n_features": dict.fromkeys(transcoder.layers, len(IDS))}
    )
    distinct = (5, 17, 3, 42, 8, 11, 60)
    assert len(set(distinct)) == len(distinct)
    assert fit(model, transcoder, IDS).unexplained_all < 1e-6
    for layer in transcoder.layers:
        source.decoders[layer].zero_()
        source.biases[layer] = true["mlp_out", layer].float().mean(0)
    transcoder.memo.clear()
    assert fit(model, transcoder, IDS).unexplained.tolist() == pytest.approx([1.0] * 4, abs=1e-4)


def _fields(transcoder: Transcoder) -> dict:
    names = ("name", "kind", "model_name", "n_layers", "d_model", "reads", "writes", "fingerprint", "source")
    return {name: getattr(transcoder, name) for name in names}


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_without_gain_is_the_norm_formula(family: str) -> None:
    model = tiny(family)
    seen = observe(model, IDS, ("resid_mid", "mlp_in"))
    x = seen["resid_mid", 1].double()
    if family == "gpt2":
        x = x - x.mean(-1, keepdim=True)
    expected = x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    found = without_gain(model, 1, seen["resid_mid", 1], seen["mlp_in", 1])
    torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-4)


def test_top_k_keeps_the_largest() -> None:
    model = tiny("llama")
    transcoder = tiny_plt(model, skip=False, density=0.9)
    source = transcoder.source
    assert isinstance(source, MemorySource)
    old = source.encoders[0]
    source.encoders[0] = Encoder(old.stored, old.b_enc, None, k=2)
    pre = torch.tensor([[3.0, -1.0, 2.0, 5.0] + [0.1] * 8])
    assert transcoder.activate(0, pre)[0].tolist() == [3.0, 0, 0, 5.0] + [0.0] * 8


def test_threshold_is_strict_and_not_subtracted() -> None:
    model = tiny("llama")
    transcoder = tiny_clt(model)
    source = transcoder.source
    assert isinstance(source, MemorySource)
    old = source.encoders[0]
    source.encoders[0] = Encoder(old.stored, old.b_enc, torch.full((12,), 0.5))
    pre = torch.tensor([[0.5, 0.75, -1.0] + [0.0] * 9])
    assert transcoder.activate(0, pre)[0, :3].tolist() == [0.0, 0.75, 0.0]


def test_beginning_of_text_is_masked_by_default() -> None:
    atlas = load_model("atlas")
    transcoder = load_transcoder(atlas)
    ids = atlas.tokenizer("The capital of France is")["input_ids"]
    hidden = active_features(atlas, transcoder, ids)
    shown = active_features(atlas, transcoder, ids, show_bos=True)
    assert hidden.masked == (0,)
    assert int((hidden.position == 0).sum()) == 0
    assert int((shown.position == 0).sum()) > 0
    assert fit(atlas, transcoder, ids).unexplained_all < 0.5


def test_names_are_read_in_three_ways_and_written_in_one() -> None:
    assert parse_feature("L5F102") == parse_feature("5:102") == parse_feature(" 5/102 ") == Feature(5, 102)
    assert Feature(5, 102).at(7).text == "L5F102@7"
    assert format_features(parse_features("L1F2, 3:4,L1F2")) == "L1F2,L3F4"
    assert parse_features("") == ()
    for bad in ("F5L2", "L5", "five", "L5F1@2", "L999999F1", "<b>"):
        with pytest.raises(InputError, match="names no feature"):
            parse_feature(bad)
    with pytest.raises(InputError, match="more than 500"):
        parse_features(",".join(f"L0F{i}" for i in range(600)))


def test_features_and_layers_that_are_not_there_are_refused() -> None:
    transcoder = tiny_clt(tiny("llama"))
    with pytest.raises(InputError, match="0 to 11"):
        transcoder.check(0, 12)
    with pytest.raises(InputError, match="layers 0 to 3"):
        transcoder.encoder(4)


def test_a_model_without_a_transcoder_says_so(tmp_path: Path) -> None:
    with pytest.raises(TranscoderError, match="no transcoder of its own"):
        load_transcoder(tiny("llama"))


def test_files_that_are_made_anew_are_told_apart(tmp_path: Path) -> None:
    folder = write_clt(tiny_clt(tiny("llama")), tmp_path / "mine")
    before = stamp_of(str(folder), None)
    assert before is not None
    assert stamp_of(str(folder), None) == before
    later = (folder / "W_dec_0.safetensors").stat().st_mtime_ns + 10**9
    os.utime(folder / "W_dec_0.safetensors", ns=(later, later))
    assert stamp_of(str(folder), None) != before
    assert stamp_of("", None) is None
