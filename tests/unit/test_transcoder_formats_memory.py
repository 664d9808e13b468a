"""The panel's promise about memory holds, and the load self-test tells right from wrong."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mi_core.engine import build_model
from mi_core.errors import InputError
from mi_core.transcoders import (
    FeaturesOnPromptInputs,
    TranscoderCheckInputs,
    TranscoderCheckResult,
    features_on_prompt,
    load_transcoder,
    transcoder_check,
)
from mi_core.transcoders import sizes as sizes_module
from mi_core.transcoders import transcoder as transcoder_module
from mi_core.transcoders.folder import LocalFolder
from mi_core.transcoders.formats import open_folder, understand
from mi_core.transcoders.sizes import decoder_bytes_of, memory_needed, memory_of
from tests.tiny import hf_model, tiny
from tests.transcoder_files import write_clt
from tests.transcoder_numbers import D, F, numbers
from tests.words import word_tokenizer

X = np.random.default_rng(1).normal(size=(4, 6, D))


def test_the_memory_that_is_promised_is_that_of_the_shapes(tmp_path: Path) -> None:
    write_clt(numbers(X, clt=True, jump=True), tmp_path, torch.bfloat16)
    parts, tensors = understand(LocalFolder(tmp_path))
    memory = memory_of(parts, tensors)
    assert memory.encoders == 4 * (F * D * 2 + 2 * F * 4)  # matrix as stored, bias and threshold in float32
    assert memory.resident == memory.encoders
    assert memory.row == 4 * D * 2
    assert decoder_bytes_of(parts, tensors) == (4 + 3 + 2 + 1) * F * D * 2


def test_encoders_held_never_exceed_the_promise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_clt(numbers(X, clt=True), tmp_path)
    one = F * D * 4 + F * 4
    for module in (transcoder_module, sizes_module):
        monkeypatch.setattr(module, "RESIDENT_BYTES", 2 * one)
    transcoder = open_folder(LocalFolder(tmp_path), tiny("llama"))
    promised = memory_needed(transcoder)
    assert promised is not None
    assert promised.resident == 3 * one  # a new one is made before the oldest leaves
    for layer in (0, 1, 2, 3, 0):
        transcoder.encoder(layer)
        assert transcoder.resident_bytes <= 2 * one


_MEASURE = """
import sys, torch
from pathlib import Path
from mi_core.transcoders.folder import LocalFolder
from mi_core.transcoders.formats import understand
from mi_core.transcoders.formats_parts import FileSource
from mi_core.transcoders.sizes import memory_of
from mi_core.transcoders.transcoder import Transcoder
def memory(name):
    return int(next(l for l in open("/proc/self/status") if l.startswith(name)).split()[1]) * 1024
parts, tensors = understand(LocalFolder(Path(sys.argv[1])), 2)
promised = memory_of(parts, tensors).promised
source = FileSource(tensors, parts, 2)
t = Transcoder(
    "x", "clt", "", 2, parts.n_features, parts.d_model, parts.reads, parts.writes, "", source
)
x = torch.randn(2, parts.d_model)
torch.addmm(torch.zeros(8), torch.zeros(2, 4), torch.zeros(4, 8))
open("/proc/self/clear_refs", "w").write("5")
start = memory("VmRSS")
for layer in (0, 1):
    t.pre_activations(layer, x)
    t.rows(layer, torch.tensor([1, 5, 9]))
for first, part in t.decoder_chunks(0):
    pass
