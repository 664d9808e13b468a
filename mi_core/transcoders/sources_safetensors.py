"""Safetensors over any bytes: eight bytes of header length, a header of JSON, then the numbers."""

import json
import struct
from math import prod
from typing import Any

from mi_core.errors import TranscoderError
from mi_core.transcoders.sources import ByteFile, cut_off
from mi_core.transcoders.sources_tensors import FORMATS, Stored, TensorFile

MAX_HEADER_BYTES = 16_000_000
"""Far more than the header of a transcoder, which names a handful of tensors."""


def open_safetensors(file: ByteFile) -> TensorFile:
    """Read the header of a safetensors file and check it against the file's size.

    Raises:
        TranscoderError: kind "corrupt" (damaged or cut off) or "unsupported" (an unknown number format).
    """
    start = file.read([(0, min(8, file.size))])[0]
    length = struct.unpack("<Q", start)[0] if len(start) == 8 else MAX_HEADER_BYTES + 1
    if length > MAX_HEADER_BYTES or 8 + length > file.size:
        raise cut_off(file.name, "it is cut off, or not a safetensors file")
    try:
        header = json.loads(bytes(file.read([(8, length)])[0]))
        tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
        places = {name: _place(name, entry, 8 + length, file.name) for name, entry in tensors.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise cut_off(file.name, "its header is not that of a safetensors file") from error
    end = max((place.first + place.bytes for place in places.values()), default=8 + length)
    if end != file.size:
        raise cut_off(file.name, f"it has {file.size:,} bytes of {end:,}")
    return TensorFile(file, places)


def _place(name: str, entry: dict[str, Any], numbers: int, file: str) -> Stored:
    shape = tuple(int(size) for size in entry["shape"])
    first, last = (int(offset) for offset in entry["data_offsets"])
    if entry["dtype"] not in FORMATS:
        raise TranscoderError(
            f"{name} in {file} cannot be read", kind="unsupported",
            why=f"its number format is {str(entry['dtype'])[:20]!r}",
        )  # fmt: skip
    stored = Stored(shape, FORMATS[entry["dtype"]], numbers + first)
    if min(shape, default=0) < 0 or first < 0 or last - first != prod(shape) * stored.dtype.itemsize:
        raise ValueError(name)
    return stored
