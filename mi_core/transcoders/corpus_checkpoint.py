"""A corpus pass that was stopped goes on where it was: its statistics as one .npz file beside the output."""

import hashlib
import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mi_core.errors import InputError
from mi_core.transcoders.corpus_state import LayerState

_TOP = ("keys", "values", "rows", "positions", "prefixes")


def checkpoint_file(folder: Path) -> Path:
    """The checkpoint of a pass that writes to a folder."""
    return folder.with_name(f".{folder.name}.state.npz")


def key_of(values: Mapping[str, Any]) -> str:
    """Two passes with the same key are the same pass."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def write_checkpoint(
    file: Path, key: str, counters: Mapping[str, int], states: Mapping[int, LayerState]
) -> None:
    """Write the statistics; the old checkpoint stays whole until the new one is.

    Raises:
        InputError: the file cannot be written.
    """
    arrays: dict[str, Any] = {"key": np.array(key), "counters": np.array(json.dumps(dict(counters)))}
    for layer, state in states.items():
        arrays[f"{layer}.counts"], arrays[f"{layer}.largest"] = state.counts, state.largest
        arrays[f"{layer}.histogram"] = state.histogram
        arrays[f"{layer}.not_finite"] = np.array(state.not_finite)
        for name in _TOP:
            arrays[f"{layer}.top.{name}"] = getattr(state.top, name)
            arrays[f"{layer}.sample.{name}"] = getattr(state.sample, name)
    part = file.with_name(file.name + ".part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as opened:
            np.savez(opened, **arrays)
        os.replace(part, file)
    except OSError as error:
        raise InputError(
            f"The checkpoint {str(file)!r} cannot be written", why=error.strerror or "unknown cause"
        ) from error


def read_checkpoint(file: Path, key: str, states: Mapping[int, LayerState]) -> dict[str, int] | None:
    """Fill the statistics from a checkpoint of the same pass.

    Args:
        file: the checkpoint.
        key: of the pass that is about to run.
        states: empty, of the right sizes; filled in place.

    Returns:
        The counters that were written; None where there is no checkpoint of this pass (the states are as they
        were then).
    """
    try:
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as arrays:
            if str(arrays["key"]) != key:
                return None
            counters = json.loads(str(arrays["counters"]))
            loaded = {layer: _read_state(arrays, layer, state) for layer, state in states.items()}
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        return None  # a damaged checkpoint costs the work, not the pass
    for layer, values in loaded.items():
        state = states[layer]
        state.counts, state.largest, state.histogram = (
            values["counts"],
            values["largest"],
            values["histogram"],
        )
        state.not_finite = int(values["not_finite"])
        for name in _TOP:
            setattr(state.top, name, values[f"top.{name}"])
            setattr(state.sample, name, values[f"sample.{name}"])
    return {str(name): int(value) for name, value in counters.items()}


def _read_state(arrays: Any, layer: int, like: LayerState) -> dict[str, np.ndarray]:
    """Arrays of a layer, of the shapes and types that they must have."""
    wanted = {"counts": like.counts, "largest": like.largest, "histogram": like.histogram}
    wanted |= {f"top.{name}": getattr(like.top, name) for name in _TOP}
    wanted |= {f"sample.{name}": getattr(like.sample, name) for name in _TOP}
    found = {name: arrays[f"{layer}.{name}"] for name in wanted}
    for name, array in wanted.items():
        if found[name].shape != array.shape or found[name].dtype != array.dtype:
            raise ValueError(f"{name} of layer {layer} does not fit")
    return {**found, "not_finite": arrays[f"{layer}.not_finite"]}


def drop_checkpoint(file: Path) -> None:
    """The pass is done."""
    file.unlink(missing_ok=True)
