"""Transcoders that a test spoils, and the sentence that they are refused with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from mi_core.errors import TranscoderError
from mi_core.transcoders.folder import LocalFolder
from mi_core.transcoders.formats import open_folder
from tests.tiny import tiny
from tests.transcoder_numbers import D, Numbers, numbers

X = np.random.default_rng(1).normal(size=(4, 6, D))


def made(**how: Any) -> Numbers:
    return numbers(X, **{"clt": True, **how})


def refusal(folder: Path, family: str = "llama") -> TranscoderError:
    with pytest.raises(TranscoderError) as caught:
        open_folder(LocalFolder(folder), tiny(family))
    assert "\n" not in str(caught.value)
    return caught.value


def change(file: Path, key: str, how: Callable[[torch.Tensor], torch.Tensor | None]) -> None:
    """Replace one tensor of a file, or take it away."""
    tensors = load_file(file)
    value = how(tensors.pop(key))
    save_file({**tensors, **({} if value is None else {key: value.contiguous()})}, file)
