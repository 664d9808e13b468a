"""NumPy archives over any bytes: a zip file with one `.npy` per array.

What is stored plainly (`numpy.savez`) is read where it lies, by row if need be. What is compressed
(`numpy.savez_compressed`) is unpacked whole, once. Pickled arrays are refused.
"""

import io
import struct
import zipfile
from collections.abc import Sequence
from typing import IO

import numpy as np
import torch
from numpy.lib import format as npy

from mi_core.errors import TranscoderError
from mi_core.transcoders.sources import ByteFile, Span, check_spans, cut_off
from mi_core.transcoders.sources_tensors import Stored, TensorFile

MAX_UNPACKED_BYTES = 4 * 2**30
HEADER_BYTES = 1024
"""What is read of an array to know its shape; some of its numbers may be among it."""
_LOCAL = struct.Struct("<4s22xHH")  # signature, ..., lengths of name and extra field


def open_npz(file: ByteFile) -> TensorFile:
    """Find the arrays of an archive.

    Raises:
        TranscoderError: kind "corrupt" or "unsupported" (pickled arrays, other number formats).
    """
    try:
        with zipfile.ZipFile(_Seekable(file)) as archive:
            members = [member for member in archive.infolist() if member.filename.endswith(".npy")]
            if all(member.compress_type == zipfile.ZIP_STORED for member in members):
                return TensorFile(file, {_key(member): _stored(file, member) for member in members})
            return _unpacked(file, archive, members)
    except (zipfile.BadZipFile, EOFError, struct.error, NotImplementedError) as error:
        raise cut_off(file.name, "it is cut off, or not a NumPy archive") from error


def is_compressed(file: ByteFile) -> bool:
    """Whether arrays of an archive can only be had by unpacking them; told from its list of members.

    Raises:
        TranscoderError: kind "corrupt".
    """
    try:
        with zipfile.ZipFile(_Seekable(file)) as archive:
            return any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist())
    except (zipfile.BadZipFile, EOFError, struct.error, NotImplementedError) as error:
        raise cut_off(file.name, "it is cut off, or not a NumPy archive") from error


def _key(member: zipfile.ZipInfo) -> str:
    return member.filename.removesuffix(".npy")


def _stored(file: ByteFile, member: zipfile.ZipInfo) -> Stored:
    """Where the numbers of a member that is not compressed lie."""
    local = file.read([(member.header_offset, _LOCAL.size)])[0]
    signature, name, extra = _LOCAL.unpack(bytes(local))
    if signature != b"PK\x03\x04":
        raise zipfile.BadZipFile(member.filename)
    first = member.header_offset + _LOCAL.size + name + extra
    head = io.BytesIO(bytes(file.read([(first, min(HEADER_BYTES, file.size - first))])[0]))
    stored = _layout(head, member.filename, file.name)
    place = Stored(stored.shape, stored.dtype, first + head.tell(), stored.by_column)
    if place.first + place.bytes != first + member.file_size:
        raise cut_off(file.name, f"{member.filename} has another size than its header says")
    return place


def _layout(head: IO[bytes], member: str, name: str) -> Stored:
    """Shape and number format from the header of an `.npy`."""
    try:
        version = npy.read_magic(head)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, by_column, dtype = read(head)
    except ValueError as error:
        raise cut_off(name, f"the header of {member} is not NumPy's") from error
    if dtype.hasobject or dtype.kind not in "fi" or dtype.byteorder == ">":
        raise TranscoderError(
            f"{member} in {name} cannot be read", kind="unsupported",
            why="it holds Python objects, which could run code" if dtype.hasobject
            else f"its number format is {str(dtype)!r}",
        )  # fmt: skip
    kind = torch.from_numpy(np.empty(0, dtype)).dtype
    return Stored(tuple(int(size) for size in shape), kind, 0, bool(by_column) and len(shape) == 2)


def _unpacked(file: ByteFile, archive: zipfile.ZipFile, members: list[zipfile.ZipInfo]) -> TensorFile:
    """All arrays of a compressed archive, unpacked into memory."""
    if sum(member.file_size for member in members) > MAX_UNPACKED_BYTES:
        raise TranscoderError(
            f"{file.name} is too large to unpack", kind="unsupported", why="its arrays are compressed",
            fix="Save them with numpy.savez, which does not compress",
        )  # fmt: skip
    pieces, places, at = [], {}, 0
    for member in members:
        head = io.BytesIO(archive.read(member))
        stored = _layout(head, member.filename, file.name)
        data = head.read()
        if len(data) != stored.bytes:
            raise cut_off(file.name, f"{member.filename} has another size than its header says")
        places[_key(member)] = Stored(stored.shape, stored.dtype, at, stored.by_column)
        pieces.append(data)
        at += len(data)
    return TensorFile(_InMemory(file, b"".join(pieces)), places)


class _InMemory:
    """Bytes that were unpacked; what was read from the file is what counts."""

    def __init__(self, file: ByteFile, data: bytes) -> None:
        self.name, self.size, self._file, self._data = file.name, len(data), file, data

    @property
    def read_bytes(self) -> int:
        return self._file.read_bytes

    def read(self, spans: Sequence[Span]) -> list[bytearray]:
        check_spans(self, spans)
        return [bytearray(self._data[first : first + length]) for first, length in spans]


class _Seekable(io.RawIOBase):
    """A file object over a `ByteFile`, for zipfile."""

    def __init__(self, file: ByteFile) -> None:
        self._file, self._at = file, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = max(0, offset + {0: 0, 1: self._at, 2: self._file.size}[whence])
        return self._at

    def read(self, size: int = -1) -> bytes:  # type: ignore[override]  # RawIOBase may give None, we never do
        left = max(0, self._file.size - self._at)
        count = left if size < 0 else min(size, left)
        data = bytes(self._file.read([(self._at, count)])[0]) if count else b""
        self._at += count
        return data
