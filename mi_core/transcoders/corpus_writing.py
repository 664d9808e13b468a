"""The last part of a corpus pass: records, trimmed to a size, and the summary, written as features files."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mi_core.errors import LanternError
from mi_core.model.model import LoadedModel
from mi_core.model.progress import format_bytes
from mi_core.transcoders.corpus_density import SCHEMA, VERSION
from mi_core.transcoders.corpus_gather import Gather
from mi_core.transcoders.corpus_inputs import CorpusPassInputs
from mi_core.transcoders.corpus_records import Records, Trim, trims
from mi_core.transcoders.corpus_state import LayerState
from mi_core.transcoders.corpus_words import layer_words
from mi_core.transcoders.feature_files_write import FeatureWriter
from mi_core.transcoders.transcoder import Transcoder

_ROOM = 0.97  # of the size limit: an estimate from some records may be this far off
_BYTES_OF_INDEX = 12  # per feature: offset, count and peak, compressed

OnLayer = Callable[[int], None]
"""Told the number of the layer (in order, from 0) that is written next; may raise `Cancelled`."""


@dataclass(frozen=True, slots=True)
class Counted:
    """How much was read.

    Attributes:
        n_tokens: tokens that counted.
        n_rows: rows.
        n_documents: documents.
        text: name of the text.
        digest: tells two texts apart.
    """

    n_tokens: int
    n_rows: int
    n_documents: int
    text: str
    digest: str


@dataclass(frozen=True, slots=True)
class Written:
    """What is on disk.

    Attributes:
        file_bytes: size of all files.
        warnings: what was cut or could not be told.
    """

    file_bytes: int
    warnings: tuple[str, ...]


def write_files(
    model: LoadedModel,
    transcoder: Transcoder,
    inputs: CorpusPassInputs,
    states: Mapping[int, LayerState],
    gather: Gather,
    counted: Counted,
    folder: Path,
    on_layer: OnLayer,
) -> Written:
    """Make the records and write the files; the folder is replaced only when they are whole.

    Raises:
        InputError: the folder cannot be written.
    """
    warnings: list[str] = []
    words = _words(model, transcoder, states, inputs.words, warnings)
    records = Records(inputs, states, gather, words, counted.n_tokens, _public(transcoder), model.tokenizer)
    records.prepare()
    trim = _fitting(records, inputs, sum(transcoder.n_features.values()), warnings)
    writer = FeatureWriter(folder)
    writer.begin()
    try:
        for number, layer in enumerate(states):
            on_layer(number)
            writer.add_layer(layer, records.of_layer(layer, trim))
    except BaseException:
        writer.give_up()
        raise
    size = writer.finish(_summary(transcoder, states, counted, trim, inputs.seed))
    if inputs.max_bytes and size > inputs.max_bytes:
        warnings.append(
            f"The files have {format_bytes(size)}, more than the {format_bytes(inputs.max_bytes)} asked for: "
            "keep fewer examples."
        )
    return Written(size, tuple(warnings))


def _public(transcoder: Transcoder) -> str:
    """Its address, or the name of its folder: files that others read do not tell where it lay."""
    folder = transcoder.folder
    return transcoder.repo or (transcoder.name if folder is None else Path(folder).name)


def _fitting(records: Records, inputs: CorpusPassInputs, n_features: int, warnings: list[str]) -> Trim:
    """As much of the examples as the size limit allows."""
    steps = trims(inputs)
    if not inputs.max_bytes:
        return steps[0]
    room = _ROOM * inputs.max_bytes - _BYTES_OF_INDEX * n_features
    chosen = next((trim for trim in steps if records.estimate(trim) <= room), steps[-1])
    if chosen != steps[0]:
        warnings.append(f"To stay within the size limit, examples were cut: {chosen.text}.")
    return chosen


def _words(
    model: LoadedModel,
    transcoder: Transcoder,
    states: Mapping[int, LayerState],
    count: int,
    warnings: list[str],
) -> dict[int, Any]:
    """Tokens that features write most and least; nothing, with the reason, where that cannot be told."""
    if not count:
        return {}
    try:
        return {layer: layer_words(model, transcoder, layer, count) for layer in states}
    except LanternError as error:
        warnings.append(f"The files do not tell which tokens features write: {error}")
        return {}


def _summary(
    transcoder: Transcoder, states: Mapping[int, LayerState], counted: Counted, trim: Trim, seed: int
) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "version": VERSION,
        "transcoder": _public(transcoder),
        "fingerprint": transcoder.fingerprint,
        "text": counted.text,
        "text_digest": counted.digest,
        "n_tokens": counted.n_tokens,
        "n_rows": counted.n_rows,
        "n_documents": counted.n_documents,
        "examples": trim.text,
        "seed": seed,
        "layers": {
            str(layer): {
                "counts": state.counts.tolist(),
                "largest": [float(f"{value:.7g}") for value in state.largest.tolist()],
            }
            for layer, state in states.items()
        },
    }
