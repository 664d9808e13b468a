"""Where transcoders live and how they are opened.

They are beside the model (`transcoders/NAME/`), in a folder, or in the Hugging Face cache. An opened
transcoder stays with its model (`model.transcoders`), the last `KEPT` of them.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mi_core.errors import ModelError
from mi_core.model.discovery import find
from mi_core.transcoders.formats_names import looks_like_transcoder
from mi_core.transcoders.hub_cached import names_in, stamp
from mi_core.transcoders.hub_plan import known_plan
from mi_core.transcoders.hub_reference import is_reference, local_folder, parse_reference

if TYPE_CHECKING:
    from mi_core.model.model import LoadedModel
    from mi_core.model.spec import ModelSpec
    from mi_core.transcoders.transcoder import Transcoder

FOLDER = "transcoders"
KEPT = 2


@dataclass(frozen=True, slots=True)
class FoundTranscoder:
    """A transcoder on this machine.

    Attributes:
        name: what to call it.
        folder: where it is.
        bytes: size of its files.
    """

    name: str
    folder: str
    bytes: int


def beside_folder(spec: "ModelSpec | None") -> Path | None:
    """`transcoders/` in the model's folder, which need not exist; None when the model has no folder here."""
    if spec is None:
        return None
    try:
        return Path(find(spec.name, spec.revision).path) / FOLDER
    except ModelError:
        return None


def found_transcoders(spec: "ModelSpec | None") -> tuple[FoundTranscoder, ...]:
    """The transcoders beside a model, by name."""
    beside = beside_folder(spec)
    if beside is None or not beside.is_dir():
        return ()
    found = ((path, names_in(path)) for path in sorted(beside.iterdir()) if path.is_dir())
    return tuple(
        FoundTranscoder(path.name, str(path), _bytes(path, names))
        for path, names in found
        if looks_like_transcoder(names)
    )


def _bytes(folder: Path, names: tuple[str, ...]) -> int:
    """Size of the weights."""
    return sum((folder / name).stat().st_size for name in names if name.endswith((".safetensors", ".npz")))


def stamp_of(name: str, spec: "ModelSpec | None") -> Hashable:
    """Something that differs when the files of a transcoder do; None where there is none.

    Cheap and without torch: a result is only that of a question as long as this stays the same.

    Args:
        name: as in `load_transcoder`.
        spec: the model.
    """
    beside = found_transcoders(spec)
    folder = next((Path(one.folder) for one in beside if one.name == name or not name), None)
    folder = folder or local_folder(name)
    if folder is not None:
        return stamp(folder)
    if not name or not is_reference(name):
        return None
    plan = known_plan(parse_reference(name))
    return None if plan is None else (plan.listing.commit, plan.listing.by_range, plan.files_here)


def load_transcoder(model: "LoadedModel", name: str = "") -> "Transcoder":
    """A transcoder of a loaded model, opened once; opened again when its files have changed since.

    Args:
        model: the loaded model.
        name: "" = the first one beside the model; else the name of one beside it, a folder, or a Hugging Face
            address (`owner/name[/folder][@revision]`) of what is in the cache. Nothing is downloaded.

    Raises:
        TranscoderError: there is none, or its files cannot be used.
    """
    kept = model.transcoders
    if name in kept and _changed(kept[name]):
        del kept[name]
    if name not in kept:
        kept[name] = _open(model, name)
        while len(kept) > KEPT:
            kept.popitem(last=False)
    kept.move_to_end(name)
    return kept[name]


def _changed(transcoder: "Transcoder") -> bool:
    from mi_core.transcoders.sizes import folder_of

    folder = folder_of(transcoder)
    return folder is not None and folder.changed()


def _open(model: "LoadedModel", name: str) -> "Transcoder":
    from mi_core.transcoders.folder_find import find_folder  # needs torch; listing transcoders does not
    from mi_core.transcoders.formats import open_folder

    folder = find_folder(name, found_transcoders(model.spec))
    return open_folder(folder, model, name or folder.name)
