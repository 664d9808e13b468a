"""Encoders of files that hold whole layers: all of such a file but its decoder, fetched when a user asks.

`layer_3.safetensors` of a PLT holds W_enc, b_enc, b_dec, thresholds, and a decoder of the same size as W_enc.
What is not the decoder (`Listing.encoders`, found by `hub_inside`) is fetched by HTTP range in pieces, and
each piece is a file in the user's cache folder. Unlike rows they are never let go of, because they were asked
for; when the whole file comes into the Hugging Face cache they are removed. No torch.
"""

import hashlib
import os
import shutil
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from platformdirs import user_cache_path

from mi_core.errors import TranscoderError
from mi_core.model.background import watch
from mi_core.model.progress import OnPhase, format_bytes, silent
from mi_core.transcoders.hub_listing import Listing
from mi_core.transcoders.hub_range import RemoteFile
from mi_core.transcoders.sources import ByteFile, Span, check_spans, unreadable

PIECE_BYTES = 64 * 2**20
"""One request; what a stopped download loses at most."""


def encoders_folder() -> Path:
    """Where the pieces are."""
    return user_cache_path("lantern", appauthor=False) / "hub-encoders"


def encoder_pieces(listing: Listing, file: str) -> dict[Span, Path]:
    """The pieces of what is not the decoder, and where each of them is or will be.

    Args:
        listing: what the repository holds.
        file: a file of whole layers whose inside is known, by its path in the repository.
    """
    key = hashlib.sha256(file.encode()).hexdigest()[:24]
    folder = encoders_folder() / listing.repo.replace("/", "--") / listing.commit / key
    pieces = [piece for span in listing.encoders[file] for piece in _cut(span)]
    return {(first, length): folder / f"{first}-{length}" for first, length in pieces}


def _cut(span: Span) -> list[Span]:
    first, length = span
    return [(first + at, min(PIECE_BYTES, length - at)) for at in range(0, length, PIECE_BYTES)]


def encoder_is_here(listing: Listing, file: str) -> bool:
    """Whether all pieces are on this machine."""
    if file not in listing.encoders:
        return False
    return not _missing(listing, file)


def _is_whole(path: Path, length: int) -> bool:
    try:
        return path.stat().st_size == length
    except OSError:
        return False


def forget_encoder(listing: Listing, file: str) -> None:
    """Remove the pieces of a file that is here as a whole; best effort, they only take room."""
    if file in listing.encoders:
        folder = next(iter(encoder_pieces(listing, file).values())).parent
        shutil.rmtree(folder, ignore_errors=True)


def check_disk(repo: str, total: int, place: Path) -> None:
    """Refuse a download that the disk has no room for.

    Raises:
        TranscoderError: kind "too_big".
    """
    free = shutil.disk_usage(place).free
    if total > free:
        raise TranscoderError(
            f"{repo} does not fit on the disk", kind="too_big",
            why=f"{format_bytes(total)} are to be fetched, {format_bytes(free)} are free at {place}",
            fix="Choose fewer layers, or set HF_HOME to another disk",
        )  # fmt: skip


def fetch_encoders(
    listing: Listing, files: Sequence[str], *, on_phase: OnPhase | None = None, endpoint: str | None = None
) -> None:
    """Fetch what is not the decoder of files of whole layers; pieces that are here stay.

    Args:
        listing: what the repository holds, with the insides of these files.
        files: which, by their path in the repository.
        on_phase: called with ("find", fraction, text); may raise Cancelled; pieces that are whole stay.
        endpoint: address of the hub; None = as the environment says.

    Raises:
        TranscoderError: kind "too_big"; "offline" where the server knows no ranges; "corrupt".
        ModelError: kind "gated", "missing" or "offline".
    """
    report = on_phase or silent
    missing = {file: _missing(listing, file) for file in files}
    total = sum(length for pieces in missing.values() for _, length in pieces)
    _prepare(listing.repo, total, [path.parent for pieces in missing.values() for path in pieces.values()])
    before = 0
    for file, pieces in missing.items():
        remote = RemoteFile(listing.repo, listing.commit, file, listing.files[file], endpoint=endpoint)
        for span, path in pieces.items():
            _fetch_piece(remote, span, path, (before, total), report)
            before += span[1]
    report("find", 1.0, f"fetched {format_bytes(total)}")


