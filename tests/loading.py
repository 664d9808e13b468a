"""Models on disk that a test spoils, and what loading them is refused with."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mi_core import load_model
from mi_core.errors import ModelError
from mi_core.model.spec import ModelSpec
from tests.disk import save_model


def save_models(root: Path) -> Path:
    """Folders of random models."""
    save_model(root / "llama")
    save_model(root / "sharded", shard="20KB", tie_word_embeddings=True)
    save_model(root / "gpt2", "gpt2", n_embd=32, n_layer=2, n_head=4, n_positions=64)
    save_model(root / "mixtral", "mixtral", num_local_experts=2, num_hidden_layers=1, intermediate_size=32)
    return root


def change_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def refused(spec: ModelSpec | str | Path, error: type[Any] = ModelError) -> Any:
    with pytest.raises(error) as caught:
        load_model(str(spec) if isinstance(spec, Path) else spec)
    assert "\n" not in str(caught.value)
    return caught.value
