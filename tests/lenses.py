"""A tuned lens of random numbers, and the tiny model that it belongs to."""

from pathlib import Path

import numpy as np
import torch

from mi_core.analyses import TunedLens
from mi_core.analyses.tuned_lens_files import PARAMS
from mi_core.engine import build_model
from mi_core.model.model import LoadedModel
from tests.tiny import hf_model
from tests.words import word_tokenizer

LAYERS, WIDTH = 4, 32


def some_lens(
    name: str = "mine", *, layers: int = LAYERS, width: int = WIDTH, dtype: str = "float32"
) -> TunedLens:
    random = np.random.default_rng(0)
    weight = random.normal(size=(layers, width, width)).astype(dtype)
    return TunedLens(name, weight, random.normal(size=(layers, width)).astype(dtype))


def model(name: str = "llama") -> LoadedModel:
    return build_model(hf_model(name, torch.float32), word_tokenizer(), fingerprint=f"weights of {name}")


def pickled(folder: Path) -> None:
    """Give a lens folder the name of a pickle."""
    (folder / PARAMS).rename(folder / "params.pt")
