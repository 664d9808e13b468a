"""From the text that names a transcoder to its files: beside the model, a folder, or the hub's cache."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from mi_core.errors import TranscoderError
from mi_core.transcoders.folder import Folder, LocalFolder
from mi_core.transcoders.hub_folder import hub_folder
from mi_core.transcoders.hub_reference import is_reference, local_folder, parse_reference


class Named(Protocol):
    """A transcoder beside the model (`mi_core.transcoders.store.FoundTranscoder`)."""

    @property
    def name(self) -> str:
        """What it is called."""
        ...

    @property
    def folder(self) -> str:
        """Where it is."""
        ...


def find_folder(
    name: str, beside: Sequence[Named], *, cache: Path | None = None, endpoint: str | None = None
) -> Folder:
    """The files of a transcoder.

    Args:
        name: "" = the first one beside the model; else the name of one of them, a folder, or an address on
            the hub (`owner/name[/folder][@revision]`) of what is in the cache.
        beside: those beside the model.
        cache: the Hugging Face cache; None = where the environment says.
        endpoint: address of the hub; None = as the environment says.

    Raises:
        TranscoderError: kind "missing".
    """
    if not name:
        if not beside:
            raise TranscoderError(
                "This model has no transcoder of its own here", kind="missing",
                fix="Choose a folder or a repository of the Hugging Face hub",
            )  # fmt: skip
        return LocalFolder(Path(beside[0].folder), beside[0].name)
    for found in beside:
        if found.name == name:
            return LocalFolder(Path(found.folder), name)
    path = local_folder(name)
    if path is not None:
        return LocalFolder(path, str(path))
    if is_reference(name):
        folder = hub_folder(parse_reference(name), cache=cache, endpoint=endpoint)
        if folder is not None:
            return folder
        raise TranscoderError(
            f"{name!r} is not on this machine", kind="missing",
            why="there is no such folder, and nothing of it is in the Hugging Face cache",
            fix="Ask the hub for its size on the Features page, and fetch its encoders",
        )  # fmt: skip
    raise TranscoderError(f"There is no folder {name[:200]!r}", kind="missing", fix="Check the path")
