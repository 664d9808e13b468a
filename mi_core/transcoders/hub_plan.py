"""What could be fetched of a transcoder on the hub: sizes first, by use and layer.

Of files of whole layers the headers are read with the list of files, so that the size of the encoders alone
can be told, and they alone be fetched.

A config.yaml may list files of other repositories (Gemma Scope's transcoders are published so). Then the
settings, a few kilobytes, are fetched with the list, because only they say what else there is.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mi_core.errors import InputError
from mi_core.model.hub_cache import folder_of, hub_cache
from mi_core.model.progress import OnPhase
from mi_core.transcoders.formats_names import CONFIG, FileUse, Use
from mi_core.transcoders.hub_encoders import fetch_encoders
from mi_core.transcoders.hub_fetch import fetch, uses_here, wanted
from mi_core.transcoders.hub_inside import look_inside
from mi_core.transcoders.hub_listing import Listing, allow_ranges, ask_listing, keep_listing, known_listing
from mi_core.transcoders.hub_reference import Reference, parse_reference

MAX_LAYERS = 1000
_RANGE = re.compile(r"(\d{1,4})(?:\s*-\s*(\d{1,4}))?")


@dataclass(frozen=True, slots=True)
class Part:
    """Files of one repository.

    Attributes:
        listing: what the repository holds.
        uses: the files that belong to the transcoder.
    """

    listing: Listing
    uses: tuple[FileUse, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """What there is of a transcoder, here and on the hub.

    Attributes:
        reference: what was asked for.
        parts: its own repository first, then those that its config lists.
    """

    reference: Reference
    parts: tuple[Part, ...]

    @property
    def listing(self) -> Listing:
        """Of its own repository."""
        return self.parts[0].listing

    @property
    def uses(self) -> tuple[FileUse, ...]:
        """All files."""
        return tuple(use for part in self.parts for use in part.uses)

    @property
    def files_here(self) -> int:
        """How many of them are on this machine."""
        return sum(one.here for one in self.uses)

    @property
    def entire(self) -> dict[str, str]:
        """Files of whole layers that are not here and whose encoders cannot be fetched apart -> why."""
        return {
            one.file: part.listing.entire[one.file]
            for part in self.parts
            for one in part.uses
            if one.use == "both" and not one.here and one.file in part.listing.entire
        }

    @property
    def rows_on_hub(self) -> bool:
        """Whether there is something that could be read row by row from the hub."""
        apart = {(one.file, one.layer) for one in self.uses if one.part}
        return any(
            not one.here and (one.use in ("decoder", "examples") or (one.file, one.layer) in apart)
            for one in self.uses
            if not one.part
        )

    def bytes(self, kind: Use, layers: Sequence[int] | None = None, *, missing: bool = False) -> int:
        """Size of the files of a use, in bytes.

        Args:
            kind: the use.
            layers: only of these layers; None = all.
            missing: only what is not here.
        """
        return sum(
            one.bytes
            for one in self.uses
            if one.use == kind
            and (layers is None or one.layer is None or one.layer in layers)
            and not (missing and one.here)
        )


def ask_plan(reference: Reference, *, cache: Path | None = None, endpoint: str | None = None) -> Plan:
    """Ask the hub what there is; of its files only headers, and a small config.yaml that lists others.

    Raises:
        ModelError: kind "missing", "gated" or "offline".
        TranscoderError: the config.yaml is damaged.
    """
    listing = ask_listing(reference, endpoint=endpoint)
    keep_listing(listing)
    own = Part(listing, uses_here(listing, reference.path, cache))
    if not _has_weights(own) and _config(reference) in listing.files:
        fetch(listing, [_config(reference)], cache=cache, endpoint=endpoint)
        for other in _listed(reference, listing, cache):
            keep_listing(ask_listing(other, endpoint=endpoint))
    plan = known_plan(reference, cache=cache) or Plan(reference, (own,))
    for part in plan.parts:
        files = [one.file for one in part.uses if one.use == "both" and not one.here]
        if files:
            keep_listing(look_inside(part.listing, files, endpoint=endpoint))
    return known_plan(reference, cache=cache) or plan


def known_plan(reference: Reference, *, cache: Path | None = None) -> Plan | None:
    """The same from what was asked before; None where nothing was. No network."""
    listing = known_listing(reference.repo)
    if listing is None or not listing.answers(reference.revision):
        return None
    own = Part(listing, uses_here(listing, reference.path, cache))
    if _has_weights(own):
        return Plan(reference, (own,))
    others = []
    for other, files in _listed(reference, listing, cache).items():
        known = known_listing(other.repo)
        if known is not None and known.answers(other.revision):
            others.append(Part(known, _only(known, files, cache)))
    return Plan(reference, (own, *others))


def _has_weights(part: Part) -> bool:
    return any(one.use in ("encoder", "both") for one in part.uses)


def _config(reference: Reference) -> str:
    return f"{reference.path}/{CONFIG}" if reference.path else CONFIG


def _listed(reference: Reference, listing: Listing, cache: Path | None) -> dict[Reference, dict[str, int]]:
    """Files of other repositories that the config.yaml lists: repository -> (file -> layer)."""
    from mi_core.transcoders.formats_config import read_config
    from mi_core.transcoders.hub_folder import HubFolder

    snapshot = folder_of(cache or hub_cache(), listing.repo) / "snapshots" / listing.commit
    if not (snapshot / _config(reference)).is_file():
        return {}
    found: dict[Reference, dict[str, int]] = {}
    for layer, uri in enumerate(read_config(HubFolder(reference, listing, cache)).files):
        if uri.startswith("hf://"):
            other = parse_reference(uri)
            found.setdefault(Reference(other.repo, "", other.revision), {})[other.path] = layer
    return found


def _only(listing: Listing, files: dict[str, int], cache: Path | None) -> tuple[FileUse, ...]:
    return tuple(
        replace(one, use="encoder" if one.part else "both", layer=files[one.file])
        for one in uses_here(listing, "", cache)
        if one.file in files
    )


def fetch_plan(
    plan: Plan,
    kinds: Sequence[Use],
    layers: Sequence[int] | None = None,
    *,
    on_phase: OnPhase | None = None,
    cache: Path | None = None,
    endpoint: str | None = None,
) -> None:
    """Fetch what is missing of some uses and layers.

    Raises:
        TranscoderError: kind "too_big".
        ModelError: kind "gated", "missing" or "offline".
    """
    for part in plan.parts:
        asked = wanted(part.uses, kinds, layers)
        files = [one.file for one in asked if not one.part]
        encoders = [one.file for one in asked if one.part and one.file not in files]
        if files:
            fetch(part.listing, files, on_phase=on_phase, cache=cache, endpoint=endpoint)
        if encoders:
            fetch_encoders(part.listing, encoders, on_phase=on_phase, endpoint=endpoint)


def allow_rows(plan: Plan, allowed: bool = True) -> None:
    """Allow or forbid reading single decoder rows and examples from the hub."""
    for part in plan.parts:
        allow_ranges(part.listing, allowed)


def parse_layers(text: str) -> tuple[int, ...] | None:
    """Layers from a text: `0-3, 12`; an empty text means all (None).

    Raises:
        InputError: anything else.
    """
    if not text.strip():
        return None
    found: set[int] = set()
    for piece in text.split(","):
        match = _RANGE.fullmatch(piece.strip())
        if match is None:
            raise InputError(
                f"{piece.strip()[:40]!r} is no layer", fix="Write numbers and ranges, as in 0-3, 12"
            )
        first, last = int(match[1]), int(match[2] or match[1])
        if not first <= last < MAX_LAYERS:
            raise InputError(
                f"{piece.strip()[:40]!r} is no range of layers", fix="Write the smaller one first"
            )
        found |= set(range(first, last + 1))
    return tuple(sorted(found))
