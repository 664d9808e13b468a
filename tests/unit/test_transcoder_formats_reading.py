"""What of a transcoder's files is read, and when: headers, single rows, changed files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from mi_core.errors import InputError, TranscoderError
from mi_core.transcoders import load_transcoder
from mi_core.transcoders.folder import LocalFolder
from mi_core.transcoders.formats import open_folder, understand
from tests.tiny import tiny
from tests.transcoder_files import (
    write_clt,
    write_gemma_scope,
)
from tests.transcoder_numbers import D, F
from tests.transcoder_refusals import made


def test_one_features_rows_are_all_that_is_read(tmp_path: Path) -> None:
    n = made()
    write_clt(n, tmp_path, torch.bfloat16)
    transcoder = open_folder(LocalFolder(tmp_path), tiny("llama"))
    transcoder.rows(0, torch.tensor([1]))
    before = transcoder.read_bytes
    transcoder.rows(0, torch.tensor([7]))
    assert transcoder.read_bytes - before == 4 * D * 2
    before = transcoder.read_bytes
    rows = transcoder.rows(0, torch.tensor([7, 2, 7, 3]))
    assert transcoder.read_bytes - before == 3 * 4 * D * 2  # each once
    expected = torch.tensor(n.dec[0]).bfloat16().float()
    assert torch.equal(rows, expected[[7, 2, 7, 3]])
    assert transcoder.rows(0, torch.tensor([], dtype=torch.long)).shape == (0, 4, D)


def test_rows_of_an_npz_are_read_where_they_lie(tmp_path: Path) -> None:
    n = made(clt=False, jump=True)
    write_gemma_scope(n, tmp_path / "transcoders")
    transcoder = open_folder(LocalFolder(tmp_path / "transcoders"), tiny("gemma2"))
    before = transcoder.read_bytes
    transcoder.rows(1, torch.tensor([4]))
    assert transcoder.read_bytes - before == D * 4


@pytest.mark.parametrize("index", [-1, F, 10**9])
def test_a_row_that_is_not_there_is_refused_and_not_read_from_its_neighbour(
    index: int, tmp_path: Path
) -> None:
    write_clt(made(), tmp_path)
    transcoder = open_folder(LocalFolder(tmp_path), tiny("llama"))
    with pytest.raises(InputError, match=re.escape(f"Layer 1 has no feature {index}")):
        transcoder.rows(1, torch.tensor([0, index]))


def test_only_encoders_can_be_browsed(tmp_path: Path) -> None:
    write_clt(made(), tmp_path)
    for file in tmp_path.glob("W_dec_*"):
        file.unlink()
    transcoder = open_folder(LocalFolder(tmp_path), tiny("llama"))
    assert not transcoder.has_decoder
    assert transcoder.pre_activations(1, torch.zeros(1, D)).shape == (1, F)
    with pytest.raises(TranscoderError, match="The decoder of layer 1 is not here") as caught:
        transcoder.rows(1, torch.tensor([0]))
    assert caught.value.kind == "no_decoder"


def test_files_that_change_while_in_use_are_noticed_and_opened_again(tmp_path: Path) -> None:
    model = tiny("llama")
    n, other = made(), made(seed=5)
    write_clt(n, tmp_path)
    first = load_transcoder(model, str(tmp_path))
    assert load_transcoder(model, str(tmp_path)) is first
    write_clt(other, tmp_path)
    (tmp_path / "W_dec_0.safetensors").touch()
    with pytest.raises(TranscoderError, match="has changed while it was in use"):
        first.rows(0, torch.tensor([0]))
    second = load_transcoder(model, str(tmp_path))
    assert second is not first
    assert second.fingerprint != first.fingerprint
    assert torch.equal(second.rows(0, torch.tensor([0])), torch.tensor(other.dec[0][[0]]))
    model.transcoders.clear()


def test_opening_reads_headers_and_no_weights(tmp_path: Path) -> None:
    write_clt(made(), tmp_path)
    parts, tensors = understand(LocalFolder(tmp_path))
    headers = sum(int.from_bytes(file.read_bytes()[:8], "little") + 8 for file in tmp_path.glob("W_*"))
    assert tensors.read_bytes == headers
    assert parts.n_layers == 4
