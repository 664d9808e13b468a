"""Every format gives the numbers of a plain second computation; every classic mistake changes them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mi_core.transcoders.folder import LocalFolder
from mi_core.transcoders.formats import open_folder
from mi_core.transcoders.formats_parts import FileSource
from mi_core.transcoders.transcoder import Hook
from tests.tiny import tiny
from tests.transcoder_files import write_clt, write_gemma_scope, write_sae_lens
from tests.transcoder_formats import (
    FORMATS,
    WRONG_GAIN,
    cannot,
    case,
    dense,
    mistaken,
    opened,
    seen,
)
from tests.transcoder_numbers import OF_READING, OF_WRITING, F, Numbers, answer, numbers

MISTAKES = (*OF_READING, *OF_WRITING)
POSSIBLE = [(name, mistake) for name in FORMATS for mistake in MISTAKES if not cannot(name, mistake)]
IMPOSSIBLE = [(name, mistake) for name in FORMATS for mistake in MISTAKES if cannot(name, mistake)]
SAME, CLEAR = 2e-5, 0.02
"""Shares of the largest number: rounding in float32, and a difference that nobody overlooks."""

Computed = Callable[[str], tuple[np.ndarray, np.ndarray]]


def apart(found: np.ndarray, right: np.ndarray) -> float:
    """Largest difference, as a share of the largest number."""
    return float(np.abs(found - right).max() / np.abs(right).max())


@pytest.fixture(scope="module")
def computed(tmp_path_factory: pytest.TempPathFactory) -> Computed:
    """Activations and reconstruction of a format as the library reads and computes them, once each."""
    known: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def one(name: str) -> tuple[np.ndarray, np.ndarray]:
        if name not in known:
            known[name] = dense(*opened(name, tmp_path_factory.mktemp("format")))
        return known[name]

    return one


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_gives_the_numbers_of_a_plain_second_computation(name: str, computed: Computed) -> None:
    acts, told = computed(name)
    right_acts, right = answer(*case(name))
    assert 0.1 < (right_acts > 0).mean() < 0.9
    assert apart(acts, right_acts) <= SAME
    assert apart(told, right) <= SAME


@pytest.mark.parametrize(("name", "mistake"), POSSIBLE)
def test_a_classic_mistake_would_change_what_a_format_gives(
    name: str, mistake: str, computed: Computed
) -> None:
    acts, told = computed(name)
    wrong_acts, wrong = answer(case(name)[0], mistaken(name, mistake), mistake)
    assert apart(wrong, told) > CLEAR
    if mistake in OF_READING:
        assert apart(wrong_acts, acts) > CLEAR
    else:
        assert apart(wrong_acts, acts) <= SAME


@pytest.mark.parametrize(("name", "mistake"), IMPOSSIBLE)
def test_a_mistake_that_a_format_has_no_room_for_changes_nothing(name: str, mistake: str) -> None:
    n, x = case(name)
    for wrong, right in zip(answer(n, mistaken(name, mistake), mistake), answer(n, x), strict=True):
        np.testing.assert_array_equal(wrong, right, cannot(name, mistake))


def test_only_these_mistakes_have_no_room_in_a_format() -> None:
    """The table of formats and mistakes is whole: what is asked of every format is named here."""
    never = {mistake: {name for name, one in IMPOSSIBLE if one == mistake} for mistake in MISTAKES}
    always = (
        "encoder transposed", "decoder transposed", "place", "centre", "b_dec ignored", "offset by one",
    )  # fmt: skip
    assert all(not never[mistake] for mistake in always)
    assert never["gain"] == {name for name, how in FORMATS.items() if how.place not in WRONG_GAIN}
    jumps = {name for name in FORMATS if "jump" in name or "scope" in name} | {"plt legacy", "list of npz"}
    assert never["threshold ignored"] == never["threshold taken off"] == set(FORMATS) - jumps
    skips = {name for name in FORMATS if "skip" in name}
    skips |= {"gemma scope 2 clt", "gemma scope 2", "plt", "plt legacy", "list of files"}
    assert never["skip ignored"] == never["skip transposed"] == set(FORMATS) - skips
    assert never["b_dec of the sources"] == {name for name, how in FORMATS.items() if how.kind != "clt"}
    assert never["k ignored"] == set(FORMATS) - {"plt top-k", "sae lens top-k"}
    assert never["unused targets"] == set(FORMATS) - {"gemma scope 2 clt"}
    assert never["columns taken for rows"] == {name for name in FORMATS if "by column" not in name}
    assert {how.name for how in FORMATS.values()} == {
        "CLT folder", "Gemma Scope 2 CLT", "PLT folder", "list of files", "Gemma Scope", "SAELens",
    }  # fmt: skip


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_is_recognised_and_its_rows_are_those_that_were_written(name: str, tmp_path: Path) -> None:
    n, _ = case(name)
    _, transcoder = opened(name, tmp_path)
    assert transcoder.kind == FORMATS[name].kind
    assert isinstance(transcoder.source, FileSource)
    assert transcoder.source.parts.format == FORMATS[name].name
    for layer in transcoder.layers:
        rows = transcoder.rows(layer, torch.tensor([F - 1, 0, 3]))
        np.testing.assert_array_equal(rows.numpy(), n.dec[layer][[F - 1, 0, 3]])
        chunks = torch.cat([part for _, part in transcoder.decoder_chunks(layer, 4)])
        np.testing.assert_array_equal(chunks.numpy(), n.dec[layer])


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
    assert apart(acts, answer(relu, x)[0]) <= SAME
    assert apart(acts, answer(low, x)[0]) > CLEAR  # what is between the threshold and 0


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
