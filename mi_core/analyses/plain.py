"""What every analysis needs to write its Inputs and the small parts of its Result as plain JSON, and back.

A record may come from a stranger: values are checked against the annotations of the Inputs' fields before
the Inputs are made, and a damaged record is one `InputError`, whatever is wrong in it.
"""

import math
import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, Field, asdict, fields, is_dataclass
from typing import (
    Any,
    Literal,
    TypeVar,
    Union,  # noqa: TID251  # what `Literal[..] | None` is at run time
    get_args,
    get_origin,
    get_type_hints,
)

import numpy as np

from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.records import encode_array
from mi_core.errors import InputError
from mi_core.provenance import Provenance
from mi_core.tokens import Token

Inputs = TypeVar("Inputs")


def inputs_to_dict(inputs: Any) -> dict[str, Any]:
    """Plain JSON values of a frozen dataclass, one per field; tuples become lists."""
    return {field.name: _plain(getattr(inputs, field.name)) for field in fields(inputs)}


def _plain(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return [_plain(one) for one in value]
    if is_dataclass(value) and not isinstance(value, type):
        return inputs_to_dict(value)
    return value


def inputs_from_dict(kind: type[Inputs], values: Mapping[str, Any], what: str) -> Inputs:
    """The inverse of `inputs_to_dict`.

    Args:
        kind: the dataclass.
        values: from JSON.
        what: what is described, for the error: "attribution".

    Raises:
        InputError: an unknown or a missing field, a value of another type than the field's, or one that
            the dataclass itself refuses.
    """
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]  # any frozen dataclass
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise InputError(f"The {what}'s description has unknown fields {unknown}")
    missing = [name for name, field in known.items() if name not in values and _required(field)]
    if missing:
        raise InputError(f"The {what}'s description has no {missing[0].replace('_', ' ')}")
    hints = get_type_hints(kind)
    made = {}
    for name, value in values.items():
        made[name] = _typed(value, hints[name])
        if not fits(made[name], hints[name]):
            raise InputError(f"The {what}'s {name.replace('_', ' ')} cannot be {str(value)[:80]!r}")
    return kind(**made)


def _required(field: "Field[Any]") -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _typed(value: Any, hint: Any) -> Any:
    """A JSON value with its lists as tuples and its objects as the dataclasses that the hint names."""
    if get_origin(hint) in (Union, types.UnionType):
        return next((made for one in get_args(hint) if fits(made := _typed(value, one), one)), value)
    if get_origin(hint) is tuple and isinstance(value, list):
        kinds = _kinds(hint, len(value))
        if len(kinds) == len(value):
            return tuple(_typed(one, kind) for one, kind in zip(value, kinds, strict=True))
    if is_dataclass(hint) and isinstance(hint, type) and isinstance(value, Mapping):
        return inputs_from_dict(hint, value, hint.__name__.lower())
    return value


def _kinds(hint: Any, count: int) -> tuple[Any, ...]:
    """The types of a tuple's items, as its annotation says."""
    kinds = get_args(hint)
    return (kinds[0],) * count if len(kinds) == 2 and kinds[1] is Ellipsis else kinds


def fits(value: Any, hint: Any) -> bool:
    """Whether a value has the type of an annotation as frozen Inputs use them.

    Whole numbers fit `float`, truth values do not fit `int`, and no number that is not finite fits anything.
    """
    origin = get_origin(hint)
    if origin is Literal:
        return any(value == option and type(value) is type(option) for option in get_args(hint))
    if origin in (Union, types.UnionType):
        return any(fits(value, one) for one in get_args(hint))
    if origin is tuple:
        kinds = _kinds(hint, len(value)) if isinstance(value, tuple) else ()
        return isinstance(value, tuple) and len(kinds) == len(value) and all(map(fits, value, kinds))
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return value is None if hint in (None, type(None)) else isinstance(value, hint)


# --- what Inputs refuse ---


def check_choice(name: str, value: object, choices: tuple[Any, ...]) -> None:
    """Refuse what is none of a few values.

    Raises:
        InputError: naming the choices.
    """
    if value not in choices:
        raise InputError(f"{name} is {value!r:.60}", fix=f"Choose one of {', '.join(map(str, choices))}")


def check_whole(name: str, value: object, low: int, high: int) -> None:
    """Refuse what is no whole number between two bounds (inclusive).

    Raises:
        InputError: naming the bounds.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InputError(f"The {name} is {value!r:.40}", fix=f"Give a whole number from {low:,} to {high:,}")


def check_text(name: str, value: object, limit: int, fix: str = "") -> None:
    """Refuse what is no text, empty, or longer than a limit.

    Raises:
        InputError: saying which.
    """
    if not isinstance(value, str) or not value:
        raise InputError(f"The {name} is empty", fix=fix)
    if len(value) > limit:
        raise InputError(f"The {name} has more than {limit:,} characters")
    if any("\ud800" <= letter <= "\udfff" for letter in value):  # bytes of a command line that are no UTF-8
        raise InputError(f"The {name} is no valid text", why="it has half a character in it", fix=fix)


# --- small parts of a Result ---


def token_from(record: Mapping[str, Any]) -> Token:
    """A token from its fields."""
    return Token(
        position=int(record["position"]),
        id=int(record["id"]),
        visible=str(record["visible"]),
        start=int(record["start"]),
        end=int(record["end"]),
        special=bool(record["special"]),
    )


def tokens_from(records: Any) -> tuple[Token, ...]:
    """Tokens from a list of their fields."""
    return tuple(token_from(record) for record in records)


def checks_from(records: Any) -> tuple[Check, ...]:
    """Checks from a list of their fields."""
    return tuple(Check(str(one["name"]), bool(one["passed"]), str(one["detail"])) for one in records)


def texts_from(values: Any) -> tuple[str, ...]:
    """Texts from a list."""
    return tuple(str(value) for value in values)


def provenance_from(record: Any) -> Provenance | None:
    """Provenance from its fields, or None."""
    return None if record is None else Provenance.from_dict(record)


def result_to_dict(result: Any) -> dict[str, Any]:
    """Plain JSON values of a flat Result, one per field: Inputs, provenance, arrays, checks, numbers."""
    values = {field.name: getattr(result, field.name) for field in fields(result)}
    return {
        name: encode_array(value) if isinstance(value, np.ndarray) else _plain(value)
        for name, value in values.items()
    }


def outcome(result: Any) -> dict[str, Any]:
    """What ends every record: warnings, checks, duration, and whether it was stopped."""
    return {
        "warnings": list(result.warnings),
        "checks": [asdict(check) for check in result.checks],
        "seconds": result.seconds,
        "cancelled": result.cancelled,
    }


def outcome_from(record: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `outcome`, as arguments of a Result."""
    return {
        "warnings": texts_from(record["warnings"]),
        "checks": checks_from(record["checks"]),
        "seconds": float(record["seconds"]),
        "cancelled": bool(record["cancelled"]),
    }


@contextmanager
def damage_told(what: str) -> Iterator[None]:
    """Turn whatever a damaged record makes Python say into one `InputError`.

    Args:
        what: the record, for the error: "attribution".
    """
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise InputError(
            f"The {what} record is damaged", why=f"{type(error).__name__}: {error}"[:300]
        ) from error
