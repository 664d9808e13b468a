"""Where the features files of a transcoder are, and what they say about all features at once.

Looked for in this order: the user's data folder (under the transcoder's fingerprint), then beside the
transcoder. A pass writes beside the transcoder only into a folder of the user's own: neither into Lantern's
assets nor into the Hugging Face cache. No torch, no network.
"""

import json
import os
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from platformdirs import user_data_path

from mi_core.errors import InputError
from mi_core.transcoders.feature_files import FOLDER, INDEX, SUMMARY
from mi_core.transcoders.feature_files_json import inflate

if TYPE_CHECKING:
    from mi_core.model.model import LoadedModel
    from mi_core.transcoders.transcoder import Transcoder

SCHEMA, VERSION = "lantern/features", 1
MAX_SUMMARY_BYTES = 400_000_000
SHOWN_DEAD = 40
ASSETS = Path(__file__).resolve().parents[2] / "assets"


@dataclass(frozen=True, slots=True, eq=False)
class FeatureSummary:
    """What a corpus pass of ours found out about all features.

    Attributes:
        text: name of the text.
        n_tokens: tokens that counted.
        n_documents: documents of the text.
        density: layer -> [feature] share of the tokens at which each is active.
        largest: layer -> [feature] largest activation.
        folder: where the files are.
        fingerprint: of the transcoder that they were made for.
    """

    text: str
    n_tokens: int
    n_documents: int
    density: dict[int, Float[np.ndarray, " feature"]]
    largest: dict[int, Float[np.ndarray, " feature"]]
    folder: str
    fingerprint: str

    def dead(self, layer: int) -> list[int]:
        """Features of a layer that were never active."""
        return np.flatnonzero(self.density[layer] == 0).tolist() if layer in self.density else []

    @property
    def n_features(self) -> int:
        """Features of all layers."""
        return sum(len(values) for values in self.density.values())

    def dead_names(self) -> list[str]:
        """All dead features by name, layer by layer."""
        return [f"L{layer}F{index}" for layer in sorted(self.density) for index in self.dead(layer)]

    def dead_table(self) -> list[dict[str, Any]]:
        """One row per layer: how many features, how many dead, the first of them."""
        rows = []
        for layer in sorted(self.density):
            dead = self.dead(layer)
            shown = ", ".join(map(str, dead[:SHOWN_DEAD])) + (", …" if len(dead) > SHOWN_DEAD else "")
            rows.append(
                {
                    "layer": layer,
                    "features": len(self.density[layer]),
                    "dead": len(dead),
                    "dead [%]": round(100 * len(dead) / max(1, len(self.density[layer])), 2),
                    "which": shown,
                }
            )
        return rows


def own_folder(fingerprint: str) -> Path:
    """Features files of a transcoder in the user's data folder; need not exist."""
    safe = re.sub(r"[^A-Za-z0-9._-]", "-", fingerprint)[:80] or "unknown"
    return user_data_path("lantern", appauthor=False) / FOLDER / safe


def local_folders(transcoder: "Transcoder") -> tuple[Path, ...]:
    """Local folders with features files of a transcoder, the first one meant."""
    beside = () if transcoder.folder is None else (Path(transcoder.folder) / FOLDER,)
    return tuple(
        place for place in (own_folder(transcoder.fingerprint), *beside) if (place / INDEX).is_file()
    )


def save_folder(transcoder: "Transcoder") -> Path:
    """Where a pass over a transcoder writes when nothing else is said."""
    folder = transcoder.folder
    if folder is not None:
        path = Path(folder).resolve()
        lent = path.is_relative_to(ASSETS) or "snapshots" in path.parts
        if not lent and os.access(path, os.W_OK):
            return path / FOLDER
    return own_folder(transcoder.fingerprint)


def files_state(transcoder: "Transcoder") -> str:
    """A text that changes when the local features files do; "" where there are none."""
    for folder in local_folders(transcoder):
        known = (folder / INDEX).stat()
        return f"{known.st_mtime_ns:x}-{known.st_size:x}"
    return ""


def summary_of(transcoder: "Transcoder") -> FeatureSummary | None:
    """What our own pass over a transcoder found; None where none was made, or by another program.

    Raises:
        InputError: there is a summary, but it cannot be read.
    """
    for folder in local_folders(transcoder):
        file = folder / SUMMARY
        try:
            known = file.stat()
        except OSError:
            continue
        return _read(file, known.st_mtime_ns, known.st_size)
    return None


@lru_cache(maxsize=4)
def _read(file: Path, _time: int, _size: int) -> FeatureSummary:
    try:
        values = json.loads(inflate(file.read_bytes(), MAX_SUMMARY_BYTES))
        if values["schema"] != SCHEMA or values["version"] > VERSION:
            raise ValueError(f"it is {values['schema']!s:.40} {values['version']!s:.10}")
        return _summary(values, str(file.parent))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{file.name} of the features files is damaged", why=str(error)[:200]) from error


def _summary(values: dict[str, Any], folder: str) -> FeatureSummary:
    n = int(values["n_tokens"])
    layers = values["layers"].items()
    return FeatureSummary(
        text=str(values["text"])[:200],
        n_tokens=n,
        n_documents=int(values["n_documents"]),
        density={
            int(layer): (np.array(one["counts"], np.float64) / max(1, n)).astype(np.float32)
            for layer, one in layers
        },
        largest={int(layer): np.array(one["largest"], np.float32) for layer, one in layers},
        folder=folder,
        fingerprint=str(values["fingerprint"])[:200],
    )


def fitting_summary(transcoder: "Transcoder") -> FeatureSummary | None:
    """The summary, if it was made for these very weights; None otherwise.

    Raises:
        InputError: there is a summary, but it cannot be read.
    """
    found = summary_of(transcoder)
    return found if found is not None and found.fingerprint == transcoder.fingerprint else None


def densities(
    model: "LoadedModel", transcoder: "str | Transcoder" = ""
) -> dict[int, Float[np.ndarray, " feature"]] | None:
    """Share of corpus tokens at which every feature is active, by layer; None where no pass of ours was made.

    Args:
        model: the loaded model.
        transcoder: the transcoder, or its name as in every Inputs.
    """
    found = fitting_summary(_opened(model, transcoder))
    return None if found is None else found.density


def largest(
    model: "LoadedModel", transcoder: "str | Transcoder" = ""
) -> dict[int, Float[np.ndarray, " feature"]] | None:
    """Largest activation in the corpus of every feature, by layer; None where no pass of ours was made."""
    found = fitting_summary(_opened(model, transcoder))
    return None if found is None else found.largest


def _opened(model: "LoadedModel", transcoder: "str | Transcoder") -> "Transcoder":
    if not isinstance(transcoder, str):
        return transcoder
    from mi_core.transcoders.store import load_transcoder

    return load_transcoder(model, transcoder)
