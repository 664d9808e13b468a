"""Wrong, partial, foreign and mixed transcoders: each is one sentence, and never a number."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mi_core.errors import TranscoderError
from mi_core.transcoders.folder import LocalFolder
from mi_core.transcoders.formats import open_folder
from mi_core.transcoders.formats_hooks import parse_hook
from tests.tiny import tiny
from tests.transcoder_files import (
    write_clt,
    write_gemma_scope,
    write_gemma_scope_2,
    write_plt,
    write_sae_lens,
)
from tests.transcoder_numbers import Numbers, numbers
from tests.transcoder_refusals import X, change, made, refusal

# --- shapes and keys ---


def test_a_wrong_shape_names_file_key_expected_and_found_shape(tmp_path: Path) -> None:
    write_clt(made(), tmp_path)
    change(tmp_path / "W_enc_2.safetensors", "W_enc_2", lambda w: w.T)
    error = refusal(tmp_path)
    assert error.kind == "shape"
    for part in ("W_enc_2 in W_enc_2.safetensors", "[32, 10]", "[10, 32] was expected"):
        assert part in str(error)


@pytest.mark.parametrize(("key", "how", "expected"), [
    ("b_enc_1", lambda b: b[:-1], "[9, 32] was expected"),  # then the encoder is what does not fit
    ("b_dec_1", lambda b: b[:-1], "[32] was expected"),
    ("threshold_1", lambda t: t[None], "[10] was expected"),
    ("W_enc_1", lambda w: w[None], "[10, 32] was expected"),
])  # fmt: skip
def test_every_tensor_of_a_clt_is_checked(
    key: str, how: Callable[[torch.Tensor], torch.Tensor], expected: str, tmp_path: Path
) -> None:
    write_clt(made(jump=True), tmp_path)
    change(tmp_path / "W_enc_1.safetensors", key, how)
    error = refusal(tmp_path)
    assert error.kind == "shape"
    assert "W_enc_1.safetensors" in str(error)
    assert expected in str(error)


@pytest.mark.parametrize("key", ["W_enc_1", "b_enc_1", "b_dec_1"])
def test_a_missing_key_names_file_and_key(key: str, tmp_path: Path) -> None:
    write_clt(made(), tmp_path)
    change(tmp_path / "W_enc_1.safetensors", key, lambda _: None)
    error = refusal(tmp_path)
    assert error.kind == "missing"
    assert f"W_enc_1.safetensors has no {key}" in str(error)


def test_b_dec_is_read_from_the_decoder_file_too(tmp_path: Path) -> None:
    n = made()
    write_clt(n, tmp_path)
    change(tmp_path / "W_enc_1.safetensors", "b_dec_1", lambda _: None)
    save_file(
        {"W_dec_1": torch.tensor(n.dec[1]), "b_dec_1": torch.tensor(n.b_dec[1])},
        tmp_path / "W_dec_1.safetensors",
    )
    transcoder = open_folder(LocalFolder(tmp_path), tiny("llama"))
    assert torch.equal(transcoder.bias(1), torch.tensor(n.b_dec[1]))


def test_a_threshold_in_some_layers_only_is_refused(tmp_path: Path) -> None:
    write_clt(made(jump=True), tmp_path)
    change(tmp_path / "W_enc_2.safetensors", "threshold_2", lambda _: None)
    assert "W_enc_2.safetensors has no threshold" in str(refusal(tmp_path))


def test_a_clt_for_another_number_of_layers_says_how_many(tmp_path: Path) -> None:
    write_clt(numbers(X[:3], clt=True), tmp_path)
    error = refusal(tmp_path)
    assert error.kind == "mismatch"
    assert "means 3 layers, and the model has 4" in str(error)
    write_clt(numbers(np.concatenate([X, X]), clt=True), tmp_path / "more")
    assert "has a layer 7" in str(refusal(tmp_path / "more"))


def test_another_width_is_another_model(tmp_path: Path) -> None:
    n = made(clt=False)
    narrow = Numbers(
        [w[:, :16] for w in n.enc], n.b_enc, [w[..., :16] for w in n.dec], [b[:16] for b in n.b_dec]
    )
    write_plt(narrow, tmp_path)
    error = refusal(tmp_path)
    assert error.kind == "mismatch"
    assert "reads 16 numbers per token, the model has 32; it says that it is for tiny/model" in str(error)
    assert "W_enc in layer_0.safetensors has shape [10, 16] and [10, 32] was expected" in str(error)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(
    ("file", "key"),
    [
        ("W_enc_1.safetensors", "W_enc_1"),
        ("W_enc_1.safetensors", "b_enc_1"),
        ("W_dec_1.safetensors", "W_dec_1"),
    ],
)
def test_numbers_that_are_not_finite_are_refused_where_they_are_read(
    tmp_path: Path, file: str, key: str, number: float
) -> None:
    write_clt(made(jump=True), tmp_path)
    change(tmp_path / file, key, lambda w: w.index_fill(0, torch.tensor([3]), number))
    transcoder = open_folder(LocalFolder(tmp_path), tiny("llama"))
    told = f"{key} in {file} is damaged: it holds numbers that are not finite"
    reads = (
        (lambda: transcoder.encoder(1),)
        if "enc" in key
        else (lambda: transcoder.rows(1, torch.tensor([3])), lambda: list(transcoder.decoder_chunks(1)))
    )
    for read in reads:
        with pytest.raises(TranscoderError, match=told) as found:
            read()
        assert found.value.kind == "corrupt"


def test_an_infinite_threshold_takes_its_feature_out_and_a_nan_is_refused(tmp_path: Path) -> None:
    write_clt(made(jump=True), tmp_path)
    file = tmp_path / "W_enc_1.safetensors"
    change(file, "threshold_1", lambda w: w.index_fill(0, torch.tensor([3]), float("inf")))
    transcoder = open_folder(LocalFolder(tmp_path), tiny("llama"))
    assert not transcoder.activate(1, torch.full((1, 10), 1e6))[0, 3]
    change(file, "threshold_1", lambda w: w.index_fill(0, torch.tensor([3]), float("nan")))
    with pytest.raises(TranscoderError, match=r"threshold_1 .* is damaged"):
        open_folder(LocalFolder(tmp_path), tiny("llama")).encoder(1)


def test_a_decoder_of_other_layers_is_no_decoder_of_this_one(tmp_path: Path) -> None:
    write_clt(made(), tmp_path)
    change(tmp_path / "W_dec_1.safetensors", "W_dec_1", lambda w: w[:, :, :16])
    assert "[10, 3, 32] was expected" in str(refusal(tmp_path))


# --- places ---


def test_hooks_of_other_tools_are_our_sites() -> None:
    for name, site, layer in (
        ("hook_resid_mid", "resid_mid", None), ("blocks.8.hook_mlp_in", "resid_mid", 8),
        ("blocks.{layer}.hook_resid_pre", "resid_pre", None), ("mlp.hook_in", "mlp_in", None),
        ("model.layers.3.output", "resid_post", 3), ("model.layers.0.mlp.output", "mlp_out", 0),
        ("model.language_model.layers.2.pre_feedforward_layernorm.output", "mlp_in", 2),
    ):  # fmt: skip
        hook = parse_hook(name, "config.yaml")
        assert (hook.hook.site, hook.layer) == (site, layer)
    assert parse_hook("ln2.hook_normalized", "x").hook.normalised


@pytest.mark.parametrize(
    "name", ["hook_nowhere", "ln1.hook_normalized", "blocks.3.attn.hook_z", 7, None, "mlp"]
)
def test_a_place_that_is_not_known_is_refused(name: Any) -> None:
    with pytest.raises(TranscoderError, match="is not supported") as caught:
        parse_hook(name, "config.yaml")
    assert caught.value.kind == "unsupported"


def test_a_plt_without_hooks_is_not_guessed(tmp_path: Path) -> None:
    write_plt(made(clt=False), tmp_path)
    (tmp_path / "config.yaml").write_text("model_name: x\n")
    assert "does not say where the transcoder reads and writes" in str(refusal(tmp_path))


def test_the_mlps_own_output_is_refused_where_a_post_norm_follows(tmp_path: Path) -> None:
    write_plt(made(clt=False), tmp_path)
    assert open_folder(LocalFolder(tmp_path), tiny("llama")).writes.site == "mlp_out"
    error = refusal(tmp_path, "gemma2")
    assert error.kind == "unsupported"
    assert "before the model's post-norm" in str(error)


def test_a_place_that_the_model_does_not_have_is_told(tmp_path: Path) -> None:
    write_clt(made(), tmp_path)
    error = refusal(tmp_path, "phi")  # parallel blocks have no resid_mid
    assert "needs resid_mid, which this model does not have" in str(error)


# --- several, and too many ---


def test_several_transcoders_for_a_layer_are_not_mixed(tmp_path: Path) -> None:
    n = made(clt=False, jump=True)
    write_gemma_scope(n, tmp_path / "transcoders")
    other = tmp_path / "transcoders" / "layer_1" / "width_65k" / "average_l0_9"
    other.mkdir(parents=True)
    other.joinpath("params.npz").write_bytes(
        next((tmp_path / "transcoders" / "layer_1").rglob("params.npz")).read_bytes()
    )
    error = refusal(tmp_path / "transcoders", "gemma2")
    assert "several transcoders for layer 1" in str(error)
    # One of its folders is one transcoder.
    one = open_folder(LocalFolder(other, "transcoders/layer_1/width_65k"), tiny("gemma2"))
    assert one.layers == (1,)


def test_a_file_that_names_no_layer_is_refused(tmp_path: Path) -> None:
    write_gemma_scope(made(clt=False, jump=True), tmp_path / "transcoders")
    (tmp_path / "transcoders" / "layer_1").rename(tmp_path / "transcoders" / "first")
    assert "does not say which layer" in str(refusal(tmp_path / "transcoders"))


@pytest.mark.parametrize(("setting", "why"), [
    ({"normalize_activations": "layer_norm"}, "normalize_activations is 'layer_norm'"),
    ({"rescale_acts_by_decoder_norm": True}, "rescales"),
    ({"finetuning_scaling_factor": True}, "scaling factor"),
    ({"hook_head_index": 3}, "one head"), ({"architecture": "gated"}, "'gated'"),
    ({"activation_fn_str": "tanh-relu"}, "'tanh-relu'"),
    ({"hook_name": "blocks.0.attn.hook_z"}, "not supported"),
    ({"hook_name": "hook_resid_pre"}, "which layer"),
    ({"hook_name_out": "blocks.0.hook_mlp_out", "hook_layer_out": 3}, "another layer"),
    ({"architecture": "topk", "k": 0}, "positive k"),
])  # fmt: skip
def test_what_an_sae_does_and_we_do_not_is_refused(setting: dict[str, Any], why: str, tmp_path: Path) -> None:
    write_sae_lens(numbers(X[:1], clt=False), tmp_path, **setting)
    config = tmp_path / "blocks.0.hook_resid_pre" / "cfg.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **setting}))
    assert why in str(refusal(tmp_path))


def test_an_sae_that_does_not_say_whether_b_dec_is_taken_off(tmp_path: Path) -> None:
    write_sae_lens(numbers(X[:1], clt=False), tmp_path)
    config = tmp_path / "blocks.0.hook_resid_pre" / "cfg.json"
    values = json.loads(config.read_text())
    del values["apply_b_dec_to_input"]
    config.write_text(json.dumps(values))
    assert (
        open_folder(LocalFolder(tmp_path), tiny("llama")).encoder(0).centre is not None
    )  # older files do it
    config.write_text(json.dumps({**values, "architecture": "transcoder", "hook_name_out": "hook_resid_pre"}))
    assert "apply_b_dec_to_input" in str(refusal(tmp_path))
    for text in ("[]", "{", "nothing"):
        config.write_text(text)
        assert refusal(tmp_path).kind == "corrupt"


def test_saes_of_several_places_are_not_mixed(tmp_path: Path) -> None:
    n = numbers(X[:1], clt=False)
    write_sae_lens(n, tmp_path / "a")
    write_sae_lens(n, tmp_path / "b", hook="hook_resid_post")
    config = tmp_path / "b" / "blocks.0.hook_resid_post" / "cfg.json"
    config.write_text(config.read_text().replace("blocks.0.", "blocks.1."))
    assert "several places" in str(refusal(tmp_path))


def test_gemma_scope_2_files_of_several_kinds_are_not_mixed(tmp_path: Path) -> None:
    write_gemma_scope_2(made(clt=False, jump=True), tmp_path)
    config = tmp_path / "layer_1_width_16k_l0_small_affine" / "config.json"
    values = json.loads(config.read_text())
    config.write_text(json.dumps({**values, "hf_hook_point_in": "model.layers.1.output"}))
    assert "several kinds" in str(refusal(tmp_path, "gemma2"))
