"""Features files: one record per feature, read by its byte range; circuit-tracer's layout.

    features/index.json.gz   gzipped JSON {layer: {"filename": .., "offsets": [one more than features]}}
    features/layer_{l}.bin   at offsets[f]: four bytes length (little-endian), then compressed JSON

So one feature costs one small read, from disk or by HTTP range. The viewer asks for `bytes=start-end` with
the next record's start as inclusive end: one byte too many, which the length makes harmless; features without
a record would not be found by it, so ours write one for dead features too. Beside them lies `lantern.json.gz`
(ours): density and largest activation of all features, which these files cannot give without reading them
all. Cost: the index once (8 bytes per feature), then one record at a time.
"""

import gzip
import itertools
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from mi_core.errors import InputError
from mi_core.transcoders.feature_files_json import MAX_RECORD_BYTES, inflate, unpack_record
from mi_core.transcoders.feature_files_record import FeatureRecord

FOLDER, INDEX, SUMMARY = "features", "index.json.gz", "lantern.json.gz"
MAX_INDEX_BYTES = 400_000_000  # 426 thousand features have 4 MB


class FilePlace(Protocol):
    """A folder of features files, here or on the hub."""

    @property
    def name(self) -> str:
        """For people."""
        ...

    def whole(self, file: str) -> bytes | None:
        """A small file; None = there is none."""
        ...

    def part(self, file: str, start: int, stop: int) -> bytes:
        """Bytes [start, stop) of a file; fewer at its end."""
        ...


@dataclass(frozen=True, slots=True)
class LocalPlace:
    """A folder on this machine.

    Attributes:
        folder: with index.json.gz in it.
    """

    folder: Path

    @property
    def name(self) -> str:
        """The folder's path."""
        return str(self.folder)

    def whole(self, file: str) -> bytes | None:
        """See `FilePlace.whole`."""
        try:
            return (self.folder / file).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise InputError(f"{file} cannot be read", why=error.strerror or "unknown cause") from error

    def part(self, file: str, start: int, stop: int) -> bytes:
        """See `FilePlace.part`."""
        try:
            with (self.folder / file).open("rb") as opened:
                opened.seek(start)
                return opened.read(stop - start)
        except OSError as error:
            raise InputError(f"{file} cannot be read", why=error.strerror or "unknown cause") from error


@dataclass(frozen=True, slots=True)
class LayerFile:
    """Where the records of a layer are.

    Attributes:
        file: name of the file.
        offsets: one more than features, not falling.
    """

    file: str
    offsets: tuple[int, ...]

    @property
    def n_features(self) -> int:
        """Features of the layer."""
        return len(self.offsets) - 1


@dataclass(frozen=True, slots=True)
class FeatureFiles:
    """The features files of a transcoder.

    Attributes:
        place: where they are.
        layers: by layer.
    """

    place: FilePlace
    layers: Mapping[int, LayerFile]

    def record(self, layer: int, index: int) -> FeatureRecord | None:
        """What the files say about a feature; None where they have nothing.

        Raises:
            InputError: the layer or the feature is not in the index, or its record is damaged.
        """
        where = self.layers.get(layer)
        if where is None or not 0 <= index < where.n_features:
            raise InputError(
                f"The features files do not know feature {index} of layer {layer}",
                why=f"they are in {self.place.name}",
            )
        start, stop = where.offsets[index], where.offsets[index + 1]
        if stop <= start:
            return None
        if stop - start > MAX_RECORD_BYTES:
            raise InputError(f"The record of feature {index} has {stop - start:,} bytes")
        return unpack_record(self.place.part(where.file, start, stop), layer, index)


def open_feature_files(place: FilePlace) -> FeatureFiles | None:
    """The features files at a place; None when there are none.

    Raises:
        InputError: there is an index, but it cannot be used.
    """
    data = place.whole(INDEX)
    if data is None:
        return None
    try:
        values = json.loads(inflate(data, MAX_INDEX_BYTES))
        layers = {int(layer): _layer_file(entry) for layer, entry in _entries(values)}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(
            f"The index of the features files in {place.name} is damaged", why=str(error)[:200]
        ) from error
    return FeatureFiles(place, layers)


def _entries(values: Any) -> list[tuple[Any, Any]]:
    """Layers with their entries; the viewer reads lists as well."""
    return list(enumerate(values)) if isinstance(values, list) else list(values.items())


def _layer_file(entry: Mapping[str, Any]) -> LayerFile:
    name, offsets = entry["filename"], tuple(entry["offsets"])
    if not isinstance(name, str) or name != os.path.basename(name) or name.startswith(".") or "\\" in name:
        raise ValueError(f"{str(name)[:60]!r} is no name of a file")
    rising = all(isinstance(one, int) for one in offsets) and all(
        a <= b for a, b in itertools.pairwise(offsets)
    )
    if not offsets or offsets[0] < 0 or not rising:
        raise ValueError("the offsets do not rise")
    return LayerFile(name, offsets)


def pack_index(layers: Mapping[int, LayerFile]) -> bytes:
    """The content of index.json.gz."""
    values = {
        str(layer): {"filename": one.file, "offsets": list(one.offsets)} for layer, one in layers.items()
    }
    return gzip.compress(json.dumps(values, separators=(",", ":")).encode(), 9, mtime=0)
