"""Reading the bytes of a checkpoint: a fingerprint of the files, and tensors that count their own reading."""

import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mi_core.model.checkpoint import Checkpoint, corrupt

_CHUNK = 1 << 20

_DIGESTS: dict[Path, tuple[int, int, str]] = {}
_DIGESTS_LOCK = threading.Lock()


def fingerprint(checkpoint: Checkpoint, on_bytes: Callable[[int], None]) -> str:
    """16 hexadecimal digits that identify the weights: sha256 over the sha256 of each file, in order.

    A file's hash is remembered while its size and modification time stay the same.

    Args:
        checkpoint: the files.
        on_bytes: told the number of bytes read since it was last called; may raise to stop.
    """
    whole = hashlib.sha256()
    for file in checkpoint.files:
        whole.update(_digest(file.path.resolve(), on_bytes).encode())
    return whole.hexdigest()[:16]


def _digest(path: Path, on_bytes: Callable[[int], None]) -> str:
    stat = path.stat()
    with _DIGESTS_LOCK:
        known = _DIGESTS.get(path)
    if known is not None and known[:2] == (stat.st_size, stat.st_mtime_ns):
        on_bytes(stat.st_size)
        return known[2]
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            on_bytes(len(chunk))
    with _DIGESTS_LOCK:
        _DIGESTS[path] = (stat.st_size, stat.st_mtime_ns, digest.hexdigest())
    return digest.hexdigest()


class LazyTensor:
    """A tensor that is read from its file when transformers indexes it, and counted then.

    transformers takes such slices in a state dict: each is read, converted and placed on its own, so memory
    peaks at the finished model, not at model plus checkpoint.
    """

    def __init__(self, part: Any, size: int, on_bytes: Callable[[int], None]) -> None:
        self._part, self._size, self._on_bytes = part, size, on_bytes

    def get_shape(self) -> list[int]:
        """Its shape."""
        return self._part.get_shape()

    def get_dtype(self) -> str:
        """Its number format, as safetensors writes it."""
        return self._part.get_dtype()

    def __getitem__(self, index: Any) -> Any:
        self._on_bytes(0)  # stop before the read, not after it
        tensor = self._part[index]
        self._on_bytes(self._size)
        return tensor


@contextmanager
def open_weights(
    checkpoint: Checkpoint, on_bytes: Callable[[int], None]
) -> Iterator[Mapping[str, LazyTensor]]:
    """The checkpoint as a state dict of lazy tensors, open inside the `with` block.

    Files are read with pread into memory of our own: a mapped file would follow later changes on disk, and a
    model that somebody retrains would change its numbers, or end the process, while it is looked at.

    Args:
        checkpoint: the files.
        on_bytes: told the number of bytes read since it was last called, from several threads; may raise to
            stop.

    Raises:
        ModelError: kind "corrupt", when the safetensors library refuses a file.
    """
    from safetensors import SafetensorError, safe_open

    opened: list[Any] = []
    tensors: dict[str, LazyTensor] = {}
    try:
        for file in checkpoint.files:
            try:
                handle = safe_open(file.path, framework="pt", device="cpu", backend="pread")
            except SafetensorError as error:
                raise corrupt(f"{file.path.name} is damaged", "the safetensors library refuses it") from error
            opened.append(handle.__enter__())
            for name in file.shapes:
                tensors[name] = LazyTensor(handle.get_slice(name), file.bytes_of(name), on_bytes)
        yield tensors
    finally:
        tensors.clear()
        for handle in opened:
            handle.__exit__(None, None, None)
