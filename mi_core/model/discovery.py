"""Which models are on this machine: bundled ones, folders, and the Hugging Face cache; never the network.

A model is a folder with a `config.json` and safetensors. Everything is read from JSON and from safetensors
headers, so listing takes milliseconds and imports neither torch nor transformers. What cannot be used is
listed too, with the reason.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mi_core.errors import InputError, ModelError
from mi_core.model.checkpoint import read_checkpoint, read_json
from mi_core.model.config_checks import architectures_of, check_config, text_of
from mi_core.model.hub_cache import (
    Snapshot,
    folder_of,
    hub_cache,
    is_hub_id,
    name_of,
    references,
    snapshots,
    subfolders,
)
from mi_core.model.memory import MemoryNeed, memory_need, sizes_of
from mi_core.model.progress import format_bytes, format_count
from mi_core.model.spec import DType, ModelSpec

Source = Literal["bundled", "folder", "cache"]

CONFIG_FILE = "config.json"
ASSETS = Path(__file__).resolve().parents[2] / "assets"


@dataclass(frozen=True, slots=True)
class FoundModel:
    """A model on this machine.

    Attributes:
        name: what to put into a `ModelSpec`.
        source: bundled with Lantern, a folder, or the Hugging Face cache.
        path: its folder.
        model_type: family, as config.json names it; "" when unreadable.
        architecture: class that it was saved from; "" when not stated.
        revision: branch or tag that leads to it (cache only).
        commit: its commit (cache only).
        bytes: size of its files.
        parameters: number of weights, from the safetensors headers, else estimated from the config; 0 =
            unknown.
        dtype: number format in which they are stored; "" = unknown.
        usable: whether it can be loaded, as far as its files tell.
        reason: if not, why, and what to do.
        kind: if not, the `ModelError.kind`.
    """

    name: str
    source: Source
    path: str
    model_type: str = ""
    architecture: str = ""
    revision: str | None = None
    commit: str | None = None
    bytes: int = 0
    parameters: int = 0
    dtype: str = ""
    usable: bool = True
    reason: str = ""
    kind: str = ""

    def config(self) -> dict[str, Any]:
        """The content of its config.json."""
        return read_json(Path(self.path) / CONFIG_FILE)

    def need(self, dtype: DType = "float32", *, positions: int = 128, rows: int = 1) -> MemoryNeed:
        """Memory for it and one forward pass (see `mi_core.model.memory.memory_need`)."""
        return memory_need(self.parameters, self.config(), dtype, positions=positions, rows=rows)

    def describe(self) -> str:
        """One line: `atlas · llama · 2.1 M parameters · 8 MB · bundled`."""
        parts = [self.name, self.model_type or "unknown family"]
        if self.parameters:
            parts.append(f"{format_count(self.parameters)} parameters")
        if self.bytes:
            parts.append(format_bytes(self.bytes))
        place = {"bundled": "bundled", "folder": "folder", "cache": "Hugging Face cache"}[self.source]
        return " · ".join([*parts, place])


def discover(
    folders: Iterable[str | Path] = (), *, cache: Path | None = None, assets: Path | None = None
) -> list[FoundModel]:
    """List the models on this machine: bundled, then in the given folders, then in the Hugging Face cache.

    Args:
        folders: each a model, or a folder of models.
        cache: the Hugging Face cache; None = where the environment says.
        assets: folder of the bundled models; None = Lantern's own.

    Returns:
        Models by source, then by name; unusable ones with their reason.
    """
    bundled = [_look(path, path.name, "bundled") for path in _models_in(assets or ASSETS)]
    local = [
        _look(path, str(path), "folder")
        for folder in folders
        for path in _models_at(Path(folder).expanduser())
    ]
    cached = []
    for repository in subfolders(cache or hub_cache()):
        name = name_of(repository)
        commits = (
            [one for one in snapshots(repository) if (one.folder / CONFIG_FILE).is_file()] if name else []
        )
        if name and commits:  # a repository without config.json is no transformers model
            cached.append(_best(name, commits)[0])
    return [found for found, _ in [*bundled, *local]] + cached


def find(
    name: str, revision: str | None = None, *, cache: Path | None = None, assets: Path | None = None
) -> FoundModel:
    """Find one model by bundled name, folder, or hub id in the cache, in this order.

    A name that starts like a path (`/`, `./`, `../`, `~`) is only a path; any other folder comes after the
    cache.

    Args:
        name: what the user asked for.
        revision: branch, tag or commit of a hub id; None = main, else the newest usable one.
        cache: see `discover`.
        assets: see `discover`.

    Returns:
        A usable model.

    Raises:
        InputError: the name or revision cannot be one.
        ModelError: it is not here ("missing"), or cannot be used: "not_causal_lm", "corrupt", "pickle_only",
            "unsupported".
    """
    spec = ModelSpec(name, revision)  # refuses empty, endless and unprintable names
    found, error = _find(spec, cache or hub_cache(), assets or ASSETS)
    if error is not None:
        raise error
    return found


def _find(spec: ModelSpec, cache: Path, assets: Path) -> tuple[FoundModel, ModelError | None]:
    name = spec.name
    looks_like_path = (
        name.startswith(("/", "./", "../", "~", "\\")) or name in (".", "..") or Path(name).is_absolute()
    )
    if not looks_like_path and is_hub_id(name):
        if (assets / name / CONFIG_FILE).is_file() and "/" not in name:
            _refuse_revision(spec)
            return _look(assets / name, name, "bundled")
        repository = folder_of(cache, name)
        commits = snapshots(repository, spec.revision)
        if commits:
            return _best(name, commits)
        if repository.is_dir():
            raise _not_cached(spec, repository)
    folder = Path(name).expanduser()
    if folder.is_dir():
        _refuse_revision(spec)
        return _look(folder, name, "folder")
    raise _missing(spec, looks_like_path, assets)


def _refuse_revision(spec: ModelSpec) -> None:
    if spec.revision is not None:
        raise InputError(
            f"{spec.name!r} is a folder and has no revisions", why=f"revision {spec.revision!r} was asked for"
        )


def _missing(spec: ModelSpec, looks_like_path: bool, assets: Path) -> ModelError:
    if looks_like_path:
        return ModelError(f"The folder {spec.name!r} does not exist", kind="missing", fix="Check the path")
    bundled = ", ".join(path.name for path in _models_in(assets))
    here = f"choose a model that is here ({bundled})" if bundled else "give the folder of a model"
    if not is_hub_id(spec.name):
        return ModelError(
            f"{spec.name!r} is no bundled model, no folder and no Hugging Face id",
            kind="missing",
            fix=here.capitalize(),
        )
    return ModelError(
        f"{spec.name!r} is not on this machine", kind="missing", fix=f"Allow its download, or {here}"
    )


def _not_cached(spec: ModelSpec, repository: Path) -> ModelError:
    """The repository is in the cache, the revision is not (or nothing but references is)."""
    if spec.revision is None:
        why = "the cache has only the beginning of it"
    else:
        names = sorted(references(repository))
        why = f"the cache has {', '.join(names)}" if names else "the cache has other commits"
    return ModelError(
        f"{spec.text!r} is not on this machine",
        kind="missing",
        why=why,
        fix="Allow its download, or choose another",
    )


def _best(name: str, commits: list[Snapshot]) -> tuple[FoundModel, ModelError | None]:
    """The first usable snapshot, else the first."""
    looked: list[tuple[FoundModel, ModelError | None]] = []
    for snapshot in commits:
        looked.append(_look(snapshot.folder, name, "cache", snapshot.revision, snapshot.commit))
        if looked[-1][1] is None:
            return looked[-1]
    return looked[0]


def _look(
    folder: Path, name: str, source: Source, revision: str | None = None, commit: str | None = None
) -> tuple[FoundModel, ModelError | None]:
    """Describe the model in a folder; the error says why it cannot be used."""
    error: ModelError | None = None
    config: dict[str, Any] = {}
    parameters, dtype = 0, ""
    try:
        config = _read_config(folder, name)
        check_config(config, name)
        parameters = sizes_of(config).parameters
        checkpoint = read_checkpoint(folder, name)
        parameters, dtype = checkpoint.parameters, checkpoint.dtype
    except ModelError as problem:
        error = problem
        if problem.kind == "corrupt":  # told about a file; a person asked for a model
            error = ModelError(
                f"{name!r} cannot be read", kind="corrupt", why=_clause(problem), fix=problem.fix
            )
    found = FoundModel(
        name=name,
        source=source,
        path=str(folder),
        model_type=text_of(config, "model_type"),
        architecture=next(iter(architectures_of(config)), ""),
        revision=revision,
        commit=commit,
        bytes=sum(path.stat().st_size for path in _files_in(folder)),
        parameters=parameters,
        dtype=dtype,
        usable=error is None,
        reason="" if error is None else str(error),
        kind="" if error is None else error.kind,
    )
    return found, error


def _clause(error: ModelError) -> str:
    return f"{error.what} ({error.why})" if error.why else error.what


def _read_config(folder: Path, name: str) -> dict[str, Any]:
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise ModelError(
            f"{name!r} is not a model", kind="missing", why=f"its folder has no {CONFIG_FILE}",
            fix="Give the folder that save_pretrained wrote, or download it again",
        )  # fmt: skip
    return read_json(path)


def _models_in(folder: Path) -> list[Path]:
    return [path for path in subfolders(folder) if (path / CONFIG_FILE).is_file()]


def _models_at(folder: Path) -> list[Path]:
    """The folder itself, or the models directly in it."""
    return [folder] if (folder / CONFIG_FILE).is_file() or not folder.is_dir() else _models_in(folder)


def _files_in(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_file())
    except OSError:
        return []
