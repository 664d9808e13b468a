"""Prompt pairs from files that people have: CSV or JSON, checked row by row.

Columns prompt, counterfactual, answer, wrong; and roles, if there are any: "IO=Mary; S1=John; S2=John#2",
each a word of the prompt (#2 = its second time). Size, rows and characters are limited as for prompt sets.
"""

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from mi_core.analyses.task_inputs import PairText
from mi_core.errors import InputError
from mi_core.importers.prompt_files import MAX_FILE_BYTES, csv_rows, decode_text, json_rows

REQUIRED = ("prompt", "counterfactual", "answer", "wrong")
MAX_ROLES = 8
MAX_ROLE_CHARACTERS = 200


def read_pair_file(data: bytes, file_name: str = "") -> tuple[PairText, ...]:
    """Read uploaded pairs.

    Args:
        data: content of the file.
        file_name: its name; ".json" or ".csv" decides the format, otherwise the first character does.

    Raises:
        InputError: too big, not text, a column is missing, or a row does not fit, named by its number.
    """
    if len(data) > MAX_FILE_BYTES:
        raise InputError(f"The file has {len(data):,} bytes", fix=f"Give at most {MAX_FILE_BYTES:,}")
    text, ending = decode_text(data), PurePath(file_name).suffix.lower()
    is_json = ending == ".json" or (ending != ".csv" and text.lstrip()[:1] in ("[", "{"))
    rows = json_rows(text) if is_json else csv_rows(text)
    missing = [name for name in REQUIRED if name not in rows[0]]
    if missing:
        raise InputError(f"The file has no column {missing[0]!r}", fix=f"Give {', '.join(REQUIRED)}")
    return tuple(_pair(number, row) for number, row in enumerate(rows, start=1))


def _pair(number: int, row: Mapping[str, Any]) -> PairText:
    texts = {name: row.get(name) for name in REQUIRED}
    bad = [name for name, value in texts.items() if not isinstance(value, str) or not value.strip()]
    if bad:
        raise InputError(f"Row {number}, column {bad[0]!r} is not text, or empty")
    try:
        return PairText(**texts, roles=_roles(row.get("roles") or ""))  # type: ignore[arg-type]  # texts, see above
    except InputError as error:
        raise InputError(f"Row {number}: {error.what}", why=error.why) from error


def _roles(raw: Any) -> tuple[tuple[str, str], ...]:
    if not isinstance(raw, str) or len(raw) > MAX_ROLE_CHARACTERS:
        raise InputError("the roles are not text, or too long")
    found = []
    for part in filter(None, (one.strip() for one in raw.split(";"))):
        name, sign, word = (piece.strip() for piece in part.partition("="))
        if not (name and sign and word):
            raise InputError(f"the role {part[:40]!r} is not written like IO=Mary")
        found.append((name, word))
    if len(found) > MAX_ROLES or len({name for name, _ in found}) < len(found):
        raise InputError(f"there are more than {MAX_ROLES} roles, or one stands twice")
    return tuple(found)
