"""Reading the record out of a file that was exported here, to open the same view again.

Files come from strangers. Nothing is executed or expanded: no XML parser, no pickle, no links; the record
is found as text, must be JSON of bounded size, and must be a record of ours.
"""

import json
from dataclasses import dataclass
from html import unescape
from typing import Any

from mi_core.errors import InputError
from mi_core.exports import offline_html, pdf, png, vector
from mi_core.exports.figure import SCHEMA, VERSION
from mi_core.provenance import Provenance

MAX_FILE_BYTES = 200_000_000
MAX_RECORD_CHARACTERS = 1_000_000


@dataclass(frozen=True, slots=True)
class Embedded:
    """What a file says about the figure in it.

    Attributes:
        analysis: which analysis, such as "causal_trace".
        title: of the figure.
        caption: of the figure.
        inputs: what was asked for; checked by the analysis' own `from_dict`.
        view: how it was shown.
        provenance: of the numbers, or None.
        result_json: the whole result, where the file has it (JSON, small HTML).
    """

    analysis: str
    title: str
    caption: str
    inputs: dict[str, Any]
    view: dict[str, Any]
    provenance: Provenance | None
    result_json: str | None = None


def read_provenance(data: bytes) -> Embedded:
    """Read the record from a PNG, SVG, PDF, HTML or JSON file.

    Args:
        data: the file's bytes.

    Raises:
        InputError: too large, of another kind, damaged, without a record, or with one of an unknown version.
    """
    if len(data) > MAX_FILE_BYTES:
        raise InputError(f"The file is larger than {MAX_FILE_BYTES // 1_000_000} MB")
    text, result = _record_text(data)
    if len(text) > MAX_RECORD_CHARACTERS:
        raise InputError("The file's record is too large")
    return _embedded(_object(text), result)


def _record_text(data: bytes) -> tuple[str, str | None]:
    """JSON text of the record, and of the result where there is one."""
    start = data[:2000].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if data.startswith(png.SIGNATURE):
        return _from_png(data), None
    if start.startswith(b"%pdf-"):
        return pdf.record_of(data), None
    if start.startswith((b"<!doctype html", b"<html")):
        return offline_html.record_of(data), offline_html.result_of(data)
    if start.startswith((b"<svg", b"<?xml")):
        return _from_svg(data), None
    if start.startswith(b"{"):
        return _from_json(data)
    raise InputError(
        "This is no figure file", fix="Give a PNG, SVG, PDF, HTML or JSON file that was exported here"
    )


def _from_png(data: bytes) -> str:
    found = png.texts(data).get(png.RECORD_KEY)
    if found is None:
        raise InputError(
            "This PNG says nothing about where it comes from",
            why="it was not made here, or another program has saved it since",
        )
    return found


def _from_svg(data: bytes) -> str:
    text = data.decode("utf-8", errors="replace")
    mark = text.find(f'id="{vector.RECORD_ID}"')
    start, end = text.find(">", mark), text.find("</metadata>", mark)
    if mark < 0 or not mark < start < end:
        raise InputError(
            "This SVG says nothing about where it comes from",
            why="it was not made here, or another program has saved it since",
        )
    return unescape(text[start + 1 : end])


def _from_json(data: bytes) -> tuple[str, str | None]:
    whole = _object(data.decode("utf-8", errors="replace"))
    if whole.get("schema") != SCHEMA:
        raise InputError(
            "This JSON file is no figure of ours", why=f"its schema is {str(whole.get('schema'))[:60]!r}"
        )
    result = whole.pop("result", None)
    whole.pop("spec", None)
    return json.dumps(whole), None if result is None else json.dumps(result, ensure_ascii=False)


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise InputError("The file's record is damaged", why="it is not JSON") from error
    if not isinstance(value, dict):
        raise InputError("The file's record is damaged", why="it is not an object")
    return value


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _embedded(record: dict[str, Any], result: str | None) -> Embedded:
    if record.get("schema") != SCHEMA:
        raise InputError(
            "The file's record is of another kind", why=f"schema {str(record.get('schema'))[:60]!r}"
        )
    if record.get("version") != VERSION:
        theirs = str(record.get("version"))[:20]
        raise InputError(
            "The file's record is of another version",
            why=f"version {theirs}; this program reads {VERSION}",
            fix="Update Lantern",
        )
    origin = record.get("provenance")
    return Embedded(
        analysis=_text(record, "analysis"),
        title=_text(record, "title"),
        caption=_text(record, "caption"),
        inputs=_fields(record, "inputs"),
        view=_fields(record, "view"),
        provenance=None if origin is None else Provenance.from_dict(origin),
        result_json=result,
    )


def _text(record: dict[str, Any], name: str) -> str:
    value = record.get(name)
    if not isinstance(value, str):
        raise InputError("The file's record is damaged", why=f"its {name} is no text")
    return value


def _fields(record: dict[str, Any], name: str) -> dict[str, Any]:
    value = record.get(name)
    if not isinstance(value, dict):
        raise InputError("The file's record is damaged", why=f"its {name} is no object")
    return value
