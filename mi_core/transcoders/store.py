"""Where transcoders live and how they are opened.

They are beside the model (`transcoders/NAME/`), in a folder, or in the Hugging Face cache. An opened
transcoder stays with its model (`model.transcoders`), the last `KEPT` of them.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mi_core.errors import ModelError, TranscoderError
from mi_core.model.discovery import find

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
    folders = sorted(path for path in beside.iterdir() if (path / "config.yaml").is_file())
    return tuple(
        FoundTranscoder(path.name, str(path), sum(file.stat().st_size for file in path.glob("*.safetensors")))
        for path in folders
    )


def load_transcoder(model: "LoadedModel", name: str = "") -> "Transcoder":
    """A transcoder of a loaded model, opened once.

    Args:
        model: the loaded model.
        name: "" = the first one beside the model; else the name of one beside it, a folder, or a Hugging Face
            id in the cache.

    Raises:
        TranscoderError: there is none, or its files cannot be used.
    """
    kept = model.transcoders
    if name not in kept:
        kept[name] = _open(model, name)
        while len(kept) > KEPT:
            kept.popitem(last=False)
    kept.move_to_end(name)
    return kept[name]


def _open(model: "LoadedModel", name: str) -> "Transcoder":
    beside = found_transcoders(model.spec)
    if not name:
        if not beside:
            raise TranscoderError(
                "This model has no transcoder of its own here",
                kind="missing",
                fix="Choose a folder or a repository from the Hugging Face cache",
            )
        name = beside[0].name
    match = next((Path(found.folder) for found in beside if found.name == name), Path(name).expanduser())
    return _open_clt(model, match, name)


def _open_clt(model: "LoadedModel", folder: Path, name: str) -> "Transcoder":
    from mi_core.transcoders.folder_clt import CltFolder  # needs torch; listing transcoders does not
    from mi_core.transcoders.transcoder import Hook, Transcoder

    source = CltFolder(folder)
    count = len(list(folder.glob("W_enc_*.safetensors")))
    if not count:
        raise TranscoderError(f"{name!r} is no transcoder", kind="missing", why="it has no W_enc files")
    shapes = {layer: tuple(source.encoder(layer).stored.shape) for layer in range(count)}
    return Transcoder(
        name=name,
        kind="clt",
        model_name="",
        n_layers=count,
        n_features={layer: shape[0] for layer, shape in shapes.items()},
        d_model=shapes[0][1],
        reads=Hook("resid_mid"),
        writes=Hook("mlp_out"),
        fingerprint=_fingerprint(folder),
        source=source,
        device=model.device,
        folder=folder,
        decoder_bytes=sum(path.stat().st_size for path in folder.glob("W_dec_*.safetensors")),
        activation="ReLU" if source.encoder(0).threshold is None else "JumpReLU",
    )


def _fingerprint(folder: Path) -> str:
    """16 hexadecimal digits over names, sizes and beginnings of the files."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        digest.update(f"{path.name} {path.stat().st_size}".encode())
        with path.open("rb") as file:
            digest.update(file.read(65_536))
    return digest.hexdigest()[:16]
