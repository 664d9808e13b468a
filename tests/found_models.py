"""Folders and caches with models of a few numbers, for tests that look for them."""

import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from mi_core.errors import ModelError
from mi_core.model.discovery import FoundModel, find

CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "vocab_size": 10,
}
TENSORS = {"a.weight": np.ones((2, 3), np.float32), "b.weight": np.zeros(4, np.float32)}
COMMITS = ("1" * 40, "2" * 40, "3" * 40)


def make(folder: Path, config: Any = CONFIG, *, weights: bool = True) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    if weights:
        save_file(TENSORS, folder / "model.safetensors")
    return folder


def cached(
    cache: Path, name: str, commit: str, *, refs: tuple[str, ...] = (), age: float = 0, **options: Any
) -> Path:
    """A snapshot as the hub's library lays it out: files are links to blobs."""
    repository = cache / f"models--{name.replace('/', '--')}"
    real, folder = make(repository / "blobs" / commit, **options), repository / "snapshots" / commit
    folder.mkdir(parents=True)
    for path in real.iterdir():
        (folder / path.name).symlink_to(os.path.relpath(path, folder))
    for ref in refs:
        (repository / "refs" / ref).parent.mkdir(parents=True, exist_ok=True)
        (repository / "refs" / ref).write_text(commit + "\n")
    then = time.time() - age
    os.utime(folder, (then, then))
    return folder


def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with one bundled model and an empty cache; the current folder is empty too."""
    make(tmp_path / "assets" / "atlas")
    (tmp_path / "assets" / "icons").mkdir()
    (tmp_path / "cache").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


def look(place: Path, name: str, revision: str | None = None) -> FoundModel:
    return find(name, revision, cache=place / "cache", assets=place / "assets")


def refused(place: Path, name: str, revision: str | None = None) -> ModelError:
    with pytest.raises(ModelError) as caught:
        look(place, name, revision)
    assert "\n" not in str(caught.value)
    return caught.value
