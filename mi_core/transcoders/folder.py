"""A transcoder's files as a list with sizes, some here and some perhaps only on the hub.

Formats (`formats_*`) ask a `Folder` for names, texts and tensors, and do not know where a file comes from:
a local folder, a snapshot in the Hugging Face cache, or a repository whose small parts are fetched on request
(`mi_core.transcoders.hub_folder`).
"""

import hashlib
import json
import threading
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, runtime_checkable

from mi_core.errors import TranscoderError
from mi_core.transcoders.sources import ByteFile, LocalFile, unreadable
from mi_core.transcoders.sources_npz import open_npz
from mi_core.transcoders.sources_safetensors import open_safetensors
from mi_core.transcoders.sources_tensors import TensorFile

MAX_FILES = 20_000
MAX_DEPTH = 5
MAX_TEXT_BYTES = 2_000_000
_WHOLE_BYTES = 64 * 2**20
_END_BYTES = 65_536


@runtime_checkable  # tests check annotations
class Folder(Protocol):
    """Files by their path in the folder ("layer_3/params.npz")."""

    @property
    def name(self) -> str:
        """What to call the folder in an error."""
        ...

    @property
    def files(self) -> Mapping[str, int]:
        """Path of each file -> its bytes."""
        ...

    def here(self, file: str) -> bool:
        """Whether reading a file needs no network."""
        ...

    def open(self, file: str) -> ByteFile:
        """A file's bytes, opened once.

        Raises:
            TranscoderError: kind "missing", or "no_decoder" where only a download would help.
        """
        ...

    def whole(self, file: str) -> bool:
        """Whether all of a file can be read, here or from the hub; else its decoder cannot."""
        ...

    @property
    def repo(self) -> str:
        """Its address on the hub; "" where it has none."""
        ...

    @property
    def version(self) -> str:
        """What identifies its content: address and commit; "" where only the files themselves do."""
        ...

    def changed(self) -> bool:
        """Whether its files are no longer those that were opened."""
        ...

    def elsewhere(self, reference: str) -> "tuple[Folder, str]":
        """The folder and file that an `hf://owner/name/path@revision` of a config.yaml means.

        Raises:
            TranscoderError: kind "missing": it is not on this machine.
        """
        ...


class LocalFolder:
    """A folder on this machine.

    Args:
        path: where it is.
        name: what to call it in an error.
        cache: the Hugging Face cache in which references to other repositories are looked up; None = where
            the environment says.
        repo: its address on the hub; "" where it has none.
        version: what identifies its content, where that is known (address and commit).

    Raises:
        TranscoderError: kind "missing", when there is no such folder.
    """

    def __init__(
        self, path: Path, name: str = "", cache: Path | None = None, *, repo: str = "", version: str = ""
    ) -> None:
        self.path, self._name, self._cache, self._repo = path, name or path.name, cache, repo
        self._version = version
        if not path.is_dir():
            raise TranscoderError(
                f"There is no folder {str(path)[:200]!r}", kind="missing", fix="Check the path"
            )
        self._files = _listed(path)
        self._open: dict[str, LocalFile] = {}
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """What to call it in an error."""
        return self._name

    @property
    def files(self) -> Mapping[str, int]:
        """Path of each file -> its bytes."""
        return self._files

    @property
    def repo(self) -> str:
        """Its address on the hub."""
        return self._repo

    @property
    def version(self) -> str:
        """Address and commit, where there are some."""
        return self._version

    def changed(self) -> bool:
        """Whether a file came, went, or has changed since it was opened."""
        try:
            with self._lock:
                return _listed(self.path) != self._files or any(one.changed() for one in self._open.values())
        except TranscoderError:
            return True

    def here(self, file: str) -> bool:
        """Always, for a file that is there."""
        return file in self._files

    def whole(self, file: str) -> bool:
        """Always, for a file that is there."""
        return file in self._files

    def open(self, file: str) -> ByteFile:
        """A file's bytes, opened once."""
        if file not in self._files:
            raise missing_file(self, file)
        with self._lock:
            if file not in self._open:
                self._open[file] = LocalFile(self.path / file, file)
            return self._open[file]

    def elsewhere(self, reference: str) -> "tuple[Folder, str]":
        """A file in another repository of the Hugging Face cache."""
        from mi_core.transcoders.hub_folder import folder_of_reference

        return folder_of_reference(reference, cache=self._cache)


