"""The Hugging Face hub, only when a user asks: how large a model is, and its download into the cache.

Only safetensors, JSON and tokenizer files are fetched; no pickles and no code. The branch is moved last, so a
download that was stopped never hides the version that was complete.
"""

import fnmatch
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mi_core.errors import InputError, ModelError
from mi_core.model.background import watch
from mi_core.model.checkpoint import INDEX_FILE, SINGLE_FILE
from mi_core.model.hub_cache import hub_cache, is_hub_id
from mi_core.model.progress import OnPhase, format_bytes, silent
from mi_core.model.spec import check_revision

CONFIG_FILE = "config.json"
TIMEOUT_SECONDS = 10.0

# Small files that transformers reads beside the weights. No wildcard: a repository can hold any number of
# JSON.
_SIDE_FILES = (
    CONFIG_FILE, "generation_config.json", "tokenizer.json", "tokenizer_config.json", "added_tokens.json",
    "special_tokens_map.json", "vocab.json", "merges.txt", "vocab.txt", "tokenizer.model", "spiece.model",
)  # fmt: skip
_SHARDS = "model-*-of-*.safetensors"


@dataclass(frozen=True, slots=True)
class HubSize:
    """What a download would fetch.

    Attributes:
        name: hub id.
        commit: the commit that the revision names now.
        files: (file name, bytes).
        gated: whether its owner must grant access first.
    """

    name: str
    commit: str
    files: tuple[tuple[str, int], ...]
    gated: bool

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return sum(size for _, size in self.files)


def hub_size(name: str, revision: str | None = None, *, endpoint: str | None = None) -> HubSize:
    """Ask the hub what a model's download would fetch.

    Args:
        name: hub id.
        revision: branch, tag or commit; None = the main branch.
        endpoint: address of the hub; None = as the environment says (HF_ENDPOINT).

    Raises:
        InputError: `name` is no hub id.
        ModelError: kind "missing", "gated", "offline", or "pickle_only" (it has no safetensors).
    """
    _check_id(name, revision)
    from huggingface_hub import HfApi

    with hub_errors(name, revision, endpoint):
        info = HfApi(endpoint=endpoint).model_info(
            name, revision=revision, files_metadata=True, timeout=TIMEOUT_SECONDS
        )
    sizes = {sibling.rfilename: int(sibling.size or 0) for sibling in info.siblings or ()}
    return HubSize(name, str(info.sha), _wanted(name, sizes), bool(info.gated))


def _check_id(name: str, revision: str | None) -> None:
    if not is_hub_id(name):
        raise InputError(f"{name[:80]!r} is no Hugging Face id", fix="Give it as owner/name")
    if revision is not None:
        check_revision(revision)


def _wanted(name: str, sizes: dict[str, int]) -> tuple[tuple[str, int], ...]:
    """The files to fetch, config last: a folder without it is not taken for a model."""
    if CONFIG_FILE not in sizes:
        raise ModelError(
            f"{name!r} is not a transformers model",
            kind="unsupported",
            why=f"its repository has no {CONFIG_FILE}",
        )
    weights = [SINGLE_FILE] if SINGLE_FILE in sizes else []
    if not weights and INDEX_FILE in sizes:
        weights = [INDEX_FILE, *fnmatch.filter(sorted(sizes), _SHARDS)]
    if not weights:
        raise ModelError(
            f"{name!r} has no safetensors weights", kind="pickle_only",
            why="its repository has only other formats, and pickles can run code when they are read",
            fix="Choose a revision or a copy with safetensors",
        )  # fmt: skip
    side = [file for file in _SIDE_FILES if file in sizes and file != CONFIG_FILE]
    return tuple((file, sizes[file]) for file in [*side, *weights, CONFIG_FILE])


def download(
    name: str,
    revision: str | None = None,
    *,
    on_phase: OnPhase | None = None,
    cache: Path | None = None,
    endpoint: str | None = None,
) -> Path:
    """Download a model into the Hugging Face cache.

    Args:
        name: hub id.
        revision: branch, tag or commit; None = the main branch.
        on_phase: called with ("find", fraction, text); may raise Cancelled, which stops the download (within
            a file, or after it where the hub's xet transfer runs). What is complete stays in the cache.
        cache: the Hugging Face cache; None = where the environment says.
        endpoint: address of the hub; None = as the environment says.

    Returns:
        The folder of the snapshot.

    Raises:
        InputError: `name` is no hub id.
        ModelError: as `hub_size`; also "too_big", when the disk has no room.
    """
    report = on_phase or silent
    report("find", 0.0, f"asking the hub for {name}")
    size, place = hub_size(name, revision, endpoint=endpoint), cache or hub_cache()
    place.mkdir(parents=True, exist_ok=True)
    _check_disk(size, place)
    before = 0
    folder = place
    for file, length in size.files:
        # The branch is named only with the last file: then its reference moves to a complete snapshot.
        commit = (revision or "main") if file == CONFIG_FILE else size.commit
        folder = _fetch(size, file, commit, before, place, endpoint, report)
        before += length
    if folder.name != size.commit:
        raise ModelError(
            f"{name!r} changed while it was downloaded", kind="corrupt", fix="Start the download again"
        )
    report("find", 1.0, f"downloaded {format_bytes(size.bytes)}")
    return folder


