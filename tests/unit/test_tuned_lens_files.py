"""Lens folders: what is written comes back, every mistake has its sentence, which model a lens is of."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file as save_numpy
from safetensors.torch import save_file

from mi_core.analyses import TunedLens
from mi_core.analyses.tuned_lens import LensOrigin
from mi_core.analyses.tuned_lens_files import CONVERT, PARAMS, config_of, read_lens, write_lens
from mi_core.analyses.tuned_lens_measure import measure
from mi_core.analyses.tuned_lens_origin import unembed_hash
from mi_core.analyses.tuned_lens_store import lenses_of, open_lens
from mi_core.analyses.tuned_lens_text import Context
from mi_core.engine.holder import load_model
from mi_core.errors import InputError
from tests.lenses import LAYERS, WIDTH, model, pickled, some_lens


@pytest.fixture(autouse=True)
def _own_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_lens(some_lens(), tmp_path / "mine")
    return tmp_path / "mine"


def tensors(lens: TunedLens) -> dict[str, torch.Tensor]:
    parts = {}
    for layer in range(lens.n_layers):
        parts[f"{layer}.weight"] = torch.from_numpy(lens.weight[layer].copy())
        parts[f"{layer}.bias"] = torch.from_numpy(lens.bias[layer].copy())
    return parts


def rewrite(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    config.update(changes)
    (folder / "config.json").write_text(json.dumps(config))


# --- what is written comes back


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_saved_and_loaded_lenses_are_equal_bit_for_bit(tmp_path: Path, dtype: str) -> None:
    lens = some_lens(dtype=dtype)
    write_lens(lens, tmp_path / "deep" / "down" / "mine")
    again = read_lens(tmp_path / "deep" / "down" / "mine", LAYERS, WIDTH)
    assert again.weight.dtype == dtype
    assert (again.weight == lens.weight).all()
    assert (again.bias == lens.bias).all()
    assert again.fingerprint == lens.fingerprint
    assert sorted(path.name for path in (tmp_path / "deep" / "down").iterdir()) == ["mine"]


def test_a_published_lens_is_read(tmp_path: Path) -> None:
    """The layout of the tuned-lens package, in half precision, without our own key."""
    lens = some_lens()
    (tmp_path / "gpt2").mkdir()
    save_file({k: v.bfloat16() for k, v in tensors(lens).items()}, tmp_path / "gpt2" / "params.safetensors")
    config = {
        "base_model_name_or_path": "gpt2", "d_model": WIDTH, "num_hidden_layers": LAYERS, "bias": True,
        "base_model_revision": None, "unembed_hash": None, "lens_type": "linear_tuned_lens",
    }  # fmt: skip
    (tmp_path / "gpt2" / "config.json").write_text(json.dumps(config))
    read = read_lens(tmp_path / "gpt2", LAYERS, WIDTH)
    expected = torch.from_numpy(lens.weight).bfloat16().float().numpy()
    assert (read.weight == expected).all()
    assert read.origin == LensOrigin("gpt2")
    assert set(config) <= set(config_of(lens))  # what the package reads, we write


def test_a_lens_without_biases_is_read(folder: Path) -> None:
    weights = {name: part for name, part in tensors(some_lens()).items() if "weight" in name}
    save_file(weights, folder / PARAMS)
    rewrite(folder, bias=False)
    read = read_lens(folder, LAYERS, WIDTH)
    assert not read.bias.any()
    assert (read.weight == some_lens().weight).all()


def test_the_line_that_converts_a_pickle_works(folder: Path) -> None:
    """Old lenses carried the unembedding and another prefix; the line drops the one and mends the other."""
    old = {f"layer_translators.{name}": part for name, part in tensors(some_lens()).items()}
    torch.save({**old, "unembedding.weight": torch.zeros(9, WIDTH)}, folder / "params.pt")
    (folder / PARAMS).unlink()
    code = CONVERT.removeprefix('python -c "').removesuffix('"')
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True, timeout=600)
    read = read_lens(folder, LAYERS, WIDTH)
    assert (read.weight == some_lens().weight).all()


# --- every mistake has its sentence


def wrong_width(folder: Path) -> None:
    save_file(tensors(some_lens(width=16)), folder / PARAMS)


def missing_layer(folder: Path) -> None:
    parts = tensors(some_lens())
    del parts["2.weight"]
    save_file(parts, folder / PARAMS)


def extra_key(folder: Path) -> None:
    save_file({**tensors(some_lens()), "unembedding.weight": torch.zeros(3)}, folder / PARAMS)


def not_numbers(folder: Path) -> None:
    bad = some_lens()
    bad.weight[3, 1, 2] = np.nan
    save_file(tensors(bad), folder / PARAMS)


def whole_numbers(folder: Path) -> None:
    save_numpy(
        {n: p.numpy().astype(np.int32) for n, p in tensors(some_lens()).items()},
        folder / PARAMS,
    )


def huge(folder: Path) -> None:
    with (folder / PARAMS).open("r+b") as file:
        file.truncate(10**9)  # a sparse file


def cut_off(folder: Path) -> None:
    data = (folder / PARAMS).read_bytes()
    (folder / PARAMS).write_bytes(data[:-10])


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (pickled, r"This lens is a pickle: params.pt can run code .* convert it there with: python -c"),
        (wrong_width, r"cannot be used: 0.weight has shape \(16, 16\), expected \(32, 32\)"),
        (missing_layer, r"2.weight is missing"),
        (extra_key, r"'unembedding.weight' is not part of a lens"),
        (not_numbers, r"the translator of layer 3 holds NaN or infinite numbers"),
        (whole_numbers, r"0.weight holds I32, not floating-point numbers"),
        (huge, r"it has 1,000,000,000 bytes, and a lens for this model at most"),
        (cut_off, r"params.safetensors cannot be used: it has [\d,]+ bytes of"),
        (lambda f: (f / PARAMS).write_bytes(b"\x80\x04K\x01."), r"cut off, or not a safetensors"),
        (lambda f: (f / "params.safetensors").unlink(), r"This lens has no params.safetensors"),
        (lambda f: (f / "config.json").unlink(), r"is no tuned lens: its config.json cannot be read"),
        (lambda f: (f / "config.json").write_text("{"), r"config.json cannot be used: it is not JSON"),
        (lambda f: (f / "config.json").write_text("[" * 10_000), r"cannot be used: it is not JSON"),
        (lambda f: (f / "config.json").write_text("[1]"), r"it is not a JSON object"),
        (lambda f: (f / "config.json").write_text(" " * 2_000_000), r"cannot be used: it is larger"),
        (lambda f: rewrite(f, d_model=64), r"another model: it has d_model = 64, the loaded model"),
        (
            lambda f: rewrite(f, num_hidden_layers=12, base_model_name_or_path="gpt2"),
            r"trained for 'gpt2' with layers = 12, the loaded model has layers = 4",
        ),
        (lambda f: rewrite(f, d_model="32"), r"its d_model is '32', not a whole number"),
        (lambda f: rewrite(f, bias="yes"), r"its bias is neither true nor false"),
        (lambda f: rewrite(f, lens_type="quadratic"), r"its lens_type is 'quadratic'"),
        (lambda f: rewrite(f, unembed_hash=3), r"its unembed_hash is not text"),
        (lambda f: rewrite(f, lantern=3), r"its lantern is not an object"),
        (lambda f: shutil.rmtree(f), r"There is no folder"),
    ],
)  # fmt: skip
def test_every_mistake_has_its_sentence(folder: Path, spoil: Any, sentence: str) -> None:
    spoil(folder)
    with pytest.raises(InputError, match=sentence) as raised:
        read_lens(folder, LAYERS, WIDTH)
    assert "\n" not in str(raised.value)


def test_a_lens_is_never_overwritten_in_silence(folder: Path) -> None:
    other = TunedLens.plain(LAYERS, WIDTH)
    with pytest.raises(InputError, match="There is a lens 'mine' already"):
        write_lens(other, folder)
    assert read_lens(folder, LAYERS, WIDTH).fingerprint == some_lens().fingerprint
    write_lens(other, folder, replace=True)
    assert read_lens(folder, LAYERS, WIDTH).fingerprint == other.fingerprint


def test_only_lenses_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_text("cat")
    with pytest.raises(InputError, match="is no lens, so it is not replaced"):
        write_lens(some_lens(), tmp_path / "photos", replace=True)
    assert (tmp_path / "photos" / "cat.jpg").exists()


def test_a_failed_write_leaves_the_old_lens(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mi_core.analyses.tuned_lens_files._write_files", full)
    with pytest.raises(InputError, match="No space left on device"):
        write_lens(TunedLens.plain(LAYERS, WIDTH), folder, replace=True)
    assert [path.name for path in folder.parent.iterdir() if path.name != "data"] == ["mine"]
    assert read_lens(folder, LAYERS, WIDTH).fingerprint == some_lens().fingerprint


# --- which model


def test_the_unembedding_hash_is_numpys_print_of_the_matrix() -> None:
    """The tuned-lens package hashes `numpy.array_str(matrix, precision=1)`; ours reads the edges only."""
    for name in ("gpt2", "llama", "opt"):
        loaded = model(name)
        whole = np.array_str(loaded.hf.get_output_embeddings().weight.detach().numpy(), precision=1)
        assert "..." in whole
        assert unembed_hash(loaded) == hashlib.sha256(whole.encode()).hexdigest()


def test_a_lens_of_another_model_is_said(tmp_path: Path) -> None:
    llama = model()
    for origin, match in (
        (LensOrigin("other/gpt2"), "trained on 'other/gpt2'.*nothing proves"),
        (LensOrigin("x", unembed_hash="0" * 64), "unembedding is not that of the loaded model"),
        (LensOrigin("x", fingerprint="feed"), "with weights feed, and the loaded model has weights"),
    ):
        lens = TunedLens("x", some_lens().weight, some_lens().bias, origin)
        write_lens(lens, tmp_path / "x", replace=True)
        (warning,) = open_lens(llama, str(tmp_path / "x")).warnings
        assert re.search(match, warning), warning
    for origin in (
        LensOrigin("x", unembed_hash=unembed_hash(llama)),
        LensOrigin("x", unembed_hash="0" * 64, fingerprint=llama.fingerprint),
        LensOrigin(),
    ):
        lens = TunedLens("x", some_lens().weight, some_lens().bias, origin)
        write_lens(lens, tmp_path / "x", replace=True)
        assert open_lens(llama, str(tmp_path / "x")).warnings == ()


# --- the lens that comes with Atlas


def test_the_lens_of_atlas_belongs_to_its_weights_and_is_better_on_fresh_text() -> None:
    """When the first half fails, Atlas is newer than its lens: run `python tools/train_atlas_lens.py`."""
    atlas = load_model("atlas")
    assert [(lens.name, lens.place) for lens in lenses_of(atlas)] == [("atlas-text", "beside the model")]
    lens = open_lens(atlas, "atlas-text")
    assert lens.origin.fingerprint == atlas.fingerprint
    assert lens.warnings == ()
    sentences = [
        "A short walk in the city of Paris was what the writer wanted.",
        "When Mary and John went to the store, John gave a drink to Mary.",
        "The Great Wall is in China and the capital of Japan is Tokyo.",
        "def add(a, b): return a + b",
        "Seven plus five is twelve, and nine minus four is five.",
    ]
    contexts = [Context(tuple(atlas.tokenizer(text)["input_ids"]), 1) for text in sentences]
    weight, bias = torch.from_numpy(lens.weight), torch.from_numpy(lens.bias)
    plain = measure(atlas, None, None, contexts, 64, lambda: None).sum(0)
    tuned = measure(atlas, weight, bias, contexts, 64, lambda: None).sum(0)
    assert (tuned < plain).all()
    assert tuned.sum() < 0.5 * plain.sum()
