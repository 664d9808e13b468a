"""Result files of other tools: JSON from strangers, read value by value and refused by name.

A file is hostile until proved otherwise: its size and the lengths of its lists are limited.
"""

import json
import math
from collections.abc import Mapping
from typing import Any

from mi_core.errors import InputError
from mi_core.tokens import Token, visible
from mi_core.transcoders.names import Feature

MAX_FILE_BYTES = 10_000_000
MAX_TOKENS = 10_000
MAX_TEXT = 100_000
MAX_NUMBER = 1e300


def load_object(data: bytes) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        InputError: too large, or something else.
    """
    if len(data) > MAX_FILE_BYTES:
        raise InputError("The file is too large", why=f"more than {MAX_FILE_BYTES:,} bytes")
    try:
        record = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InputError("This is not a JSON file", why=str(error)[:200]) from error
    if not isinstance(record, dict):
        raise InputError("The file is not a result of this experiment", why="it is no JSON object")
    return Strict(record)


class Strict(dict[str, Any]):
    """A record whose missing keys are told by name."""

    def __missing__(self, key: str) -> Any:
        raise InputError(f"The file has no {key!r}", fix="Give a result file of this experiment")


def text_of(record: Mapping[str, Any], key: str) -> str:
    """A text of limited length.

    Raises:
        InputError: it is something else.
    """
    value = record[key]
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        raise InputError(f"The file's {key!r} is no text, or endless")
    return value


def number_of(record: Mapping[str, Any], key: str) -> float:
    """A finite number.

    Raises:
        InputError: it is something else.
    """
    value = record[key]
    good = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not good or not -MAX_NUMBER <= value <= MAX_NUMBER:  # NaN is neither; a long whole number is no float
        raise InputError(f"The file's {key!r} is {str(value)[:40]!r}, no number that can be used")
    return float(value)


def list_of(record: Mapping[str, Any], key: str, limit: int = MAX_TOKENS) -> list[Any]:
    """A list of limited length.

    Raises:
        InputError: it is something else.
    """
    value = record[key]
    if not isinstance(value, list) or len(value) > limit:
        raise InputError(f"The file's {key!r} is no list, or has more than {limit:,} entries")
    return value


def feature_of(value: Any) -> Feature:
    """A feature from {layer, index}.

    Raises:
        InputError: it is something else.
    """
    layer, index = (value.get("layer"), value.get("index")) if isinstance(value, dict) else (None, None)
    for number in (layer, index):
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < 10**9:
            raise InputError(f"The file has {str(value)[:40]!r} where a feature should be")
    return Feature(int(layer or 0), int(index or 0))


def keys_of(feature: Feature) -> dict[str, int]:
    """The inverse of `feature_of`."""
    return {"layer": feature.layer, "index": feature.index}


def plain_token(result: Any, position: int) -> str:
    """A token's own characters; what is shown for it where it covers none."""
    token = result.tokens[position]
    return result.inputs.prompt[token.start : token.end] if token.end > token.start else token.visible


def known(value: float) -> float | None:
    """A finite number, or None."""
    return float(value) if math.isfinite(value) else None


def tokens_of(texts: list[str]) -> tuple[Token, ...]:
    """Tokens of which only the text is known."""
    return tuple(Token(i, -1, visible(text), 0, 0) for i, text in enumerate(texts))
