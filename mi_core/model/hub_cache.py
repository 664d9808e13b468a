"""The layout of the Hugging Face cache: `models--owner--name/{refs,snapshots}`. Reads only.

References are files that hold a commit, snapshots are folders named by commit whose files are links to blobs.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mi_core.model.spec import check_revision

_HUB_ID = re.compile(r"[A-Za-z0-9_][\w.\-]{0,95}(/[A-Za-z0-9_][\w.\-]{0,95})?", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{7,40}")


def hub_cache() -> Path:
    """The Hugging Face cache, as the hub's own tools choose it from the environment."""
    environment = os.environ.get
    place = environment("HF_HUB_CACHE") or environment("HUGGINGFACE_HUB_CACHE")
    if not place:
        home = environment("HF_HOME") or os.path.join(
            environment("XDG_CACHE_HOME") or "~/.cache", "huggingface"
        )
        place = os.path.join(home, "hub")
    return Path(os.path.expandvars(place)).expanduser()


def is_hub_id(name: str) -> bool:
    """Whether a name could be a repository on the hub: `name` or `owner/name`, and no path in disguise."""
    return bool(_HUB_ID.fullmatch(name)) and ".." not in name and "--" not in name


def name_of(repository: Path) -> str | None:
    """The hub id of a folder of the cache; None for data sets, and for what no hub id looks like."""
    kind, _, rest = repository.name.partition("--")
    name = rest.replace("--", "/", 1)
    return name if kind == "models" and is_hub_id(name) else None


def folder_of(cache: Path, name: str) -> Path:
    """The folder of a hub id in the cache, whether it exists or not."""
    return cache / f"models--{name.replace('/', '--')}"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One commit of a repository in the cache."""

    folder: Path
    commit: str
    revision: str | None


def snapshots(repository: Path, revision: str | None = None) -> list[Snapshot]:
    """Snapshots to try, best first: the revision asked for; else main, then the newest."""
    refs = references(repository)
    folders = sorted(
        subfolders(repository / "snapshots"), key=lambda path: path.stat().st_mtime, reverse=True
    )
    if revision is not None:
        check_revision(revision)
        commit = refs.get(revision, revision)
        exact = _COMMIT.fullmatch(commit)
        matching = [path for path in folders if exact and path.name.startswith(commit)]
        return [Snapshot(path, path.name, revision) for path in matching if len(matching) == 1]
    names = {commit: name for name, commit in sorted(refs.items(), reverse=True)}
    main = refs.get("main")
    if main is not None:
        names[main] = "main"
    folders.sort(key=lambda path: path.name != main)
    return [Snapshot(path, path.name, names.get(path.name)) for path in folders]


def references(repository: Path) -> dict[str, str]:
    """Branches and tags that the cache knows, with their commits."""
    folder = repository / "refs"
    return {path.relative_to(folder).as_posix(): _text(path) for path in _files_below(folder)}


def subfolders(folder: Path) -> list[Path]:
    """Sorted subfolders; none where a folder is missing or may not be read."""
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir())
    except OSError:
        return []


def _files_below(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def _text(path: Path) -> str:
    """A reference: the commit it names. Cut: a commit has 40 characters, and a file can have any number."""
    with path.open(encoding="utf-8", errors="replace") as file:
        return file.read(100).strip()