print(promised, memory("VmHWM") - start, memory_of(parts, tensors).encoders)
"""


@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="needs Linux' peak memory of a process"
)
def test_the_process_takes_no_more_memory_than_promised(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    width, count = 512, 32_768
    (tmp_path / "config.yaml").write_text("model_kind: cross_layer_transcoder\n")
    for layer in range(2):
        matrix = torch.randn(64, width).bfloat16().repeat(count // 64, 1)
        biases = {f"b_enc_{layer}": torch.zeros(count), f"b_dec_{layer}": torch.zeros(width)}
        save_file({f"W_enc_{layer}": matrix, **biases}, tmp_path / f"W_enc_{layer}.safetensors")
        rows = matrix[:, None].repeat(1, 2 - layer, 1)
        save_file({f"W_dec_{layer}": rows}, tmp_path / f"W_dec_{layer}.safetensors")
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
    )
    promised, taken, encoders = map(int, done.stdout.split())
    assert encoders > 64e6
    assert encoders * 0.9 < taken < promised + 8e6  # 8 MB for the interpreter's own allocations


# --- the load self-test ---


def test_a_transcoder_in_the_wrong_place_is_told_in_red(tmp_path: Path) -> None:
    from mi_core import load_model

    atlas = load_model("atlas")
    beside = load_transcoder(atlas)
    inputs = TranscoderCheckInputs("The Space Needle is in downtown Seattle. The capital of France is")
    right = transcoder_check(atlas, inputs)
    assert right.has_fit
    assert right.wrong == ()
    assert all(check.passed for check in right.checks)
    assert 0 < right.unexplained_all < 0.6
    assert beside.folder is not None
    for path in beside.folder.glob("W_*"):
        (tmp_path / path.name).symlink_to(path.resolve())
    (tmp_path / "config.yaml").write_text(
        "feature_input_hook: mlp.hook_in\nfeature_output_hook: hook_mlp_out\n"
    )
    wrong = transcoder_check(atlas, replace(inputs, transcoder=str(tmp_path)))
    assert wrong.wrong
    assert wrong.worst in wrong.wrong
    assert not wrong.checks[0].passed
    assert "wrong hooks or wrong model" in wrong.checks[0].detail


def small_check(tmp_path: Path, *, decoders: bool = True) -> TranscoderCheckResult:
    model = build_model(hf_model("llama"), word_tokenizer())
    write_clt(numbers(X, clt=True), tmp_path)
    if not decoders:
        for path in tmp_path.glob("W_dec_*"):
            path.unlink()
    return transcoder_check(model, TranscoderCheckInputs(PROMPT, str(tmp_path)))


PROMPT = "The Eiffel Tower is in"


def test_without_decoders_the_fit_is_not_measured_and_that_is_said(tmp_path: Path) -> None:
    result = small_check(tmp_path, decoders=False)
    assert not result.has_fit
    assert result.worst is None
    assert result.checks == ()
    assert "Only the encoders are here" in result.warnings[0]


def test_with_some_of_the_decoders_what_is_active_is_still_seen(tmp_path: Path) -> None:
    model = build_model(hf_model("llama"), word_tokenizer())
    write_clt(numbers(X, clt=True), tmp_path)
    whole = features_on_prompt(model, FeaturesOnPromptInputs(PROMPT, str(tmp_path)))
    (tmp_path / "W_dec_1.safetensors").unlink()
    result = transcoder_check(model, TranscoderCheckInputs(PROMPT, str(tmp_path)))
    assert not result.has_fit
    assert "Of 1 of 4 layers only the encoders are here (1)" in result.warnings[-1]
    listed = features_on_prompt(model, FeaturesOnPromptInputs(PROMPT, str(tmp_path)))
    np.testing.assert_array_equal(listed.activation, whole.activation)
    assert any("or not all of them" in warning for warning in listed.warnings)
    assert len(load_transcoder(model, str(tmp_path)).rows(0, torch.tensor([1]))[0]) == 4


def test_layers_to_which_missing_layers_write_are_not_judged(tmp_path: Path) -> None:
    model = build_model(hf_model("llama"), word_tokenizer())
    write_clt(numbers(X, clt=True), tmp_path, layers=(0, 1, 3))
    result = transcoder_check(model, TranscoderCheckInputs(PROMPT, str(tmp_path)))
    assert np.isnan(result.unexplained).tolist() == [False, False, True, True]
    assert np.isnan(result.unexplained_all)
    assert result.has_fit
    assert "1 of 4 layers are not here" in result.warnings[0]


def test_few_tokens_are_told(tmp_path: Path) -> None:
    model = build_model(hf_model("llama"), word_tokenizer())
    write_clt(numbers(X, clt=True), tmp_path)
    result = transcoder_check(model, TranscoderCheckInputs("The Eiffel", str(tmp_path)))
    assert "rests on 2 tokens only" in result.warnings[-1]


def test_a_record_comes_back_exactly(tmp_path: Path) -> None:
    for decoders in (True, False):
        result = small_check(tmp_path / str(decoders), decoders=decoders)
        text = result.to_json()
        assert "NaN" not in text
        again = TranscoderCheckResult.from_json(text)
        assert again.to_json() == text
        np.testing.assert_array_equal(again.unexplained, result.unexplained)
        frame = result.to_frame()
        assert len(frame) == 4 + 4 + 6
        assert set(frame["unit"]) == {"count", "share of variance", "bytes"}
    for damaged in (text.replace('"targets": [0', '"targets": [[0]'), text.replace('"name"', '"nom"'), "{}"):
        with pytest.raises(InputError):
            TranscoderCheckResult.from_json(damaged)


def test_inputs_refuse_what_names_nothing() -> None:
    for prompt, name in (("", ""), ("x", "y" * 2000)):
        with pytest.raises(InputError):
            TranscoderCheckInputs(prompt, name)
    with pytest.raises(InputError):
        TranscoderCheckInputs.from_dict({"prompt": "x", "nothing": 1})
    inputs = TranscoderCheckInputs("x", "y", True)
    assert TranscoderCheckInputs.from_dict(inputs.to_dict()) == inputs
