"""Transcoders in the Hugging Face cache, told from file names: no network, no torch, nothing is opened."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from mi_core.model.hub_cache import hub_cache, name_of, snapshots, subfolders
from mi_core.transcoders.formats_names import looks_like_transcoder

MAX_DEPTH = 3
MAX_FILES = 5000


def cached_transcoders(cache: Path | None = None) -> tuple[str, ...]:
    """Addresses of repositories in the cache that look like transcoders, by name."""
    found = []
    for repository in subfolders(cache or hub_cache()):
        name = name_of(repository)
        if name and any(looks_like_transcoder(names_in(one.folder)) for one in snapshots(repository)):
            found.append(name)
    return tuple(sorted(found))


def stamp(folder: Path) -> tuple[int, int]:
    """A number of files and their newest change: it differs when a folder has changed."""
    try:
        times = [path.stat().st_mtime_ns for path in islice(_files(folder, 0), MAX_FILES)]
    except OSError:
        return 0, 0
    return len(times), max(times, default=0)


def names_in(folder: Path) -> tuple[str, ...]:
    """Paths of the files below a folder, to a small depth."""
    return tuple(path.relative_to(folder).as_posix() for path in islice(_files(folder, 0), MAX_FILES))


def _files(folder: Path, depth: int) -> Iterator[Path]:
    try:
        inside = sorted(folder.iterdir())[:MAX_FILES]
    except OSError:
        return
    for path in inside:
        if path.is_dir():
            if depth < MAX_DEPTH and not path.name.startswith("."):
                yield from _files(path, depth + 1)
        elif path.exists():
            yield path
