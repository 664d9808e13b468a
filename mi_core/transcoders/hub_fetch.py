"""Fetching files of a repository into the Hugging Face cache, when a user asks: some, never all of them.

What may be fetched is what a transcoder is made of (safetensors, npz, its settings, examples of features); no
pickles and no code. Sizes come from the listing, and the disk is looked at first.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from mi_core.errors import InputError
from mi_core.model.background import watch
from mi_core.model.hub import counting_bar, hub_errors
from mi_core.model.hub_cache import folder_of, hub_cache
from mi_core.model.progress import OnPhase, format_bytes, silent
from mi_core.transcoders.formats_names import FileUse, Use, file_uses
from mi_core.transcoders.hub_encoders import check_disk, encoder_is_here, forget_encoder
from mi_core.transcoders.hub_listing import Listing, keep_listing


def uses_here(listing: Listing, path: str = "", cache: Path | None = None) -> tuple[FileUse, ...]:
    """The files of a folder of a repository with what they are for, and which are here.

    A file of whole layers whose inside is known comes twice: as a whole, and as what is not its decoder.

    Args:
        listing: what the repository holds.
        path: the folder; "" = all of it.
        cache: the Hugging Face cache.
    """
    snapshot = folder_of(cache or hub_cache(), listing.repo) / "snapshots" / listing.commit
    files = {name: size for name, size in listing.files.items() if not path or name.startswith(f"{path}/")}
    uses = file_uses(files, {name: (snapshot / name).is_file() for name in files})
    apart = tuple(
        FileUse(
            one.file, listing.encoder_bytes(one.file), "encoder", one.layer,
            one.here or encoder_is_here(listing, one.file), part=True,
        )
        for one in uses if one.file in listing.encoders
    )  # fmt: skip
    return (*uses, *apart)


def wanted(
    uses: Sequence[FileUse], kinds: Sequence[Use], layers: Sequence[int] | None = None
) -> tuple[FileUse, ...]:
    """Files to fetch: those of the kinds and layers asked for that are not here, and the settings."""
    asked = [one for one in uses if layers is None or one.layer is None or one.layer in layers]
    chosen = [one for one in asked if one.use in kinds]
    settings = [one for one in asked if one.use == "settings" and one.bytes < 10**6]
    return tuple(one for one in [*settings, *chosen] if not one.here)


def fetch(
    listing: Listing,
    files: Sequence[str],
    *,
    on_phase: OnPhase | None = None,
    cache: Path | None = None,
    endpoint: str | None = None,
) -> Path:
    """Fetch files of a repository.

    Args:
        listing: what the repository holds; it is kept, so that what is here can be opened offline.
        files: which, by their path in the repository.
        on_phase: called with ("find", fraction, text); may raise Cancelled; what is complete stays.
        cache: the Hugging Face cache; None = where the environment says.
        endpoint: address of the hub; None = as the environment says.

    Returns:
        The folder of the snapshot.

    Raises:
        InputError: a file that the repository does not have, or that no transcoder is made of.
        TranscoderError: kind "too_big": the disk has no room.
        ModelError: kind "gated", "missing" or "offline".
    """
    report, place = on_phase or silent, cache or hub_cache()
    uses = {one.file: one for one in file_uses(listing.files)}
    for file in files:
        if file not in uses or uses[file].use == "other":
            raise InputError(f"{file[:80]!r} is no file of a transcoder in {listing.repo}")
    total = sum(uses[file].bytes for file in files)
    place.mkdir(parents=True, exist_ok=True)
    check_disk(listing.repo, total, place)
    keep_listing(listing)
    before = 0
    for file in files:
        _fetch_one(listing, file, (before, total), place, endpoint, report)
        forget_encoder(listing, file)
        before += uses[file].bytes
    report("find", 1.0, f"fetched {format_bytes(total)}")
    return folder_of(place, listing.repo) / "snapshots" / listing.commit


def _fetch_one(
    listing: Listing, file: str, done: tuple[int, int], cache: Path, endpoint: str | None, report: OnPhase
) -> None:
    from huggingface_hub import hf_hub_download

    before, total = done

    def work(on_bytes: Callable[[int], None]) -> str:
        with hub_errors(listing.repo, listing.commit, endpoint):
            return hf_hub_download(
                listing.repo, file, revision=listing.commit, cache_dir=cache, endpoint=endpoint,
                tqdm_class=counting_bar(on_bytes),
            )  # fmt: skip

    def tell(count: int) -> None:
        share = min(1.0, (before + count) / max(1, total))
        report("find", share, f"fetching {file}, {format_bytes(before + count)} of {format_bytes(total)}")

    watch(work, tell)
