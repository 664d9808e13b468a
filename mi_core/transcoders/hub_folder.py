"""Transcoders of the hub: what of a repository is in the Hugging Face cache, and single rows of the rest.

Files that are needed whole (encoders, configs) are only seen when they are in the cache. Decoders and feature
files can be read row by row from the hub if the user allowed it for this repository (`Listing.by_range`);
then they are seen too. A file of whole layers of which only the encoder was fetched (`hub_encoders`) is seen
as well; its decoder rows come by range under the same permission. Nothing is asked for before that.
"""

import threading
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from mi_core.errors import TranscoderError
from mi_core.model.hub_cache import folder_of, hub_cache, snapshots
from mi_core.transcoders.folder import Folder, LocalFolder, missing_file
from mi_core.transcoders.formats_names import readable_by_row
from mi_core.transcoders.hub_encoders import PartFile, encoder_is_here, encoder_pieces
from mi_core.transcoders.hub_listing import Listing, known_listing
from mi_core.transcoders.hub_range import RemoteFile
from mi_core.transcoders.hub_reference import Reference, parse_reference
from mi_core.transcoders.sources import ByteFile, LocalFile


class HubFolder:
    """A folder of a repository, partly here.

    Args:
        reference: repository and folder.
        listing: what the repository holds.
        cache: the Hugging Face cache.
        endpoint: address of the hub; None = as the environment says.
        ranges: where stretches are kept; None = the user's cache folder.
    """

    def __init__(
        self,
        reference: Reference,
        listing: Listing,
        cache: Path | None = None,
        endpoint: str | None = None,
        ranges: Path | None = None,
    ) -> None:
        self.reference, self.listing, self.endpoint = reference, listing, endpoint
        self._cache, self._ranges = cache or hub_cache(), ranges
        self.snapshot = folder_of(self._cache, reference.repo) / "snapshots" / listing.commit
        self._open: dict[str, ByteFile] = {}
        self._lock = threading.Lock()
        prefix = f"{reference.path}/" if reference.path else ""
        self._listed = {
            path.removeprefix(prefix): size for path, size in listing.files.items() if path.startswith(prefix)
        }
        self._files = {file: size for file, size in self._listed.items() if self._is_seen(file)}

    @property
    def name(self) -> str:
        """Its address."""
        return self.reference.text

    @property
    def repo(self) -> str:
        """Its address."""
        return self.reference.text

    @property
    def files(self) -> Mapping[str, int]:
        """Path of each file that can be read -> its bytes."""
        return self._files

    def _is_seen(self, file: str) -> bool:
        by_row = self.listing.by_range and readable_by_row(file)
        return self.here(file) or by_row or encoder_is_here(self.listing, self._in_repo(file))

    def _in_repo(self, file: str) -> str:
        return str(PurePosixPath(self.reference.path) / file)

    def _path(self, file: str) -> Path:
        return self.snapshot / self.reference.path / file

    def here(self, file: str) -> bool:
        """Whether the file is in the cache."""
        return self._path(file).is_file()

    def whole(self, file: str) -> bool:
        """Whether the file is in the cache, or may be read from the hub where it is not."""
        return self.here(file) or self.listing.by_range

    def open(self, file: str) -> ByteFile:
        """A file's bytes: from the cache, else by range."""
        if file not in self._files:
            raise missing_file(self, file)
        with self._lock:
            if file not in self._open:
                self._open[file] = self._opened(file)
            return self._open[file]

    def _opened(self, file: str) -> ByteFile:
        if self.here(file):
            return LocalFile(self._path(file), file)
        path = self._in_repo(file)
        remote = RemoteFile(
            self.reference.repo, self.listing.commit, path, self._files[file],
            name=file, endpoint=self.endpoint, folder=self._ranges,
        )  # fmt: skip
        if readable_by_row(file):
            return remote
        pieces = {span: LocalFile(piece, file) for span, piece in encoder_pieces(self.listing, path).items()}
        return PartFile(file, self._files[file], pieces, remote if self.listing.by_range else None)

    @property
    def version(self) -> str:
        """Repository, folder and commit."""
        return f"{self.reference.repo}/{self.reference.path}@{self.listing.commit}"

    def changed(self) -> bool:
        """Whether other files of it can be read than when it was opened."""
        known = known_listing(self.reference.repo)
        by_range = self.listing.by_range if known is None else known.by_range
        if by_range != self.listing.by_range:
            return True
        return any(
            self.here(file) != isinstance(opened, LocalFile) for file, opened in self._open.items()
        ) or any(self._is_seen(file) != (file in self._files) for file in self._listed)

    def elsewhere(self, reference: str) -> tuple[Folder, str]:
        """A file in another repository."""
        return folder_of_reference(reference, cache=self._cache, endpoint=self.endpoint)


def hub_folder(
    reference: Reference, *, cache: Path | None = None, endpoint: str | None = None
) -> Folder | None:
    """The folder of an address, as far as it is here; None where nothing of the repository is.

    A listing that was kept comes first, because with it single rows can be read; without one, whatever
    snapshot is in the Hugging Face cache is taken as it is.
    """
    place = cache or hub_cache()
    listing = known_listing(reference.repo)
    if listing is not None and listing.answers(reference.revision):
        folder = HubFolder(reference, listing, place, endpoint)
        if folder.files:
            return folder
    for snapshot in snapshots(folder_of(place, reference.repo), reference.revision):
        inside = snapshot.folder / reference.path
        if inside.is_dir() and any(inside.iterdir()):
            version = f"{reference.repo}/{reference.path}@{snapshot.commit}"
            return LocalFolder(inside, reference.text, place, repo=reference.text, version=version)
    return None


def folder_of_reference(
    uri: str, *, cache: Path | None = None, endpoint: str | None = None
) -> tuple[Folder, str]:
    """The folder and file that an `hf://` address of a config means.

    Raises:
        InputError: it is no such address.
        TranscoderError: kind "missing": it is not here.
    """
    reference = parse_reference(uri)
    path = PurePosixPath(reference.path)
    above = "" if str(path.parent) == "." else str(path.parent)
    folder = hub_folder(Reference(reference.repo, above, reference.revision), cache=cache, endpoint=endpoint)
    if folder is None or path.name not in folder.files:
        raise TranscoderError(
            f"{reference.text} is not here", kind="missing",
            why="the config lists it, and it was not fetched", fix="Fetch it on the Features page",
        )  # fmt: skip
    return folder, path.name
