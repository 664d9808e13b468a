"""Stretches of a file on the hub, by HTTP range, kept on disk.

One feature of Gemma's CLT is 117 KiB of a repository of 26.5 GiB. A stretch is asked for once; what came is
kept in the user's cache folder under repository, commit and file, so the same feature costs nothing the next
time. A server that does not know ranges would send the whole file: its answer is refused at its first line.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from platformdirs import user_cache_path

from mi_core.errors import ModelError, TranscoderError
from mi_core.model.hub import TIMEOUT_SECONDS, hub_errors
from mi_core.model.progress import format_bytes
from mi_core.transcoders.sources import Span, check_spans, cut_off, read_merged

MAX_BYTES = 32 * 2**20
"""What one reading may fetch (the index of a large transcoder's examples has some megabytes)."""
MAX_REQUESTS = 32
"""Rows of so many features of a layer are a look; more is a download, which is asked for as such."""
KEPT_BYTES = 4 * 2**30
"""What all stretches on disk may hold together; those used longest ago leave first."""
_TOGETHER = 8


def ranges_folder() -> Path:
    """Where stretches are kept."""
    return user_cache_path("lantern", appauthor=False) / "hub-ranges"


class RemoteFile:
    """A file on the hub.

    Args:
        repo: `owner/name`.
        commit: which version.
        path: the file in the repository.
        size: its bytes, as the listing says.
        name: what to call it in an error.
        endpoint: address of the hub; None = as the environment says.
        folder: where stretches are kept; None = the user's cache folder.
    """

    def __init__(
        self,
        repo: str,
        commit: str,
        path: str,
        size: int,
        *,
        name: str = "",
        endpoint: str | None = None,
        folder: Path | None = None,
    ) -> None:
        self.repo, self.commit, self.path, self.size = repo, commit, path, size
        self.name, self.endpoint = name or path, endpoint
        self.root = folder or ranges_folder()
        key = hashlib.sha256(f"{endpoint or ''} {path}".encode()).hexdigest()[:24]
        self.folder = self.root / repo.replace("/", "--") / commit / key
        self.read_bytes, self._tidied = 0, False
        self.fetched_bytes = 0
        """Of `read_bytes`, what came over the network."""

    def read(self, spans: Sequence[Span]) -> list[bytearray]:
        """The bytes of each span, from disk where they were read before.

        Raises:
            TranscoderError: kind "offline", "corrupt", or "no_decoder" where this would be a download.
            ModelError: kind "gated", "missing" or "offline", as the hub says.
        """
        check_spans(self, spans)
        found = {span: self._kept(span) for span in set(spans)}
        missing = [span for span, data in found.items() if data is None]
        if missing:
            found.update(zip(missing, read_merged(missing, self._fetch), strict=True))
            for span in missing:
                self._keep(span, found[span] or bytearray())
            if not self._tidied:
                self._tidied = True
                _let_go(self.root)
        self.read_bytes += sum(length for _, length in found)
        return [bytearray(found[span] or b"") for span in spans]

    def _fetch(self, spans: Sequence[Span]) -> list[bytearray]:
        total = sum(length for _, length in spans)
        if total > MAX_BYTES or len(spans) > MAX_REQUESTS:
            raise TranscoderError(
                f"{self.name} is not here", kind="no_decoder",
                why=f"{format_bytes(total)} of it in {len(spans):,} pieces are needed, which is a download",
                fix="Fetch the file first, under About this transcoder",
            )  # fmt: skip
        with ThreadPoolExecutor(min(_TOGETHER, len(spans))) as pool:
            return list(pool.map(self._ask, spans))

    def _ask(self, span: Span) -> bytearray:
        """One request for one stretch."""
        data = bytearray()
        for piece in self.stream(span):
            data += piece
        return data

    def stream(self, span: Span) -> Iterator[bytes]:
        """One request for one stretch of any length, as it comes; nothing of it is kept here.

        Raises:
            TranscoderError, ModelError: as `read`, also after some of it came.
        """
        from huggingface_hub import hf_hub_url
        from huggingface_hub.utils import build_hf_headers, get_session

        check_spans(self, [span])
        first, length = span
        if not length:
            return
        url = hf_hub_url(self.repo, self.path, revision=self.commit, endpoint=self.endpoint)
        headers = {
            **build_hf_headers(),
            "Range": f"bytes={first}-{first + length - 1}",
            "Accept-Encoding": "identity",
        }
        came = 0
        with (
            hub_errors(self.repo, self.commit, self.endpoint),
            get_session().stream(
                "GET", url, headers=headers, follow_redirects=True, timeout=TIMEOUT_SECONDS
            ) as answer,
        ):
            self._check(answer.status_code, answer.headers.get("Content-Range", ""), span)
            for piece in answer.iter_bytes():
                came += len(piece)
                if came > length:
                    raise cut_off(self.name, "the hub sent more than was asked for")
                yield piece
        if came != length:
            raise cut_off(self.name, f"the hub sent {came:,} bytes of {length:,}")
        self.fetched_bytes += length

    def _check(self, status: int, told: str, span: Span) -> None:
        """Refuse an answer that is not this stretch of this file, before its body is read."""
        first, length = span
        wanted = f"bytes {first}-{first + length - 1}/{self.size}"
        if status == 206 and told.replace("  ", " ").strip() == wanted:
            return
        if status == 206:
            raise cut_off(self.name, f"the hub sent {told[:60]!r} for {wanted!r}")
        if status == 200:
            raise TranscoderError(
                f"{self.name} cannot be read in parts", kind="offline",
                why="the server sends only whole files", fix="Fetch the file first",
            )  # fmt: skip
        if status in (401, 403):
            raise ModelError(
                f"{self.repo!r} is gated", kind="gated", why="its owner must grant access first",
                fix=f"Ask for access on huggingface.co/{self.repo}, then run `hf auth login`",
            )  # fmt: skip
        kind, why = ("missing", "it is no longer there") if status == 404 else ("offline", f"status {status}")
        raise TranscoderError(
            f"{self.name} cannot be read from the hub", kind=kind, why=f"the hub answered {why}"
        )

    def _place(self, span: Span) -> Path:
        return self.folder / f"{span[0]}-{span[1]}"

    def _kept(self, span: Span) -> bytearray | None:
        try:
            data = bytearray(self._place(span).read_bytes())
            os.utime(self._place(span))
        except OSError:
            return None
        return data if len(data) == span[1] else None

    def _keep(self, span: Span, data: bytearray) -> None:
        """Best effort: a disk that cannot be written makes the next look slower, not wrong."""
        part = self._place(span).with_suffix(f".{os.getpid()}.part")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            part.write_bytes(data)
            part.replace(self._place(span))
        except OSError:
            return


def _let_go(root: Path, limit: int = KEPT_BYTES) -> None:
    """Remove what was used longest ago until the rest is below the limit."""
    try:
        kept = [
            (stat.st_mtime, stat.st_size, path)
            for path in root.rglob("*")
            if path.is_file() and (stat := path.stat())
        ]
        total = sum(size for _, size, _ in kept)
        for _, size, path in sorted(kept):
            if total <= limit:
                return
            path.unlink()
            total -= size
    except OSError:
        return
