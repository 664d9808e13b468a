"""Sets of texts from files that people have: plain text, CSV or JSON, checked text by text.

    .txt     paragraphs, separated by blank lines; all of one kind, "text"
    .csv     a column text, and a column category if there are kinds
    .json    a list of strings, or of objects with text and, if there are kinds, category

A file is hostile until proved otherwise: its size and its number of texts are limited, nothing in it is
evaluated, and the first thing that does not fit is told with its row.
"""

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

from mi_core.analyses.texts import MAX_TEXTS, Text, TextSet
from mi_core.errors import InputError

MAX_FILE_BYTES = 10_000_000
MAX_NAME = 80
ONE_KIND = "text"


def read_text_file(data: bytes, file_name: str = "") -> TextSet:
    """Read an uploaded set of texts.

    Args:
        data: content of the file.
        file_name: its name; ".json" and ".csv" decide the format, everything else is plain text.

    Returns:
        The texts, with the file's name.

    Raises:
        InputError: too big, not text, or a text that does not fit, named with its row.
    """
    if len(data) > MAX_FILE_BYTES:
        raise InputError(f"The file has {len(data):,} bytes", fix=f"Give at most {MAX_FILE_BYTES:,}")
    content, ending = _decode(data), PurePath(file_name).suffix.lower()
    read = {".json": _json_texts, ".csv": _csv_texts}.get(ending, _paragraphs)
    texts = []
    for text in read(content):
        texts.append(text)
        if len(texts) > MAX_TEXTS:
            raise InputError(f"The file has more than {MAX_TEXTS:,} texts")
    name = "".join(c for c in PurePath(file_name).name if c.isprintable())[:MAX_NAME] or "uploaded texts"
    return TextSet(name, tuple(texts), f"{len(texts)} texts")


def _decode(data: bytes) -> str:
    try:
        content = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            "The file is not UTF-8 text",
            why=f"byte {error.start} is {data[error.start]:#04x}",
            fix="Save it as UTF-8",
        ) from error
    if not content.strip():
        raise InputError("The file is empty")
    if "\0" in content:
        raise InputError("The file is not text", why="it contains a null character")
    return content.replace("\r\n", "\n")


def _paragraphs(content: str) -> Iterator[Text]:
    for number, part in enumerate(re.split(r"\n[ \t]*\n", content), start=1):
        if part.strip():
            yield _text(number, ONE_KIND, part.strip("\n"))


def _json_texts(content: str) -> Iterator[Text]:
    try:
        rows = json.loads(content, parse_constant=_refuse)
    except RecursionError as error:
        raise InputError("The JSON file is nested too deeply") from error
    except ValueError as error:
        raise InputError("This is not a JSON file", why=str(error)[:200]) from error
    if not isinstance(rows, list) or not rows:
        raise InputError("The JSON file is not a list of texts", fix="Give a list of strings or objects")
    for number, row in enumerate(rows, start=1):
        if isinstance(row, dict):
            yield _row(number, row)
        else:
            yield _text(number, ONE_KIND, row)


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _csv_texts(content: str) -> Iterator[Text]:
    header = content.lstrip().split("\n", 1)[0]
    delimiter = max(",;\t", key=header.count)
    reader = csv.DictReader(io.StringIO(content.lstrip()), delimiter=delimiter, strict=True)
    number = 0
    try:
        for number, row in enumerate(reader, start=1):
            if None in row or None in row.values():
                raise InputError(f"Row {number} has another number of cells than the first line")
            yield _row(number, {str(name).strip(): value for name, value in row.items()})
    except csv.Error as error:
        raise InputError(f"Line {reader.line_num} is not CSV", why=str(error)) from error
    if not number:
        raise InputError("The CSV file has no rows", fix="Give column names in the first line")


def _row(number: int, row: Mapping[str, Any]) -> Text:
    if "text" not in row:
        found = ", ".join(str(name) for name in list(row)[:12])
        raise InputError(
            f"Row {number} has no 'text'", why=f"it has {found[:200]}", fix="Name the column text"
        )
    return _text(number, row.get("category", ONE_KIND), row["text"])


def _text(number: int, category: Any, text: Any) -> Text:
    try:
        return Text(category.strip() if isinstance(category, str) else category, text)
    except InputError as error:
        raise InputError(f"Row {number}: {error.what}", why=error.why) from error
