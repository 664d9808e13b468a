"""Prompt sets from files that people have: JSON or CSV, checked row by row.

    CounterFact pairs     original_prompt, counterfactual_prompt, gt_original_target, gt_counterfactual_target
    ROME's known_1000     prompt, subject, attribute; known_id and relation_id if there are any
    plain                 prompt, subject, answer; corrupted_prompt, corrupted_answer, relation, name if any

JSON is a list of objects with these keys, CSV has them in its first line. A file is hostile until proved
otherwise: its size and its rows are limited, nothing in it is evaluated, and the first thing that does not
fit is told with its row and column.
"""

import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from mi_core.analyses.cases import MAX_CASE_CHARACTERS, Case, PromptSet
from mi_core.errors import InputError

MAX_FILE_BYTES = 10_000_000
MAX_ROWS = 20_000
MAX_NAME = 80


@dataclass(frozen=True, slots=True)
class _Format:
    """One known layout: our field -> its column. The first three identify it."""

    name: str
    required: Mapping[str, str]
    optional: Mapping[str, str]


_FORMATS = (
    _Format(
        "CounterFact pairs",
        {
            "prompt": "original_prompt",
            "corrupted_prompt": "counterfactual_prompt",
            "answer": "gt_original_target",
            "corrupted_answer": "gt_counterfactual_target",
        },
        {"relation": "relation_id", "name": "case_id"},
    ),
    _Format(
        "ROME known facts",
        {"prompt": "prompt", "subject": "subject", "answer": "attribute"},
        {"relation": "relation_id", "name": "known_id"},
    ),
    _Format(
        "plain prompts",
        {"prompt": "prompt", "subject": "subject", "answer": "answer"},
        {
            "corrupted_prompt": "corrupted_prompt",
            "corrupted_answer": "corrupted_answer",
            "relation": "relation",
            "name": "name",
        },
    ),
)


def read_prompt_file(data: bytes, file_name: str = "") -> PromptSet:
    """Read an uploaded prompt set.

    Args:
        data: content of the file.
        file_name: its name; ".json" or ".csv" decides the format, otherwise the first character does.

    Returns:
        The cases, with the file's name and layout.

    Raises:
        InputError: too big, not text, not one of the layouts, or a row that does not fit, named with its
            column.
    """
    if len(data) > MAX_FILE_BYTES:
        raise InputError(f"The file has {len(data):,} bytes", fix=f"Give at most {MAX_FILE_BYTES:,}")
    text = decode_text(data)
    is_json = PurePath(file_name).suffix.lower() == ".json" or (
        PurePath(file_name).suffix.lower() != ".csv" and text.lstrip()[:1] in ("[", "{")
    )
    rows = json_rows(text) if is_json else csv_rows(text)
    layout = _layout_of(rows[0])
    cases = tuple(_case(number, row, layout) for number, row in enumerate(rows, start=1))
    name = "".join(c for c in PurePath(file_name).name if c.isprintable())[:MAX_NAME] or "uploaded prompts"
    return PromptSet(name, cases, f"{layout.name}, {len(cases)} rows")


def decode_text(data: bytes) -> str:
    """The text of a file.

    Raises:
        InputError: not UTF-8, empty, or binary.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            "The file is not UTF-8 text",
            why=f"byte {error.start} is {data[error.start]:#04x}",
            fix="Save it as UTF-8",
        ) from error
    if not text.strip():
        raise InputError("The file is empty")
    if "\0" in text:
        raise InputError("The file is not text", why="it contains a null character")
    return text


def json_rows(text: str) -> list[Mapping[str, Any]]:
    """The objects of a JSON list, at least one.

    Raises:
        InputError: not such a list.
    """
    try:
        rows = json.loads(text, parse_constant=_refuse)
    except RecursionError as error:
        raise InputError("The JSON file is nested too deeply") from error
    except ValueError as error:
        raise InputError("This is not a JSON file", why=str(error)[:200]) from error
    if not isinstance(rows, list) or not rows:
        raise InputError(
            "The JSON file is not a list of prompts", fix="Give a list of objects, one per prompt"
        )
    _check_count(len(rows))
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise InputError(f"Row {number} is not an object", why=f"it is {str(row)[:60]!r}")
    return rows


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def csv_rows(text: str) -> list[Mapping[str, Any]]:
    """The rows of a CSV file by column name, at least one.

    Raises:
        InputError: not such a file.
    """
    header = text.lstrip().split("\n", 1)[0]
    delimiter = max(",;\t", key=header.count)
    reader = csv.DictReader(io.StringIO(text.lstrip()), delimiter=delimiter, strict=True)
    try:
        rows = list(_checked(reader))
    except csv.Error as error:
        raise InputError(f"Line {reader.line_num} is not CSV", why=str(error)) from error
    if not rows:
        raise InputError(
            "The CSV file has no rows", fix="Give column names in the first line, then one prompt per line"
        )
    return rows


def _checked(reader: "csv.DictReader[str]") -> Iterator[Mapping[str, Any]]:
    """Rows with as many cells as the header; blank lines are skipped by `csv` itself."""
    names = [str(name).strip() for name in reader.fieldnames or ()]
    if len(set(names)) < len(names):
        raise InputError("Two columns of the CSV file have the same name", why=", ".join(names)[:200])
    for number, row in enumerate(reader, start=1):
        _check_count(number)
        if None in row or None in row.values():
            raise InputError(
                f"Row {number} has {'more' if None in row else 'fewer'} cells than there are columns"
            )
        yield {str(name).strip(): value for name, value in row.items()}


def _check_count(count: int) -> None:
    if count > MAX_ROWS:
        raise InputError(f"The file has more than {MAX_ROWS:,} rows")


def _layout_of(row: Mapping[str, Any]) -> _Format:
    for layout in _FORMATS:
        if all(column in row for column in layout.required.values()):
            return layout
    known = "; or ".join(", ".join(layout.required.values()) for layout in _FORMATS)
    found = ", ".join(str(name) for name in list(row)[:12])
    raise InputError("The file's columns are not known", why=f"it has {found[:200]}", fix=f"Give {known}")


def _case(number: int, row: Mapping[str, Any], layout: _Format) -> Case:
    fields: dict[str, str | None] = {}
    for field, column in layout.required.items():
        fields[field] = _text(number, row, column)
        if not str(fields[field]).strip():
            raise InputError(f"Row {number}, column {column!r} is empty")
    for field, column in layout.optional.items():
        value = row.get(column)
        if value is not None and value != "":
            # Numbers are fine as names and relations (known_id is one), not as texts that a model reads.
            plain = isinstance(value, int) and not isinstance(value, bool) and field in ("name", "relation")
            fields[field] = str(value) if plain else _text(number, row, column)
    subject = fields.setdefault("subject", "")
    if subject and subject not in str(fields["prompt"]):
        column = layout.required["subject"]
        raise InputError(
            f"Row {number}, column {column!r}: {subject[:60]!r} is not in the prompt",
            why=f"the prompt is {str(fields['prompt'])[:120]!r}",
        )
    return Case(**fields)  # type: ignore[arg-type]  # required fields are text, checked above


def _text(number: int, row: Mapping[str, Any], column: str) -> str:
    if column not in row:
        raise InputError(f"Row {number} has no {column!r}")
    value = row[column]
    if not isinstance(value, str):
        raise InputError(f"Row {number}, column {column!r} is not text", why=f"it is {str(value)[:60]!r}")
    if len(value) > MAX_CASE_CHARACTERS:
        raise InputError(f"Row {number}, column {column!r} has more than {MAX_CASE_CHARACTERS:,} characters")
    return value