def _listed(folder: Path, prefix: str = "", depth: int = 0) -> dict[str, int]:
    """Files below a folder with their sizes; links are followed (the Hugging Face cache is made of them)."""
    found: dict[str, int] = {}
    try:
        for path in sorted(folder.iterdir()):
            if path.name.startswith("."):
                continue
            if path.is_dir():
                if depth < MAX_DEPTH:
                    found |= _listed(path, f"{prefix}{path.name}/", depth + 1)
            elif path.is_file():
                found[prefix + path.name] = path.stat().st_size
            if len(found) > MAX_FILES:
                raise TranscoderError(
                    f"{folder.name} is no transcoder",
                    kind="unsupported",
                    why=f"it has over {MAX_FILES:,} files",
                )
    except OSError as error:
        raise unreadable(str(folder), error) from error
    return found


def missing_file(folder: Folder, file: str) -> TranscoderError:
    """The error for a file that a format needs and that is not there."""
    there = ", ".join(sorted(folder.files)[:5]) or "nothing"
    return TranscoderError(
        f"{folder.name} is incomplete", kind="missing", why=f"{file} is not there (it has {there})",
        fix="Fetch or copy the missing file",
    )  # fmt: skip


def open_tensors(folder: Folder, file: str) -> TensorFile:
    """The tensors of a file, by its suffix.

    Raises:
        TranscoderError: it is missing, damaged, or a pickle.
    """
    suffix = PurePosixPath(file).suffix
    if suffix == ".safetensors":
        return open_safetensors(folder.open(file))
    if suffix == ".npz":
        return open_npz(folder.open(file))
    raise TranscoderError(
        f"{file} cannot be read", kind="unsupported",
        why="only safetensors and npz are read; pickles can run code when they are opened",
        fix="Convert it to safetensors",
    )  # fmt: skip


def read_text(folder: Folder, file: str) -> str:
    """A small text file.

    Raises:
        TranscoderError: missing, too large, or no text.
    """
    source = folder.open(file)
    if source.size > MAX_TEXT_BYTES:
        raise TranscoderError(
            f"{file} cannot be used", kind="corrupt", why=f"it is larger than {MAX_TEXT_BYTES // 10**6} MB"
        )
    try:
        return bytes(source.read([(0, source.size)])[0]).decode("utf-8")
    except UnicodeDecodeError as error:
        raise TranscoderError(f"{file} is damaged", kind="corrupt", why="it is not text") from error


def read_object(folder: Folder, file: str) -> dict[str, Any]:
    """A JSON object.

    Raises:
        TranscoderError: as `read_text`, or it is no JSON object.
    """
    try:
        value = json.loads(read_text(folder, file))
    except (ValueError, RecursionError) as error:
        raise TranscoderError(f"{file} is damaged", kind="corrupt", why="it is not JSON") from error
    if not isinstance(value, dict):
        raise TranscoderError(f"{file} is damaged", kind="corrupt", why="it is not a JSON object")
    return value


def fingerprint(folder: Folder, files: "list[str]") -> str:
    """16 hexadecimal digits that identify files.

    Of a repository over its address and commit, so that they stay the same when more of it is fetched. Else
    over name, size and content of each; of files larger than 64 MiB (or that are not here) over the first
    and the last 64 KiB, which hold all names and shapes.

    Args:
        folder: where they are.
        files: which.
    """
    digest = hashlib.sha256(folder.version.encode())
    for file in () if folder.version else sorted(files):
        size = folder.files.get(file, 0)
        digest.update(f"{file} {size}\n".encode())
        if not folder.here(file):
            continue
        source = LocalFile(folder.path / file) if isinstance(folder, LocalFolder) else folder.open(file)
        ends = [(0, _END_BYTES), (size - _END_BYTES, _END_BYTES)]
        spans = [(0, size)] if size <= _WHOLE_BYTES else ends
        for part in source.read(spans):
            digest.update(part)
    return digest.hexdigest()[:16]
