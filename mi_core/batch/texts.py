"""The set of texts that comes with Lantern: code, arithmetic, verse, facts, chat."""

import json
from functools import cache
from pathlib import Path

from mi_core.analyses.texts import Text, TextSet
from mi_core.errors import InputError

DIVERSE = Path(__file__).resolve().parents[2] / "assets" / "texts" / "diverse.json"


@cache
def bundled_texts() -> TextSet:
    """Lantern's own diverse texts: code, arithmetic, verse, facts and chat, a few in other scripts.

    Raises:
        InputError: the file is not there, as in an installation without the assets folder.
    """
    try:
        record = json.loads(DIVERSE.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            "The bundled texts are missing",
            why=str(error),
            fix="Run Lantern from its repository, or upload a set of texts",
        ) from error
    texts = tuple(Text(entry["category"], entry["text"]) for entry in record["texts"])
    return TextSet(record["name"], texts, record["note"])
