"""What a repository holds, with sizes, before anything of it is fetched, and what a user allowed to be read.

A listing is asked for once and then kept in the user's data folder, so that a transcoder of which only a part
is here can be opened again without a network. It names one commit: files of two versions never mix.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from platformdirs import user_data_path

from mi_core.errors import TranscoderError
from mi_core.model.hub import TIMEOUT_SECONDS, hub_errors
from mi_core.transcoders.hub_reference import Reference, is_safe
from mi_core.transcoders.sources import Span

SCHEMA = "lantern/hub-listing"
_MAX_FILES = 100_000
_MAX_BYTES = 20_000_000


@dataclass(frozen=True, slots=True)
class Listing:
    """The files of a repository at one commit.

    Attributes:
        repo: `owner/name`.
        commit: which version.
        files: path of each file -> its bytes.
        gated: whether its owner must grant access first.
        by_range: whether the user allowed to read single rows from the hub.
        revision: branch, tag or commit that was asked for; None = main.
        encoders: path of each file of whole layers whose header was read -> all of it but the decoder.
        entire: path of each such file that can only be fetched whole -> why, a clause.
    """

    repo: str
    commit: str
    files: dict[str, int]
    gated: bool = False
    by_range: bool = False
    revision: str | None = None
    encoders: Mapping[str, tuple[Span, ...]] = field(default_factory=dict)
    entire: Mapping[str, str] = field(default_factory=dict)

    def answers(self, revision: str | None) -> bool:
        """Whether it is about the version asked for (None = whatever is here)."""
        return revision is None or revision == self.revision or self.commit.startswith(revision)

    def encoder_bytes(self, file: str) -> int:
        """Size of what is not the decoder, of a file of whole layers."""
        return sum(length for _, length in self.encoders[file])


def ask_listing(reference: Reference, *, endpoint: str | None = None) -> Listing:
    """Ask the hub what a repository holds; nothing is fetched but this list.

    Raises:
        ModelError: kind "missing", "gated" or "offline".
    """
    from huggingface_hub import HfApi

    with hub_errors(reference.repo, reference.revision, endpoint):
        info = HfApi(endpoint=endpoint).model_info(
            reference.repo, revision=reference.revision, files_metadata=True, timeout=TIMEOUT_SECONDS
        )
    files = {one.rfilename: int(one.size or 0) for one in info.siblings or () if is_safe(one.rfilename)}
    known = known_listing(reference.repo)
    by_range = known is not None and known.by_range
    listing = Listing(reference.repo, str(info.sha), files, bool(info.gated), by_range, reference.revision)
    same = known is not None and known.commit == listing.commit
    return replace(listing, encoders=known.encoders) if known is not None and same else listing


def listing_path(repo: str) -> Path:
    """Where the listing of a repository is kept."""
    return user_data_path("lantern", appauthor=False) / "hub" / f"{repo.replace('/', '--')}.json"


def keep_listing(listing: Listing) -> None:
    """Keep a listing for the next time.

    Raises:
        TranscoderError: kind "missing", when the user's data folder cannot be written.
    """
    path = listing_path(listing.repo)
    values = {
        "schema": SCHEMA, "version": 1, "repo": listing.repo, "commit": listing.commit,
        "gated": listing.gated, "by_range": listing.by_range, "revision": listing.revision,
        "files": listing.files, "encoders": dict(listing.encoders), "entire": dict(listing.entire),
    }  # fmt: skip
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}.part")
        part.write_text(json.dumps(values), encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise TranscoderError(
            f"The list of {listing.repo} cannot be kept", kind="missing",
            why=f"{path.parent} cannot be written ({error.strerror})",
        ) from error  # fmt: skip


def known_listing(repo: str) -> Listing | None:
    """The listing that was kept; None where there is none that can be read."""
    path = listing_path(repo)
    try:
        if path.stat().st_size > _MAX_BYTES:
            return None
        values = json.loads(path.read_text(encoding="utf-8"))
        files = {str(name): int(size) for name, size in values["files"].items() if is_safe(str(name))}
        whole = values["schema"] == SCHEMA and values["repo"] == repo and len(files) <= _MAX_FILES
        commit, gated, by_range = str(values["commit"]), values["gated"] is True, values["by_range"] is True
        revision = values.get("revision")
        encoders = _spans(values.get("encoders", {}), files)
        entire = {str(name): str(why) for name, why in values.get("entire", {}).items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    whole = whole and commit.isalnum() and isinstance(revision, str | None)
    if not whole:
        return None
    return Listing(repo, commit, files, gated, by_range, revision, encoders, entire)


def _spans(values: dict[str, Any], files: Mapping[str, int]) -> dict[str, tuple[Span, ...]]:
    """What was kept of files' insides; what does not fit into its file is left out."""
    found = {}
    for name, spans in values.items():
        parts = tuple((int(first), int(length)) for first, length in spans)
        size = files.get(name, 0)
        if parts and all(first >= 0 and length > 0 and first + length <= size for first, length in parts):
            found[name] = parts
    return found


def allow_ranges(listing: Listing, allowed: bool = True) -> Listing:
    """Allow (or forbid) reading single rows of a repository from the hub, now and later."""
    changed = replace(listing, by_range=allowed)
    keep_listing(changed)
    return changed
