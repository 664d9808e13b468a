"""Damaged and hostile files of transcoders: each is one sentence, and nothing in them is run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mi_core.errors import InputError, TranscoderError
from mi_core.transcoders.folder import LocalFolder
from mi_core.transcoders.formats import open_folder
from tests.tiny import tiny
from tests.transcoder_files import (
    plt_tensors,
    write_clt,
    write_plt,
    write_yaml,
)
from tests.transcoder_refusals import change, made, refusal


def test_cut_off_and_foreign_files_are_damaged(tmp_path: Path) -> None:
    write_clt(made(), tmp_path)
    file = tmp_path / "W_enc_1.safetensors"
    whole = file.read_bytes()
    header = int.from_bytes(whole[:8], "little")
    lies = whole[8 : 8 + header].replace(b"[10,32]", b"[10,99]")
    for content, why in (
        (whole[:-4], "bytes of"), (whole + b"x", "bytes of"), (b"", "not a safetensors file"),
        (b"\xff" * 100, "not a safetensors file"),
        (whole[:8] + b"[" * header + whole[8 + header :], "header"),
        (whole[:8] + lies + whole[8 + header :], "header"),
    ):  # fmt: skip
        file.write_bytes(content)
        error = refusal(tmp_path)
        assert error.kind == "corrupt"
        assert "W_enc_1.safetensors is damaged" in str(error)
        assert why in str(error)


def test_an_unknown_number_format_is_refused(tmp_path: Path) -> None:
    write_clt(made(), tmp_path)
    change(tmp_path / "W_enc_1.safetensors", "W_enc_1", lambda w: w.to(torch.float8_e4m3fn))
    assert "number format is 'F8_E4M3'" in str(refusal(tmp_path))


def test_pickles_are_never_opened(tmp_path: Path) -> None:
    (tmp_path / "sae.pt").write_bytes(b"\x80\x04cos\nsystem\n")
    error = refusal(tmp_path)
    assert error.kind == "unsupported"
    assert "can run code" in str(error)
    write_yaml(tmp_path, reads="mlp.hook_in", writes="mlp.hook_out", transcoders=["sae.pt"])
    assert "pickles can run code" in str(refusal(tmp_path))


def test_object_arrays_in_an_npz_are_refused(tmp_path: Path) -> None:
    place = tmp_path / "transcoders" / "layer_0"
    place.mkdir(parents=True)
    arrays: dict[str, Any] = dict.fromkeys(("W_dec", "b_enc", "b_dec", "threshold"), np.zeros(3, np.float32))
    np.savez(place / "params.npz", W_enc=np.array([{"a": 1}], dtype=object), **arrays)
    assert "could run code" in str(refusal(tmp_path / "transcoders"))
    np.savez(place / "params.npz", W_enc=np.zeros((3, 3), ">f4"), **arrays)
    assert "number format is '>f4'" in str(refusal(tmp_path / "transcoders"))
    (place / "params.npz").write_bytes(b"PK\x03\x04 nonsense")
    assert "not a NumPy archive" in str(refusal(tmp_path / "transcoders"))


@pytest.mark.parametrize("text", [
    "- a\n- b\n", "a: [", "x: !!python/object/apply:os.system ['true']", "transcoders: 5", "model_name: [1]",
    "model_kind: magic", "activation: softplus\nk: 3", "activation: topk", "k: -1",
    "feature_input_hook: nowhere",
    "transcoders: {0: a, 2: b}",
])  # fmt: skip
def test_a_strange_config_is_one_sentence(text: str, tmp_path: Path) -> None:
    write_plt(made(clt=False), tmp_path)
    (tmp_path / "config.yaml").write_text(text)
    assert refusal(tmp_path).kind in ("corrupt", "unsupported", "missing")


def test_a_config_cannot_lead_out_of_its_folder(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    save_file(plt_tensors(made(clt=False), 0), tmp_path / "secret.safetensors")
    for file in ("../secret.safetensors", "/etc/passwd.safetensors"):
        write_yaml(inside, reads="mlp.hook_in", writes="mlp.hook_out", transcoders=[file])
        assert refusal(inside).kind == "missing"
    write_yaml(inside, reads="mlp.hook_in", writes="mlp.hook_out", transcoders=["hf://../x"])
    with pytest.raises(InputError, match="no address"):
        open_folder(LocalFolder(inside), tiny("llama"))


def test_folders_that_are_no_transcoder_say_what_they_have(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    assert "notes.txt" in str(refusal(tmp_path))
    with pytest.raises(TranscoderError, match="There is no folder"):
        LocalFolder(tmp_path / "nowhere")