def _missing(listing: Listing, file: str) -> dict[Span, Path]:
    pieces = encoder_pieces(listing, file)
    return {span: path for span, path in pieces.items() if not _is_whole(path, span[1])}


def _prepare(repo: str, total: int, folders: Sequence[Path]) -> None:
    root = encoders_folder()
    try:
        for folder in (root, *folders):
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unreadable(str(root), error) from error
    check_disk(repo, total, root)


def _fetch_piece(remote: RemoteFile, span: Span, path: Path, done: tuple[int, int], report: OnPhase) -> None:
    """One piece, under its own name only when it is whole."""
    before, total = done
    part = path.with_suffix(f".{os.getpid()}.part")

    def work(on_bytes: Callable[[int], None]) -> None:
        try:
            with part.open("wb") as out:
                for data in remote.stream(span):
                    out.write(data)
                    on_bytes(len(data))
            part.replace(path)
        except OSError as error:
            raise TranscoderError(
                f"The encoder of {remote.path} cannot be kept", kind="too_big",
                why=f"{path.parent} cannot be written ({error.strerror})",
            ) from error  # fmt: skip
        finally:
            part.unlink(missing_ok=True)

    def tell(count: int) -> None:
        share = min(1.0, (before + count) / max(1, total))
        here = f"{format_bytes(before + count)} of {format_bytes(total)}"
        report("find", share, f"fetching the encoder of {remote.path}, {here}")

    watch(work, tell)


class PartFile:
    """A file of which some pieces are here, and the rest perhaps on the hub.

    Args:
        name: what to call it in an error.
        size: bytes of the whole file.
        pieces: those that are here, by their place in the file.
        rest: the whole file on the hub; None = it may not be asked.
    """

    def __init__(self, name: str, size: int, pieces: Mapping[Span, ByteFile], rest: ByteFile | None) -> None:
        self.name, self.size, self.rest = name, size, rest
        self._spans = sorted(pieces)
        self._pieces = [pieces[span] for span in self._spans]
        self._starts = [first for first, _ in self._spans]
        self.read_bytes = 0

    def read(self, spans: Sequence[Span]) -> list[bytearray]:
        """The bytes of each span: from the pieces, else from the hub.

        Raises:
            TranscoderError: kind "no_decoder", where the hub may not be asked; else as the pieces or the hub.
        """
        check_spans(self, spans)
        ways = [self._way(span) for span in spans]
        far = [span for span, way in zip(spans, ways, strict=True) if way is None]
        if far and self.rest is None:
            raise TranscoderError(
                f"The decoder of {self.name} is not here", kind="no_decoder",
                why="only its encoder was fetched",
                fix="Fetch the whole layer, or allow reading single rows from the hub",
            )  # fmt: skip
        came = iter(self.rest.read(far) if far and self.rest is not None else [])
        found = [next(came) if way is None else _joined(way) for way in ways]
        self.read_bytes += sum(length for _, length in spans)
        return found

    def _way(self, span: Span) -> list[tuple[ByteFile, Span]] | None:
        """Pieces and the stretches of them that make up a span; None where a part of it is not here."""
        way, (at, left) = [], span
        while left:
            index = bisect_right(self._starts, at) - 1
            first, length = self._spans[index] if index >= 0 else (0, 0)
            count = min(left, first + length - at)
            if count <= 0:
                return None
            way.append((self._pieces[index], (at - first, count)))
            at, left = at + count, left - count
        return way


def _joined(way: Sequence[tuple[ByteFile, Span]]) -> bytearray:
    parts = [file.read([span])[0] for file, span in way]
    return parts[0] if len(parts) == 1 else bytearray().join(parts)