def _check_disk(size: HubSize, place: Path) -> None:
    free = shutil.disk_usage(place).free
    if size.bytes > free:
        raise ModelError(
            f"{size.name!r} does not fit on the disk", kind="too_big",
            why=f"the download has {format_bytes(size.bytes)}, {format_bytes(free)} are free at {place}",
            fix="Free some space, or set HF_HOME to another disk",
        )  # fmt: skip


def _fetch(
    size: HubSize, file: str, revision: str, before: int, cache: Path, endpoint: str | None, report: OnPhase
) -> Path:
    """Fetch one file while telling the progress of all; returns its snapshot folder."""
    from huggingface_hub import hf_hub_download

    total = max(1, size.bytes)

    def work(on_bytes: Callable[[int], None]) -> str:
        with hub_errors(size.name, revision, endpoint):
            return hf_hub_download(
                size.name,
                file,
                revision=revision,
                cache_dir=cache,
                endpoint=endpoint,
                tqdm_class=counting_bar(on_bytes),
            )

    def tell(done: int) -> None:
        share = min(1.0, (before + done) / total)
        report(
            "find", share, f"downloading {file}, {format_bytes(before + done)} of {format_bytes(size.bytes)}"
        )

    return Path(watch(work, tell)).parent


def counting_bar(on_bytes: Callable[[int], None]) -> type:
    """A progress bar that draws nothing and counts; the hub's library takes one by class."""
    from tqdm.auto import tqdm

    furthest = 0

    class CountingBar(tqdm):
        def __init__(self, *args: Any, **options: Any) -> None:
            options.pop("name", None)
            super().__init__(*args, **{**options, "disable": True})
            self.counted = 0

        def update(self, n: float | None = 1) -> None:
            # Two bars count the same file where xet rebuilds it from pieces: the furthest one tells.
            nonlocal furthest
            self.counted += int(n or 0)
            news, furthest = max(0, self.counted - furthest), max(furthest, self.counted)
            on_bytes(news)

    return CountingBar


@contextmanager
def hub_errors(name: str, revision: str | None, endpoint: str | None) -> Iterator[None]:
    """Turn the errors of the hub's library into `ModelError`s: "gated", "missing" or "offline"."""
    from huggingface_hub import errors

    try:
        import httpx2 as http
    except ImportError:  # before huggingface_hub 2
        import httpx as http  # type: ignore[no-redef]  # only one of them is installed

    what = f"{name}@{revision}" if revision else name
    try:
        yield
    except errors.GatedRepoError as error:
        raise ModelError(
            f"{name!r} is gated", kind="gated", why="its owner must grant access first",
            fix=f"Ask for access on huggingface.co/{name}, then run `hf auth login`",
        ) from error  # fmt: skip
    except errors.RepositoryNotFoundError as error:
        raise ModelError(
            f"{name!r} is not on the hub", kind="missing", why="it does not exist, or it is private",
            fix="Check the spelling; for a private model run `hf auth login`",
        ) from error  # fmt: skip
    except errors.RevisionNotFoundError as error:
        raise ModelError(
            f"{what!r} is not on the hub",
            kind="missing",
            why="the model has no such revision",
            fix="Leave it out",
        ) from error
    except errors.OfflineModeIsEnabled as error:
        raise ModelError(
            f"{name!r} cannot be downloaded", kind="offline", why="HF_HUB_OFFLINE is set",
            fix="Unset it, or choose a model that is here",
        ) from error  # fmt: skip
    except (errors.LocalEntryNotFoundError, http.HTTPError, ConnectionError, TimeoutError) as error:
        raise ModelError(
            f"{name!r} cannot be downloaded", kind="offline", why=_cause(error, endpoint),
            fix="Check the connection, or choose a model that is here",
        ) from error  # fmt: skip


def _cause(error: BaseException, endpoint: str | None) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is not None:
        return f"the hub answered with status {status}"
    address = endpoint or os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    return f"{address.partition('//')[2] or address} cannot be reached"
