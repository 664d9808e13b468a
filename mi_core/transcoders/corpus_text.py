"""A text as a corpus pass reads it: documents one after another, rows of tokens, batches of equal length.

A document longer than a row is split, and every piece begins with the special tokens that the tokenizer puts
first. Those never count (see `masked_positions`). Nothing but the current buffer is held in memory, so the
file may have any size.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mi_core.errors import InputError
from mi_core.model.model import LoadedModel
from mi_core.tokens import tokenize
from mi_core.transcoders.encode import masked_positions

DIVERSE = "diverse"
BUFFER_ROWS = 2048
MAX_DOCUMENT = 5_000_000  # characters


@dataclass(frozen=True, slots=True)
class Row:
    """What the model reads at once.

    Attributes:
        number: rows before it.
        document: documents before its own.
        ids: token ids.
        first: first position that counts.
    """

    number: int
    document: int
    ids: tuple[int, ...]
    first: int

    @property
    def counted(self) -> int:
        """Positions that count."""
        return len(self.ids) - self.first


def text_digest(text: str) -> tuple[str, int]:
    """16 hexadecimal digits that tell two texts apart, and the size in bytes (0 where it is no file).

    Raises:
        InputError: the file cannot be read.
    """
    if text == DIVERSE:
        from mi_core.batch.texts import bundled_texts

        return bundled_texts().digest, 0
    digest, size = hashlib.sha256(), 0
    try:
        with Path(text).expanduser().open("rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
                size += len(piece)
    except OSError as error:
        raise InputError(f"{text!r:.200} cannot be read", why=error.strerror or "unknown cause") from error
    return digest.hexdigest()[:16], size


def documents(text: str) -> Iterator[str]:
    """The documents of a text, in order.

    Raises:
        InputError: the file cannot be read, is no UTF-8, or a line of it is no JSON document.
    """
    if text == DIVERSE:
        from mi_core.batch.texts import bundled_texts

        yield from (one.text for one in bundled_texts().texts)
        return
    path = Path(text).expanduser()
    try:
        with path.open(encoding="utf-8-sig") as file:
            yield from (
                _json_lines(file) if path.suffix.lower() in (".jsonl", ".ndjson") else _paragraphs(file)
            )
    except OSError as error:
        raise InputError(f"{text!r:.200} cannot be read", why=error.strerror or "unknown cause") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{text!r:.200} is no text in UTF-8", fix="Save it as UTF-8") from error


def _json_lines(file: Any) -> Iterator[str]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except ValueError as error:
            raise InputError(f"Line {number} of the text is no JSON", why=str(error)[:120]) from error
        document = value.get("text") if isinstance(value, dict) else value
        if not isinstance(document, str):
            raise InputError(f"Line {number} of the text has no document", fix='Write {"text": "..."}')
        if document.strip():
            yield document[:MAX_DOCUMENT]


def _paragraphs(file: Any) -> Iterator[str]:
    lines: list[str] = []
    size = 0
    for line in file:
        if (not line.strip() or size > MAX_DOCUMENT) and lines:
            yield "".join(lines).rstrip("\n")
            lines, size = [], 0
        if line.strip():
            lines.append(line)
            size += len(line)
    if lines:
        yield "".join(lines).rstrip("\n")


def rows(model: LoadedModel, text: str, length: int, limit: int) -> Iterator[Row]:
    """The rows of a text, in order.

    Args:
        model: its tokenizer and its longest prompt.
        text: see `CorpusPassInputs`.
        length: tokens of a row at most.
        limit: positions that count at most; 0 = all.

    Raises:
        InputError: see `documents`; no tokenizer; a row that would hold nothing but special tokens.
    """
    number = counted = 0
    for document, content in enumerate(documents(text)):
        try:
            ids = tokenize(model.tokenizer, content).ids
        except InputError:
            if model.tokenizer is None:
                raise
            continue  # nothing that this tokenizer knows
        lead = len(masked_positions(model, ids))
        if length <= lead:
            raise InputError(f"Rows of {length} tokens hold nothing but the {lead} special ones")
        step = length - lead
        for start in range(lead, len(ids), step):
            row = Row(number, document, (*ids[:lead], *ids[start : start + step]), lead)
            if limit and counted >= limit:
                return
            yield row
            number, counted = number + 1, counted + row.counted


def batches(of: Iterator[Row], tokens: int) -> Iterator[list[Row]]:
    """Rows of equal length together, at most `tokens` tokens (but at least one row) in each.

    Rows are sorted by length within a buffer of `BUFFER_ROWS`; what comes out depends on nothing else.
    """
    buffer: list[Row] = []
    for row in of:
        buffer.append(row)
        if len(buffer) == BUFFER_ROWS:
            yield from _grouped(buffer, tokens)
            buffer = []
    yield from _grouped(buffer, tokens)


def _grouped(buffer: Sequence[Row], tokens: int) -> Iterator[list[Row]]:
    alike: dict[tuple[int, int], list[Row]] = {}
    for row in buffer:
        alike.setdefault((len(row.ids), row.first), []).append(row)
    for (length, _), group in sorted(alike.items()):
        at_once = max(1, tokens // length)
        for start in range(0, len(group), at_once):
            yield group[start : start + at_once]
