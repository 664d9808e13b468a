"""Tensors in files of any kind: whole, by rows, by columns or by stretches of rows.

Only the numbers asked for are read. A large tensor is read in pieces of `PIECE_BYTES` straight into its
place, so that reading takes no more memory than what comes out of it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from mi_core.errors import TranscoderError
from mi_core.transcoders.sources import ByteFile, Span

PIECE_BYTES = 16 * 2**20

FORMATS: dict[str, torch.dtype] = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32,
}  # fmt: skip
"""Number formats by the names of safetensors."""


@dataclass(frozen=True, slots=True)
class Stored:
    """Where a tensor lies in its file.

    Attributes:
        shape: its shape.
        dtype: its number format.
        first: its first byte.
        by_column: whether the first axis is the one that runs fastest (NumPy's Fortran order).
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    first: int
    by_column: bool = False

    @property
    def row_bytes(self) -> int:
        """Bytes of one entry of the slowest axis."""
        sizes = self.shape[:-1] if self.by_column else self.shape[1:]
        return prod(sizes) * self.dtype.itemsize

    @property
    def bytes(self) -> int:
        """Bytes of all of it."""
        return prod(self.shape) * self.dtype.itemsize


class TensorFile:
    """Named tensors in one file.

    Args:
        file: its bytes.
        tensors: what is in it, by name.
    """

    def __init__(self, file: ByteFile, tensors: dict[str, Stored]) -> None:
        self.file, self.tensors = file, tensors

    @property
    def name(self) -> str:
        """What to call it in an error."""
        return self.file.name

    def stored(self, key: str) -> Stored:
        """Where a tensor lies.

        Raises:
            TranscoderError: kind "missing", naming file, key and the keys that are there.
        """
        if key not in self.tensors:
            there = ", ".join(sorted(self.tensors)[:8]) or "nothing"
            raise TranscoderError(
                f"{self.name} has no {key}", kind="missing", why=f"its keys are {there}",
                fix="Check that this is the format that its config names",
            )  # fmt: skip
        return self.tensors[key]

    def tensor(self, key: str, *, transposed: bool = False) -> Tensor:
        """All of a tensor in the format of its file; a matrix on request with its axes exchanged."""
        stored = self.stored(key)
        shape = stored.shape[::-1] if transposed else stored.shape
        out = torch.empty(shape, dtype=stored.dtype)
        # The matrix as it lies in the file, in which a piece is a stretch of rows.
        lies = out.T if transposed != stored.by_column and out.ndim == 2 else out
        lies = lies.reshape(1) if lies.ndim == 0 else lies
        for start, part in self._pieces(stored, tuple(lies.shape)):
            lies[start : start + part.shape[0]] = part
        return out

    def _pieces(self, stored: Stored, shape: tuple[int, ...]) -> Iterator[tuple[int, Tensor]]:
        row = prod(shape[1:]) * stored.dtype.itemsize
        rows = max(1, PIECE_BYTES // max(1, row))
        for start in range(0, shape[0], rows):
            count = min(rows, shape[0] - start)
            data = self.file.read([(stored.first + start * row, count * row)])[0]
            yield start, _numbers(data, stored.dtype).view(count, *shape[1:])

    def rows(self, key: str, indices: Sequence[int]) -> Tensor:
        """Some entries of the first axis, [n, ...]; only they are read, unless a file has them by column."""
        stored = self.stored(key)
        if stored.by_column:
            return self._columns(stored, stored.shape[::-1], indices).contiguous()
        size = stored.row_bytes
        if not indices:
            return torch.empty(0, *stored.shape[1:], dtype=stored.dtype)
        spans: list[Span] = [(stored.first + int(index) * size, size) for index in indices]
        parts = self.file.read(spans)
        return torch.stack([_numbers(part, stored.dtype).view(stored.shape[1:]) for part in parts])

    def columns(self, key: str, indices: Sequence[int]) -> Tensor:
        """Some entries of a matrix' second axis as rows, [n, first axis]; all of it is read, in pieces."""
        stored = self.stored(key)
        if stored.by_column:
            lies = Stored(stored.shape[::-1], stored.dtype, stored.first)
            return TensorFile(self.file, {key: lies}).rows(key, indices)
        return self._columns(stored, stored.shape, indices)

    def _columns(self, stored: Stored, shape: tuple[int, ...], indices: Sequence[int]) -> Tensor:
        chosen = torch.tensor([int(index) for index in indices], dtype=torch.long)
        out = torch.empty(len(chosen), shape[0], dtype=stored.dtype)
        for start, part in self._pieces(stored, shape):
            out[:, start : start + part.shape[0]] = part[:, chosen].T
        return out

    def stretch(self, key: str, start: int, stop: int) -> Tensor:
        """Neighbouring entries of the first axis, [stop - start, ...]."""
        stored = self.stored(key)
        if stored.by_column:
            return self.rows(key, range(start, stop))
        size = stored.row_bytes
        data = self.file.read([(stored.first + start * size, (stop - start) * size)])[0]
        return _numbers(data, stored.dtype).view(stop - start, *stored.shape[1:])


def _numbers(data: bytearray, dtype: torch.dtype) -> Tensor:
    """Numbers over the bytes, without a copy (nobody else holds them)."""
    return torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
