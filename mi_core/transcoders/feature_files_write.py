"""Writes features files, layer by layer, into a new folder that takes the old one's place when whole."""

import gzip
import json
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mi_core.errors import InputError
from mi_core.transcoders.feature_files import INDEX, SUMMARY, LayerFile, pack_index
from mi_core.transcoders.feature_files_json import pack_record
from mi_core.transcoders.feature_files_record import FeatureRecord

_OURS = re.compile(rf"{re.escape(INDEX)}|{re.escape(SUMMARY)}|layer_\d+\.bin")
"""Names of features files."""


@dataclass
class FeatureWriter:
    """Features files under way.

    Attributes:
        folder: where they will be.
        layers: what is written so far.
        bytes: of the layers' files so far.
    """

    folder: Path
    layers: dict[int, LayerFile] = field(default_factory=dict)
    bytes: int = 0

    @property
    def part(self) -> Path:
        """Where they are until they are whole."""
        return self.folder.with_name(f".{self.folder.name}.part")

    def begin(self) -> None:
        """Make the folder, before anything is computed for it.

        Raises:
            InputError: it cannot be written, or what is there now is not for us to replace.
        """
        try:
            _refuse_others(self.folder)
            shutil.rmtree(self.part, ignore_errors=True)
            self.part.mkdir(parents=True)
        except OSError as error:
            raise InputError(
                f"{str(self.folder)!r} cannot be written", why=error.strerror or "unknown cause"
            ) from error

    def add_layer(self, layer: int, records: Iterable[FeatureRecord]) -> int:
        """Write the records of a layer, one for every feature in order.

        Returns:
            Bytes of its file.
        """
        name, offsets = f"layer_{layer}.bin", [0]
        with (self.part / name).open("wb") as file:
            for record in records:
                offsets.append(offsets[-1] + file.write(pack_record(record)))
        self.layers[layer] = LayerFile(name, tuple(offsets))
        self.bytes += offsets[-1]
        return offsets[-1]

    def finish(self, summary: Mapping[str, Any]) -> int:
        """Write index and summary, and put the folder in its place.

        Returns:
            Bytes of all files.
        """
        index = pack_index(self.layers)
        text = json.dumps(summary, allow_nan=False, separators=(",", ":"), ensure_ascii=False)
        ours = gzip.compress(text.encode("utf-8", "backslashreplace"), 9, mtime=0)
        (self.part / INDEX).write_bytes(index)
        (self.part / SUMMARY).write_bytes(ours)
        old = self.folder.with_name(f".{self.folder.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        if self.folder.exists():
            self.folder.rename(old)
        self.part.rename(self.folder)
        shutil.rmtree(old, ignore_errors=True)
        return self.bytes + len(index) + len(ours)

    def give_up(self) -> None:
        """Remove what is half done."""
        shutil.rmtree(self.part, ignore_errors=True)


def _refuse_others(folder: Path) -> None:
    """Only features files are replaced: nobody's documents, and no transcoder's weights.

    Raises:
        InputError: the folder holds something else, or is a file.
        OSError: it cannot be read.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise InputError(f"{str(folder)!r} is no folder", fix="Give a new folder")
    others = sorted(one.name for one in folder.iterdir() if not _OURS.fullmatch(one.name) or one.is_dir())
    if others:
        named = ", ".join(others[:3]) + (f" and {len(others) - 3:,} more" if len(others) > 3 else "")
        raise InputError(
            f"{str(folder)!r} holds more than features files",
            why=f"it would be replaced as a whole, and {named} would be lost",
            fix="Give a new folder",
        )
