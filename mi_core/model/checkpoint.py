"""Weights on disk: which safetensors files a folder holds, whether they are whole, and reading them.

Only safetensors are read: a header of plain JSON, then numbers. The header alone says names, shapes and
number formats, so parameters are counted, and truncated or foreign files refused, before a weight is read.
"""

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mi_core.errors import ModelError

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".msgpack", ".h5")

MAX_HEADER_BYTES = 100_000_000  # what the safetensors library itself allows
MAX_JSON_BYTES = 50_000_000

_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "BOOL": 1,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1,
}  # fmt: skip
_NAMES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


@dataclass(frozen=True, slots=True)
class WeightFile:
    """One safetensors file, described by its header.

    Attributes:
        path: where it is.
        shapes: name of each tensor -> its shape.
        dtypes: name of each tensor -> its number format, as safetensors writes it ("F32", "BF16", ...).
    """

    path: Path
    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, str]

    @property
    def parameters(self) -> int:
        """How many floating-point numbers it holds."""
        return sum(
            math.prod(self.shapes[name])
            for name, dtype in self.dtypes.items()
            if dtype.startswith(("F", "BF"))
        )

    @property
    def bytes(self) -> int:
        """Size of its tensors, in bytes."""
        return sum(self.bytes_of(name) for name in self.shapes)

    def bytes_of(self, name: str) -> int:
        """Size of one tensor, in bytes."""
        return math.prod(self.shapes[name]) * _BYTES[self.dtypes[name]]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """All weight files of one model.

    Attributes:
        files: in the order in which they are read.
    """

    files: tuple[WeightFile, ...]

    @property
    def parameters(self) -> int:
        """How many floating-point numbers it holds."""
        return sum(file.parameters for file in self.files)

    @property
    def bytes(self) -> int:
        """Size of all tensors, in bytes."""
        return sum(file.bytes for file in self.files)

    @property
    def dtype(self) -> str:
        """Number format of the weights: "float32", ..., or "mixed"."""
        found = {_NAMES.get(dtype, dtype) for file in self.files for dtype in file.dtypes.values()}
        floats = found & set(_NAMES.values()) or found
        return floats.pop() if len(floats) == 1 else "mixed"


def corrupt(what: str, why: str) -> ModelError:
    """The error for files that are there and cannot be trusted."""
    return ModelError(what, kind="corrupt", why=why, fix="Download or copy the model again")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a model's folder.

    Raises:
        ModelError: kind "corrupt", when it cannot be read, is too large, or is no JSON object.
    """
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise corrupt(
                f"{path.name} cannot be used", f"it is larger than {MAX_JSON_BYTES // 1_000_000} MB"
            )
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise corrupt(f"{path.name} cannot be read", error.strerror or "unknown cause") from error
    except (ValueError, RecursionError) as error:
        raise corrupt(f"{path.name} is damaged", "it is not JSON") from error
    if not isinstance(value, dict):
        raise corrupt(f"{path.name} is damaged", "it is not a JSON object")
    return value


def read_header(path: Path) -> WeightFile:
    """Read a safetensors file's header and check it against the file's size.

    Raises:
        ModelError: kind "corrupt": unreadable, damaged or truncated.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else MAX_HEADER_BYTES + 1
            raw = file.read(length) if length <= MAX_HEADER_BYTES else b""
    except OSError as error:
        raise corrupt(f"{path.name} cannot be read", error.strerror or "unknown cause") from error
    if len(raw) < length:
        raise corrupt(f"{path.name} is damaged", "it is cut off, or not a safetensors file")
    try:
        header = json.loads(raw)
        shapes, dtypes, end = _tensors_of(header)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise corrupt(f"{path.name} is damaged", "its header is not that of a safetensors file") from error
    expected = 8 + length + end
    if size != expected:
        raise corrupt(f"{path.name} is damaged", f"it has {size:,} bytes of {expected:,}")
    return WeightFile(path, shapes, dtypes)


def _tensors_of(header: dict[str, Any]) -> tuple[dict[str, tuple[int, ...]], dict[str, str], int]:
    """Shapes, number formats, and where the last tensor ends; ValueError when they do not fit together."""
    shapes: dict[str, tuple[int, ...]] = {}
    dtypes: dict[str, str] = {}
    end = 0
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        shape, (first, last) = tuple(int(size) for size in entry["shape"]), entry["data_offsets"]
        if min(shape, default=0) < 0 or last - first != math.prod(shape) * _BYTES[entry["dtype"]]:
            raise ValueError(name)
        shapes[name], dtypes[name], end = shape, entry["dtype"], max(end, last)
    return shapes, dtypes, end


def read_checkpoint(folder: Path, name: str) -> Checkpoint:
    """Find a model's weight files and read their headers.

    Args:
        folder: the model's folder.
        name: what to call the model in an error.

    Raises:
        ModelError: kind "missing" (no weights), "pickle_only", or "corrupt" (damaged, truncated, or an index
            that does not fit the files).
    """
    if (folder / SINGLE_FILE).is_file():
        return Checkpoint((read_header(folder / SINGLE_FILE),))
    if (folder / INDEX_FILE).is_file():
        return _read_shards(folder)
    others = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLE_SUFFIXES)
    if others:
        raise ModelError(
            f"{name!r} has no safetensors weights",
            kind="pickle_only",
            why=f"only {others[0]}, and such files can run code when they are read",
            fix="Take a revision with safetensors, or convert it with transformers' save_pretrained",
        )
    if (folder / "adapter_config.json").is_file():
        raise ModelError(
            f"{name!r} is an adapter, not a model",
            kind="unsupported",
            fix="Merge it into its base model first",
        )
    found = sorted(path.name for path in folder.glob("*.safetensors"))
    why = f"{SINGLE_FILE} is not there" + (f", only {found[0]}" if found else "")
    raise ModelError(
        f"{name!r} has no weights", kind="missing", why=why, fix="Download or copy the model again"
    )


def _read_shards(folder: Path) -> Checkpoint:
    """The shards that the index lists, each of which must be there and hold what the index says."""
    where = read_json(folder / INDEX_FILE).get("weight_map")
    if not isinstance(where, dict) or not where or not all(isinstance(file, str) for file in where.values()):
        raise corrupt(f"{INDEX_FILE} is damaged", "it lists no weights")
    files: list[WeightFile] = []
    for file_name in sorted(set(where.values())):
        if Path(file_name).name != file_name:  # a path would reach outside the folder
            raise corrupt(f"{INDEX_FILE} is damaged", "it names a file outside the model's folder")
        if not (folder / file_name).is_file():
            raise corrupt("The weights are incomplete", f"{file_name} is listed in the index and not there")
        files.append(read_header(folder / file_name))
        lost = [
            name for name, holder in where.items() if holder == file_name and name not in files[-1].shapes
        ]
        if lost:
            raise corrupt("The weights are incomplete", f"{file_name} does not hold {lost[0]}")
    return Checkpoint(tuple(files))
