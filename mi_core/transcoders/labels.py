"""Names that people give to features: kept in the user's data folder, exported and imported as JSON.

A name belongs to a transcoder's fingerprint, because another training gives other features the same numbers.
A transcoder's own folder may bring names (`labels.json`, the same format); the user's come first. Nothing
here uses the network, and importing needs no torch.
"""

import json
import os
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from platformdirs import user_data_path

from mi_core.analyses.plain import damage_told
from mi_core.analyses.records import dump_record, load_record
from mi_core.errors import InputError
from mi_core.transcoders.names import Feature, parse_feature

SCHEMA, VERSION = "lantern/labels", 1
FILE = "labels.json"
MAX_LABEL, MAX_LABELS, MAX_FILE_BYTES = 500, 200_000, 50_000_000
YOU, BESIDE, NEURONPEDIA = "you", "the transcoder", "Neuronpedia"
_LOCK = threading.RLock()


@dataclass(frozen=True, slots=True)
class Label:
    """A name.

    Attributes:
        text: the name; text from people, and from files of others.
        source: who gave it: "you", "the transcoder" (its own folder), "Neuronpedia", or a file's word.
        at: when, ISO 8601; "" where nobody knows.
    """

    text: str
    source: str = YOU
    at: str = ""


@dataclass(frozen=True, slots=True)
class ImportedLabels:
    """What came out of a file.

    Attributes:
        taken: names that are new or replaced another.
        kept: names of yours that the file would have replaced.
        warnings: sentences, for example that the file belongs to another transcoder.
    """

    taken: int
    kept: int
    warnings: tuple[str, ...] = ()


def labels_file(fingerprint: str) -> Path:
    """Where the user's names for a transcoder are; need not exist."""
    safe = re.sub(r"[^A-Za-z0-9._-]", "-", fingerprint)[:80] or "unknown"
    return user_data_path("lantern", appauthor=False) / "labels" / f"{safe}.json"


def labels_of(fingerprint: str, folder: "Path | str | None" = None) -> dict[str, Label]:
    """All names for a transcoder, by "L5F102".

    Args:
        fingerprint: of the transcoder.
        folder: its local folder, if it has one; names in it are overruled by the user's.

    Raises:
        InputError: a file of names is damaged.
    """
    own = _read(labels_file(fingerprint))
    beside = {} if folder is None else _read(Path(folder) / FILE)
    lent = {name: Label(one.text, BESIDE, one.at) for name, one in beside.items()}
    return {**lent, **own}


def label_of(fingerprint: str, layer: int, index: int, folder: "Path | str | None" = None) -> str:
    """The name of a feature; "" where it has none."""
    found = labels_of(fingerprint, folder).get(Feature(layer, index).text)
    return "" if found is None else found.text


def save_label(
    fingerprint: str, layer: int, index: int, text: str, *, source: str = YOU, transcoder: str = ""
) -> None:
    """Name a feature; an empty text takes the user's name away.

    Raises:
        InputError: the name is too long, or the file cannot be written.
    """
    text = " ".join(text.split())
    if len(text) > MAX_LABEL:
        raise InputError(f"A label has at most {MAX_LABEL} characters")
    with _LOCK:
        file = labels_file(fingerprint)
        known = _read(file)
        known.pop(Feature(layer, index).text, None)
        if text:
            known[Feature(layer, index).text] = Label(
                text, source, datetime.now(UTC).isoformat(timespec="seconds")
            )
        _write(file, _record(known, fingerprint, transcoder))


def export_labels(fingerprint: str, transcoder: str = "", folder: "Path | str | None" = None) -> str:
    """All names as JSON text, those of the transcoder's folder included."""
    return _record(labels_of(fingerprint, folder), fingerprint, transcoder)


def import_labels(
    data: bytes | str, fingerprint: str, *, transcoder: str = "", replace: bool = False
) -> ImportedLabels:
    """Take in the names of a file.

    Args:
        data: its content.
        fingerprint: of the transcoder that they are for.
        transcoder: its name.
        replace: whether a name in the file replaces one of the user's.

    Raises:
        InputError: it is no such file, or a name in it cannot be used.
    """
    record = _loaded(data)
    with damage_told("labels"):
        found = _labels(record)
    warnings = _cut(record["labels"])
    if record.get("fingerprint") != fingerprint:
        said = str(record.get("transcoder", ""))[:80] or "another transcoder"
        warnings.append(
            f"The file's names are for {said} with other weights: the same numbers may mean others."
        )
    with _LOCK:
        file = labels_file(fingerprint)
        known = _read(file)
        clash = {name for name, one in found.items() if name in known and known[name].text != one.text}
        taken = {name: one for name, one in found.items() if name not in known or (replace and name in clash)}
        _write(file, _record({**known, **taken}, fingerprint, transcoder))
    return ImportedLabels(len(taken), 0 if replace else len(clash), tuple(warnings))


def _record(labels: Mapping[str, Label], fingerprint: str, transcoder: str) -> str:
    named = {
        name: {"text": one.text, "source": one.source, "at": one.at}
        for name, one in sorted(labels.items(), key=lambda pair: parse_feature(pair[0]))
    }
    fields: dict[str, Any] = {"transcoder": transcoder, "fingerprint": fingerprint, "labels": named}
    return dump_record(SCHEMA, VERSION, fields)


def _loaded(data: bytes | str) -> dict[str, Any]:
    if len(data) > MAX_FILE_BYTES:
        raise InputError(f"The file of labels is larger than {MAX_FILE_BYTES // 1_000_000} MB")
    return load_record(data, SCHEMA, VERSION)


def _labels(record: Mapping[str, Any]) -> dict[str, Label]:
    """Names by feature; a plain text stands for a name without source."""
    found = record["labels"]
    if not isinstance(found, dict) or len(found) > MAX_LABELS:
        raise ValueError(f"labels must be an object of at most {MAX_LABELS:,}")
    made = {}
    for name, one in found.items():
        values = {"text": one} if isinstance(one, str) else one
        if not isinstance(values, dict) or not isinstance(values.get("text"), str):
            raise ValueError(f"the label of {str(name)[:40]} is no text")
        text = " ".join(values["text"].split())[:MAX_LABEL]
        if text:
            source, at = str(values.get("source", YOU))[:40], str(values.get("at", ""))[:40]
            made[parse_feature(name).text] = Label(text, source, at)
    return made


def _cut(labels: Mapping[str, Any]) -> list[str]:
    """Says how many names of a file are too long."""
    texts = [one if isinstance(one, str) else one["text"] for one in labels.values()]
    long = sum(len(" ".join(text.split())) > MAX_LABEL for text in texts)
    if not long:
        return []
    which = "1 label was" if long == 1 else f"{long:,} labels were"
    return [f"{which} longer than {MAX_LABEL} characters, and cut there."]


def _read(file: Path) -> dict[str, Label]:
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise InputError(f"{str(file)!r} cannot be read", why=error.strerror or "unknown cause") from error
    try:
        with damage_told("labels"):
            return _labels(_loaded(data))
    except InputError as error:
        why = f"{error.what[:1].lower()}{error.what[1:]}" + (f" ({error.why})" if error.why else "")
        raise InputError(
            f"The labels in {str(file)!r} cannot be read", why=why, fix="Mend the file, or move it away"
        ) from error


def _write(file: Path, text: str) -> None:
    part = file.with_name(file.name + ".part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(json.loads(text), indent=1, ensure_ascii=False), encoding="utf-8")
        os.replace(part, file)
    except OSError as error:
        raise InputError(f"{str(file)!r} cannot be written", why=error.strerror or "unknown cause") from error
