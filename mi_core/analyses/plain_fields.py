"""Flat dataclasses of plain values read back from JSON, every field checked against its declared type."""

from collections.abc import Mapping
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints


def from_plain(kind: Any, values: Mapping[str, Any]) -> Any:
    """Make a dataclass from what `dataclasses.asdict` and JSON made of it.

    Args:
        kind: a dataclass whose fields are texts, numbers, booleans, Literals, tuples or options of such.
        values: one value per field.

    Raises:
        ValueError: missing or unknown fields, or a value of another type.
    """
    types = get_type_hints(kind)
    if set(values) != set(types):
        raise ValueError(f"fields of {kind.__name__} are {sorted(values)}")
    read = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    for name, value in read.items():
        if not _fits(value, types[name]):
            raise ValueError(f"{name} of {kind.__name__} is {value!r:.40}")
    return kind(**read)


def _fits(value: Any, declared: Any) -> bool:
    """Whether a JSON value has a declared type: plain, optional, a Literal, or a tuple of such."""
    origin, inside = get_origin(declared), get_args(declared)
    if origin is Literal:
        return value in inside
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(one, inside[0]) for one in value)
    if origin is UnionType:
        return any(_fits(value, one) for one in inside)
    if declared is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return isinstance(value, declared) and not (declared is int and isinstance(value, bool))
