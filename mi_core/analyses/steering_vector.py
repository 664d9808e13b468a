"""Steering vectors as values and as files.

A file holds d_model numbers: `.npy` (never with pickled objects) or `.safetensors` (one tensor). Beside an
`.npy` stands a small JSON that says how the vector was made; a file may come from a stranger, so its size is
checked before it is read, and its type, shape and numbers before they are used.
"""

import io
import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from mi_core.analyses.steering_inputs import MAX_VECTOR
from mi_core.errors import InputError

MAX_FILE_BYTES = 8 * MAX_VECTOR + 4096
SCHEMA = "lantern/steering_vector"
_TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}


@dataclass(frozen=True, slots=True, eq=False)
class SteeringVector:
    """A direction in the stream, with its length.

    Attributes:
        values: one vector per layer, or a single one that serves every layer.
        source: as in `SteeringInputs.source`.
        made: how it was made, one sentence.
    """

    values: Float[np.ndarray, "layer_or_1 d_model"]
    source: str
    made: str

    def __post_init__(self) -> None:
        """Finite float32 numbers, one vector or one per layer."""
        if self.values.ndim != 2 or not len(self.values) or self.values.dtype != np.float32:
            raise ValueError(f"a steering vector of shape {self.values.shape}, {self.values.dtype}")
        if not np.isfinite(self.values).all():
            raise InputError("The steering vector contains NaN or an infinity", why=self.made)

    def at(self, layer: int) -> Float[np.ndarray, "d_model"]:
        """The vector that is added at a layer."""
        return self.values[layer if len(self.values) > 1 else 0]

    def norm(self, layer: int) -> float:
        """Its length."""
        return float(np.linalg.norm(self.at(layer).astype(np.float64)))

    def save(self, path: str | Path, layer: int = 0) -> None:
        """Write the vector of one layer as `.npy`, and beside it as `.json` how it was made."""
        path = Path(path)
        path.write_bytes(npy_bytes(self.at(layer)))
        spec = {
            "schema": SCHEMA, "version": 1, "source": self.source, "made": self.made, "layer": layer,
            "d_model": self.values.shape[1], "norm": self.norm(layer),
        }  # fmt: skip
        path.with_suffix(".json").write_text(json.dumps(spec, ensure_ascii=False), encoding="utf-8")


def npy_bytes(vector: Float[np.ndarray, "d_model"]) -> bytes:
    """A vector as an `.npy` file."""
    buffer = io.BytesIO()
    np.save(buffer, vector.astype(np.float32), allow_pickle=False)
    return buffer.getvalue()


def load_vector(path: str | Path, d_model: int | None = None) -> tuple[float, ...]:
    """The numbers of a vector file on disk; as `read_vector`."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise InputError(f"The vector file {str(path)!r:.200} cannot be read", why=str(error)) from error
    return read_vector(data, path.name, d_model)


def read_vector(data: bytes, name: str, d_model: int | None = None) -> tuple[float, ...]:
    """The numbers of a vector file.

    Args:
        data: the file's bytes.
        name: its name; the ending tells the format.
        d_model: width of the model; None = not known yet.

    Raises:
        InputError: too large, another format, pickled, not one vector, another width, or not finite.
    """
    if len(data) > MAX_FILE_BYTES:
        raise InputError(f"The file {name!r:.80} is too large", why=f"more than {MAX_FILE_BYTES:,} bytes")
    if name.lower().endswith(".npy"):
        array = _read_npy(data, name)
    elif name.lower().endswith(".safetensors"):
        array = _read_safetensors(data, name)
    else:
        raise InputError(f"{name!r:.80} is no vector file", fix="Give an .npy or a .safetensors file")
    return check_vector(array, name, d_model)


def check_vector(array: np.ndarray, name: str, d_model: int | None) -> tuple[float, ...]:
    """Refuse all but one finite vector of the model's width."""
    if array.dtype.kind not in "fiu":
        raise InputError(
            f"The vector in {name!r:.80} is not made of numbers", why=f"its type is {array.dtype}"
        )
    if array.ndim == 2 and array.shape[0] == 1:
        array = array[0]
    if array.ndim != 1 or not 1 <= array.size <= MAX_VECTOR:
        why = f"its shape is {array.shape}"
        raise InputError(f"{name!r:.80} does not hold one vector", why=why, fix="Save a single row of it")
    if d_model is not None and array.size != d_model:
        raise InputError(
            f"The vector in {name!r:.80} does not fit this model",
            why=f"it has {array.size:,} numbers, the model's stream {d_model:,}",
        )
    with np.errstate(over="ignore"):
        single = array.astype(np.float32)
    if not np.isfinite(single).all():
        raise InputError(f"The vector in {name!r:.80} contains NaN or an infinity")
    return tuple(single.astype(float).tolist())


def _read_npy(data: bytes, name: str) -> np.ndarray:
    try:
        stream = io.BytesIO(data)
        version = np.lib.format.read_magic(stream)
        read = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = read(stream)
        if dtype.hasobject or math.prod(shape) * dtype.itemsize > MAX_FILE_BYTES:
            why = "it holds Python objects" if dtype.hasobject else f"its shape is {shape}"
            raise InputError(f"The file {name!r:.80} is not opened", why=why, fix="Save plain numbers")
        return np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError, TypeError, SyntaxError) as error:
        raise InputError(f"{name!r:.80} is not an .npy file", why=str(error)[:200]) from error


def _read_safetensors(data: bytes, name: str) -> np.ndarray:
    """The one tensor of a safetensors file: a JSON header behind its length, then the numbers."""
    try:
        (length,) = struct.unpack("<Q", data[:8])
        if length > len(data) - 8:
            raise ValueError("the header is longer than the file")
        header = json.loads(data[8 : 8 + length])
        entries = [entry for key, entry in header.items() if key != "__metadata__"]
        if len(entries) != 1:
            raise InputError(f"{name!r:.80} holds {len(entries)} tensors", fix="Save the one vector alone")
        entry = entries[0]
        if entry["dtype"] not in _TYPES:
            raise InputError(
                f"The vector in {name!r:.80} has the type {entry['dtype']!r:.20}", fix="Save it as float32"
            )
        start, end = (int(offset) for offset in entry["data_offsets"])
        if not 0 <= start <= end <= len(data) - 8 - length:
            raise ValueError("the numbers lie outside the file")
        body = data[8 + length + start : 8 + length + end]
        return np.frombuffer(body, _TYPES[entry["dtype"]]).reshape([int(size) for size in entry["shape"]])
    except (ValueError, KeyError, TypeError, AttributeError, struct.error, RecursionError) as error:
        raise InputError(f"{name!r:.80} is not a safetensors file", why=str(error)[:200]) from error
