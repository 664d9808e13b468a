"""Every format gives the numbers of a plain second computation; every classic mistake changes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mi_core.model.model import LoadedModel
from mi_core.transcoders import active_features, reconstruct
from mi_core.transcoders.folder import LocalFolder
from mi_core.transcoders.formats import open_folder
from mi_core.transcoders.transcoder import Hook, Transcoder
from tests.tiny import tiny, tokens
from tests.transcoder_files import (
    Numbers,
    answer,
    numbers,
    plt_tensors,
    write_clt,
    write_gemma_scope,
    write_gemma_scope_2,
    write_gemma_scope_2_clt,
    write_plt,
    write_sae_lens,
    write_yaml,
)

N_POS = 7


@lru_cache(maxsize=16)
def seen(family: str, place: str) -> np.ndarray:
    """What is at a place, [layer, pos, d], by plain PyTorch hooks on the Hugging Face model."""
    model = tiny(family)
    caught: dict[tuple[str, int], torch.Tensor] = {}
    handles = []
    for layer, block in enumerate(model.structure.blocks):
        norm, mlp = norms(family, block)

        def at(name: str, layer: int = layer) -> Callable[..., None]:
            def hook(module: Any, inputs: Any, output: Any) -> None:
                caught[name + ".in", layer] = inputs[0][0].detach()
                caught[name + ".out", layer] = (output[0] if isinstance(output, tuple) else output)[
                    0
                ].detach()

            return hook

        handles.append(norm.register_forward_hook(at("norm")))
        handles.append(mlp.register_forward_hook(at("mlp")))
        handles.append(block.register_forward_hook(at("block")))
    with torch.no_grad():
        model.hf(tokens(1, N_POS))
    for handle in handles:
        handle.remove()
    if place == "normalised":
        values = [
            normalised(family, norms(family, b)[0], caught["norm.in", i])
            for i, b in enumerate(model.structure.blocks)
        ]
    else:
        name = {"resid_mid": "norm.in", "mlp_in": "norm.out", "mlp_out": "mlp.out", "resid_pre": "block.in"}[
            place
        ]
        values = [caught[name, layer].reshape(N_POS, -1) for layer in range(len(model.structure.blocks))]
    return torch.stack(values).double().numpy()


def norms(family: str, block: Any) -> tuple[Any, Any]:
    """The norm in front of the MLP, and the module whose output is added to the stream."""
    if family == "gpt2":
        return block.ln_2, block.mlp
    if family == "gemma2":
        return block.pre_feedforward_layernorm, block.post_feedforward_layernorm
    return block.post_attention_layernorm, block.mlp


def normalised(family: str, norm: Any, x: torch.Tensor) -> torch.Tensor:
    """By the formula of the norm, without its gain."""
    x = x.double()
    if family == "gpt2":
        x = x - x.mean(-1, keepdim=True)
        return x / (x.square().mean(-1, keepdim=True) + norm.eps).sqrt()
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + norm.eps)


@dataclass(frozen=True)
class Format:
    """A way to write a transcoder, and how it is to be read.

    Attributes:
        family: tiny model.
        place: what its encoders read.
        make: options of `numbers`.
        write: (numbers, folder) -> folder.
        kind: expected kind.
        mistakes: classic mistakes that its fixture must show.
    """

    family: str
    place: str
    make: dict[str, Any]
    write: Callable[[Numbers, Path], Path]
    kind: str
    mistakes: tuple[str, ...]


def named(folder: Path, name: str) -> Path:
    return folder / name


FORMATS: dict[str, Format] = {
    "clt": Format(
        "llama", "resid_mid", {"clt": True}, write_clt, "clt",
        ("encoder transposed", "b_dec ignored", "offset by one"),
    ),
    "clt jump": Format(
        "llama", "resid_mid", {"clt": True, "jump": True}, write_clt, "clt",
        ("threshold ignored", "b_dec ignored", "offset by one"),
    ),
    "clt skip": Format(
        "gpt2", "resid_mid", {"clt": True, "skip": True}, write_clt, "clt",
        ("skip transposed", "skip ignored"),
    ),
    "clt gemma2": Format("gemma2", "resid_mid", {"clt": True}, write_clt, "clt", ("b_dec ignored",)),
    "gemma scope 2 clt": Format(
        "gemma2", "resid_mid", {"clt": True, "jump": True, "skip": True},
        lambda n, folder: write_gemma_scope_2_clt(n, folder, whole=True), "clt",
        ("encoder transposed", "offset by one", "skip transposed", "threshold ignored"),
    ),
    "gemma scope 2 clt short": Format(
        "gemma2", "resid_mid", {"clt": True, "jump": True},
        lambda n, folder: write_gemma_scope_2_clt(n, folder, whole=False), "clt", ("offset by one",),
    ),
    "plt": Format(
        "llama", "mlp_in", {"clt": False, "skip": True}, write_plt, "plt",
        ("encoder transposed", "decoder transposed", "b_dec ignored", "skip transposed", "skip ignored"),
    ),
    "plt legacy": Format(
        "llama", "mlp_in", {"clt": False, "skip": True, "jump": True},
        lambda n, folder: write_plt(n, folder, legacy=True), "plt",
        ("decoder transposed", "threshold ignored", "skip transposed"),
    ),
    "plt top-k": Format("llama", "mlp_in", {"clt": False, "k": 2}, write_plt, "plt", ("k ignored",)),
    "plt normalised": Format(
        "gpt2", "normalised", {"clt": False},
        lambda n, folder: write_plt(n, folder, reads="ln2.hook_normalized", writes="hook_mlp_out"), "plt",
        ("b_dec ignored",),
    ),
    "gemma scope": Format(
        "gemma2", "normalised", {"clt": False, "jump": True},
        lambda n, folder: write_gemma_scope(n, folder / "gemma-scope-2b-pt-transcoders"), "plt",
        ("encoder transposed", "threshold ignored", "b_dec ignored"),
    ),
    "gemma scope compressed": Format(
        "gemma2", "normalised", {"clt": False, "jump": True},
        lambda n, folder: write_gemma_scope(n, folder / "transcoders", how="compressed"), "plt", (),
    ),
    "gemma scope by column": Format(
        "gemma2", "normalised", {"clt": False, "jump": True},
        lambda n, folder: write_gemma_scope(n, folder / "transcoders", how="fortran"), "plt", (),
    ),
    "gemma scope 2": Format(
        "gemma2", "mlp_in", {"clt": False, "jump": True, "skip": True}, write_gemma_scope_2, "plt",
        ("encoder transposed", "skip transposed", "threshold ignored"),
    ),
    "sae lens": Format(
        "llama", "resid_pre", {"clt": False, "centred": True}, write_sae_lens, "sae",
        ("centre ignored", "b_dec ignored", "encoder transposed"),
    ),
    "sae lens jump": Format(
        "llama", "resid_pre", {"clt": False, "jump": True},
        lambda n, folder: write_sae_lens(n, folder, new=True), "sae", ("threshold ignored",),
    ),
    "sae lens skip transcoder": Format(
        "gpt2", "normalised", {"clt": False, "skip": True},
        lambda n, folder: write_sae_lens(
            n, folder, hook="ln2.hook_normalized", architecture="skip_transcoder",
            hook_name_out="hook_mlp_out",
        ),
        "plt", ("skip transposed", "skip ignored"),
    ),
    "sae lens top-k": Format(
        "llama", "resid_pre", {"clt": False, "k": 3}, write_sae_lens, "sae", ("k ignored",)
    ),
}  # fmt: skip
MISTAKES = [(name, mistake) for name, how in FORMATS.items() for mistake in how.mistakes]


@lru_cache(maxsize=32)
def case(name: str) -> tuple[Numbers, np.ndarray]:
    how = FORMATS[name]
    x = seen(how.family, how.place)
    return numbers(x, **how.make), x


def opened(name: str, folder: Path) -> tuple[LoadedModel, Transcoder]:
    how = FORMATS[name]
    n, _ = case(name)
    place = how.write(n, folder)
    model = tiny(how.family)
    return model, open_folder(LocalFolder(place), model)


def dense(model: LoadedModel, transcoder: Transcoder) -> tuple[np.ndarray, np.ndarray]:
    """Activations and reconstruction as the library gives them, in the shapes of `answer`."""
    ids = tokens(1, N_POS)[0].tolist()
    active = active_features(model, transcoder, ids)
    acts = np.zeros((len(transcoder.layers), N_POS, max(transcoder.n_features.values())))
    acts[active.layer, active.position, active.feature] = active.activation
    return acts, reconstruct(model, transcoder, active).double().numpy()


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_gives_the_numbers_of_a_plain_second_computation(name: str, tmp_path: Path) -> None:
    n, x = case(name)
    model, transcoder = opened(name, tmp_path)
    acts, told = dense(model, transcoder)
    right_acts, right = answer(n, x)
    assert transcoder.kind == FORMATS[name].kind
    assert 0.1 < (right_acts > 0).mean() < 0.9
    assert np.abs(acts - right_acts).max() <= 2e-5 * np.abs(right_acts).max()
    assert np.abs(told - right).max() <= 2e-5 * np.abs(right).max()
    for layer in transcoder.layers:
        rows = transcoder.rows(layer, torch.tensor([F_LAST, 0, 3]))
        np.testing.assert_array_equal(rows.numpy(), n.dec[layer][[F_LAST, 0, 3]])
        chunks = torch.cat([part for _, part in transcoder.decoder_chunks(layer, 4)])
        np.testing.assert_array_equal(chunks.numpy(), n.dec[layer])


F_LAST = 9


@pytest.mark.parametrize(("name", "mistake"), MISTAKES)
def test_the_fixture_of_a_format_shows_a_classic_mistake(name: str, mistake: str) -> None:
    n, x = case(name)
    acts, right = answer(n, x)
    wrong_acts, wrong = answer(n, x, mistake)
    size = np.abs(right).max()
    told = np.abs(wrong - right).max() > 0.02 * size
    assert told or np.abs(wrong_acts - acts).max() > 0.02 * np.abs(acts).max()


@pytest.mark.parametrize(("family", "right", "wrong"), [
    ("gemma2", "normalised", "mlp_in"), ("gpt2", "normalised", "mlp_in"),
    ("gemma2", "mlp_in", "normalised"), ("llama", "mlp_in", "resid_mid"),
])  # fmt: skip
def test_a_missing_or_added_gain_would_show(family: str, right: str, wrong: str) -> None:
    n = numbers(seen(family, right), clt=False)
    _, told = answer(n, seen(family, right))
    _, other = answer(n, seen(family, wrong))
    assert np.abs(told - other).max() > 0.1 * np.abs(told).max()


def test_hooks_are_those_of_the_config(tmp_path: Path) -> None:
    expected = {
        "clt": (Hook("resid_mid"), Hook("mlp_out")), "plt": (Hook("mlp_in"), Hook("mlp_out")),
        "plt normalised": (Hook("resid_mid", normalised=True), Hook("mlp_out")),
        "gemma scope": (Hook("resid_mid", normalised=True), Hook("mlp_out")),
        "gemma scope 2": (Hook("mlp_in"), Hook("mlp_out")),
        "sae lens": (Hook("resid_pre"), Hook("resid_pre")),
    }  # fmt: skip
    for name, hooks in expected.items():
        _, transcoder = opened(name, tmp_path / name.replace(" ", "_"))
        assert (transcoder.reads, transcoder.writes) == hooks, name


def test_a_jump_relu_is_one_exactly_when_thresholds_are_there(tmp_path: Path) -> None:
    for name, activation in (("clt", "ReLU"), ("clt jump", "JumpReLU"), ("plt top-k", "top-k (k = 2)")):
        _, transcoder = opened(name, tmp_path / name.replace(" ", "_"))
        assert transcoder.activation == activation


def test_a_config_lists_files_of_any_place_one_per_layer(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    n, x = case("plt")
    files = []
    for layer in range(n.n_layers):
        save_file(plt_tensors(n, layer), tmp_path / f"part_{layer}.safetensors")
        files.append(f"part_{layer}.safetensors")
    write_yaml(tmp_path, reads="mlp.hook_in", writes="mlp.hook_out", transcoders=files)
    model = tiny("llama")
    _, told = dense(model, open_folder(LocalFolder(tmp_path), model))
    assert np.abs(told - answer(n, x)[1]).max() <= 2e-5 * np.abs(told).max()


def test_bfloat16_files_are_read_as_they_are_and_computed_in_float32(tmp_path: Path) -> None:
    n, _ = case("clt jump")
    write_clt(n, tmp_path, torch.bfloat16)
    transcoder = open_folder(LocalFolder(tmp_path), tiny("llama"))
    rounded = torch.tensor(n.enc[1]).bfloat16()
    encoder = transcoder.encoder(1)
    assert encoder.stored.dtype == torch.bfloat16
    assert torch.equal(encoder.stored, rounded)
    assert encoder.b_enc.dtype == torch.float32
    x = torch.randn(3, 32)
    expected = x @ rounded.float().T + encoder.b_enc
    torch.testing.assert_close(transcoder.pre_activations(1, x), expected)
    assert torch.equal(transcoder.rows(0, torch.tensor([2])), torch.tensor(n.dec[0][[2]]).bfloat16().float())


def test_a_part_of_the_layers_is_opened_and_says_what_is_missing(tmp_path: Path) -> None:
    n, _ = case("clt")
    write_clt(n, tmp_path, layers=(1, 2))
    transcoder = open_folder(LocalFolder(tmp_path), tiny("llama"))
    assert transcoder.layers == (1, 2)
    assert transcoder.targets(1) == (1, 2, 3)
    assert "2 of 4 layers are not here (0, 3)" in transcoder.warnings[0]
    assert torch.equal(transcoder.bias(3), torch.zeros(32))


def test_negative_thresholds_act_as_zero_where_the_format_clamps_first(tmp_path: Path) -> None:
    n, x = case("gemma scope")
    low = Numbers(**{**vars(n), "threshold": [-np.ones_like(one) for one in n.threshold or []]})
    write_gemma_scope(low, tmp_path / "transcoders")
    model = tiny("gemma2")
    acts, _ = dense(model, open_folder(LocalFolder(tmp_path / "transcoders"), model))
    relu = Numbers(**{**vars(n), "threshold": None})
    assert np.abs(acts - answer(relu, x)[0]).max() <= 2e-5 * np.abs(acts).max()


@pytest.mark.parametrize("said", [{"model_from_pretrained_kwargs": {"center_writing_weights": True}}, "old"])
def test_an_sae_of_transformer_lens_centred_stream_reads_it_from_the_raw_one(
    said: Any, tmp_path: Path
) -> None:
    raw = seen("gpt2", "resid_pre")
    x = raw - raw.mean(-1, keepdims=True)
    n = numbers(x, clt=False, centred=True)
    write_sae_lens(n, tmp_path, **({} if said == "old" else said))
    if said == "old":
        for file in tmp_path.rglob("cfg.json"):
            file.write_text(file.read_text().replace('"hook_name"', '"hook_point"'))
    model = tiny("gpt2")
    transcoder = open_folder(LocalFolder(tmp_path), model)
    acts, told = dense(model, transcoder)
    right_acts, right = answer(n, x)
    assert np.abs(acts - right_acts).max() <= 5e-5 * np.abs(right_acts).max()
    assert np.abs(told - right).max() <= 5e-5 * np.abs(right).max()
    other = answer(n, raw)[0]
    assert np.abs(other - right_acts).max() > 0.02 * np.abs(right_acts).max()
    assert "without its mean" in transcoder.warnings[0]


def test_models_without_layer_norm_are_never_centred(tmp_path: Path) -> None:
    n, x = case("sae lens")
    write_sae_lens(n, tmp_path, model_from_pretrained_kwargs={"center_writing_weights": True})
    model = tiny("llama")
    acts, _ = dense(model, open_folder(LocalFolder(tmp_path), model))
    assert np.abs(acts - answer(n, x)[0]).max() <= 2e-5 * np.abs(acts).max()
