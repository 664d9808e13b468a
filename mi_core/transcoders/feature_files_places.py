"""Where a transcoder's features files are looked for: own data folder, its local folder, its repository."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from mi_core.errors import TranscoderError
from mi_core.transcoders.corpus_density import local_folders
from mi_core.transcoders.feature_files import (
    FOLDER,
    MAX_INDEX_BYTES,
    FeatureFiles,
    FilePlace,
    LocalPlace,
    open_feature_files,
)
from mi_core.transcoders.folder import Folder
from mi_core.transcoders.sizes import folder_of
from mi_core.transcoders.transcoder import Transcoder


@dataclass(frozen=True, slots=True)
class FolderPlace:
    """The `features` folder of a repository; parts of files are read by range, and kept (`hub_range`).

    Attributes:
        folder: the repository. It refuses what the user has not allowed to be fetched.
    """

    folder: Folder

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.folder.name}/{FOLDER}"

    def whole(self, file: str) -> bytes | None:
        """See `FilePlace.whole`."""
        path = f"{FOLDER}/{file}"
        size = self.folder.files.get(path)
        if size is None or size > MAX_INDEX_BYTES:
            return None
        return bytes(self.folder.open(path).read([(0, size)])[0])

    def part(self, file: str, start: int, stop: int) -> bytes:
        """See `FilePlace.part`."""
        path = f"{FOLDER}/{file}"
        stop = min(stop, self.folder.files.get(path, stop))
        return bytes(self.folder.open(path).read([(start, max(0, stop - start))])[0])


def _places(transcoder: Transcoder) -> Iterator[FilePlace]:
    yield from (LocalPlace(folder) for folder in local_folders(transcoder))
    folder = folder_of(transcoder)
    if folder is not None and f"{FOLDER}/index.json.gz" in folder.files:
        yield FolderPlace(folder)


def feature_files(transcoder: Transcoder) -> FeatureFiles | None:
    """The features files of a transcoder; None where there are none.

    Raises:
        InputError: there are some, but they cannot be used.
        TranscoderError: they are in a repository from which nothing may be fetched yet.
    """
    memo = transcoder.memo
    places = tuple(itertools.islice(_places(transcoder), 1))
    if not places:
        return None
    key = ("feature files", *_state(places[0]))
    if key not in memo:
        for old in [one for one in memo if isinstance(one, tuple) and one and one[0] == key[0]]:
            memo.pop(old)
        memo[key] = open_feature_files(places[0])
    memo.move_to_end(key)
    found = memo[key]
    if not isinstance(found, FeatureFiles):
        raise TranscoderError("The features files have no index", kind="missing")
    return found


def _state(place: FilePlace) -> tuple[object, ...]:
    """Changes when the files do."""
    if not isinstance(place, LocalPlace):
        return (place.name,)
    known = (place.folder / "index.json.gz").stat()
    return (place.name, known.st_mtime_ns, known.st_size)
