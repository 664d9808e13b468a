"""Bytes of a file, wherever it is: only the stretches that are asked for are read, and every byte is counted.

A file of decoder rows has gigabytes, the rows of one feature some ten kilobytes. `LocalFile` reads a stretch
from the disk, `mi_core.transcoders.hub_range.RemoteFile` asks a server for it; readers of tensors
(`sources_safetensors`, `sources_npz`) see no difference.
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from io import FileIO
from pathlib import Path
from typing import Protocol

from mi_core.errors import TranscoderError

Span = tuple[int, int]
"""(first byte, number of bytes)."""

AGAIN = "Download or copy it again"


class ByteFile(Protocol):
    """Stretches of a file."""

    @property
    def name(self) -> str:
        """What to call it in an error: its path in its folder."""
        ...

    @property
    def size(self) -> int:
        """Bytes that it has."""
        ...

    @property
    def read_bytes(self) -> int:
        """Bytes read so far."""
        ...

    def read(self, spans: Sequence[Span]) -> list[bytearray]:
        """The bytes of each span, in the order given; neighbours are read in one piece.

        Raises:
            TranscoderError: kind "corrupt" (it ends before, or has changed) or "missing" (it is gone).
        """
        ...


class LocalFile:
    """A file on this machine. It is opened for each reading, so none stays open.

    Args:
        path: where it is.
        name: what to call it in an error; None = its file name.
    """

    def __init__(self, path: Path, name: str | None = None) -> None:
        self.path, self._name, self._read = path, name or path.name, 0
        self._stamp = self._look()

    @property
    def name(self) -> str:
        """What to call it in an error."""
        return self._name

    @property
    def size(self) -> int:
        """Bytes that it has."""
        return self._stamp[0]

    @property
    def read_bytes(self) -> int:
        """Bytes read so far."""
        return self._read

    def read(self, spans: Sequence[Span]) -> list[bytearray]:
        """The bytes of each span."""
        check_spans(self, spans)
        if self.changed():
            # Its header was read before: the old places in the new file would be wrong numbers.
            raise TranscoderError(
                f"{self.name} has changed while it was in use",
                kind="corrupt",
                fix="Open the transcoder again",
            )
        return read_merged(spans, self._stretches)

    def changed(self) -> bool:
        """Whether it is no longer the file that was opened."""
        return self._look() != self._stamp

    def _stretches(self, spans: Sequence[Span]) -> list[bytearray]:
        found = []
        try:
            with self.path.open("rb", buffering=0) as file:
                for first, length in spans:
                    file.seek(first)
                    found.append(_exactly(file, length))
        except OSError as error:
            raise unreadable(self.name, error) from error
        for part, (_, length) in zip(found, spans, strict=True):
            if len(part) != length:
                raise cut_off(self.name, f"it ends {length - len(part):,} bytes too early")
            self._read += length
        return found

    def _look(self) -> tuple[int, int]:
        try:
            stat = self.path.stat()
        except OSError as error:
            raise unreadable(self.name, error) from error
        return stat.st_size, stat.st_mtime_ns


def _exactly(file: FileIO, length: int) -> bytearray:
    """As many bytes as there are, `length` at most; one call of the system may give fewer."""
    data = bytearray(length)
    view, done = memoryview(data), 0
    while done < length:
        count = file.readinto(view[done:])
        if not count:
            break
        done += count
    view.release()
    del data[done:]
    return data


def check_spans(file: ByteFile, spans: Sequence[Span]) -> None:
    """Refuse a span outside the file.

    Raises:
        TranscoderError: kind "corrupt".
    """
    for first, length in spans:
        if first < 0 or length < 0 or first + length > file.size:
            raise cut_off(
                file.name, f"bytes {first:,} to {first + length:,} are asked for and it has {file.size:,}"
            )


def read_merged(spans: Sequence[Span], read: Callable[[Sequence[Span]], list[bytearray]]) -> list[bytearray]:
    """Read spans with neighbours joined, each byte once, and hand them out in the order asked for.

    Args:
        spans: in any order; repeated ones are read once.
        read: called once with the joined spans, ascending; gives their bytes.
    """
    joined: list[list[int]] = []
    for first, length in sorted(set(spans)):
        if joined and first <= joined[-1][0] + joined[-1][1]:
            joined[-1][1] = max(joined[-1][1], first + length - joined[-1][0])
        else:
            joined.append([first, length])
    pieces = read([(first, length) for first, length in joined])
    if list(spans) == [(first, length) for first, length in joined]:
        return pieces
    starts = [first for first, _ in joined]
    return [_cut(starts, pieces, span) for span in spans]


def _cut(starts: list[int], pieces: list[bytearray], span: Span) -> bytearray:
    index = bisect_right(starts, span[0]) - 1
    offset = span[0] - starts[index]
    return pieces[index][offset : offset + span[1]]


def cut_off(name: str, why: str) -> TranscoderError:
    """The error for a file that is not whole."""
    return TranscoderError(f"{name} is damaged", kind="corrupt", why=why, fix=AGAIN)


def unreadable(name: str, error: OSError) -> TranscoderError:
    """The error for a file that the system does not give."""
    kind = "missing" if isinstance(error, FileNotFoundError) else "corrupt"
    return TranscoderError(f"{name} cannot be read", kind=kind, why=error.strerror or "unknown cause")
