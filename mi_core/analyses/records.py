"""Results as JSON: how every analysis writes its arrays and reads them back, exactly and without NaN.

A record is `{"schema": name, "version": n, ...}`. Arrays are nested lists; a number that does not exist is
`null`, never NaN, which is not JSON. float32 numbers are written with the nine digits that bring the same
float32 back.
"""

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from mi_core.errors import InputError

MAX_RECORD_BYTES = 200_000_000  # a 48-layer, 60-token trace of six kinds and ten samples has about 60 MB


def encode_array(array: np.ndarray) -> Any:
    """Nested lists for JSON; NaN and infinities become None.

    Args:
        array: float, integer or boolean array of any shape.

    Returns:
        Nested lists (a plain number for shape `()`).
    """
    if array.dtype.kind != "f":
        return array.tolist()
    digits = "%.9g" if array.dtype == np.float32 else "%.17g"
    flat = [float(digits % number) if math.isfinite(number) else None for number in array.ravel().tolist()]
    return _nest(flat, array.shape)


def _nest(flat: list[Any], shape: tuple[int, ...]) -> Any:
    """The inverse of ravel for lists."""
    if not shape:
        return flat[0]
    for size in reversed(shape[1:]):
        # With an axis of length 0 there is nothing to group; numpy reads the shape back from the record.
        flat = [flat[i : i + size] for i in range(0, len(flat), size)] if size else []
    return flat


def decode_array(value: Any, dtype: str, shape: tuple[int, ...], name: str) -> np.ndarray:
    """An array from nested lists, refused unless it has the shape that the record promises.

    Args:
        value: what `encode_array` wrote.
        dtype: numpy type to read it as; only float types may contain None (read as NaN).
        shape: expected shape.
        name: what to call it in an error.

    Returns:
        A fresh array of that type and shape.

    Raises:
        InputError: ragged lists, text, or another shape.
    """
    try:
        array = np.array(value, dtype=dtype)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"The record's '{name}' is not an array of {dtype}", why=str(error)) from error
    if array.size == 0 and math.prod(shape) == 0:
        array = array.reshape(shape)
    if array.shape != tuple(shape):
        raise InputError(f"The record's '{name}' has shape {array.shape}, expected {tuple(shape)}")
    return array


def dump_record(schema: str, version: int, fields: Mapping[str, Any]) -> str:
    """JSON text of a record.

    Args:
        schema: name, for example "lantern/causal_trace".
        version: of the schema.
        fields: plain JSON values; a tensor or NaN in them is a mistake and raises.
    """
    return json.dumps({"schema": schema, "version": version, **fields}, allow_nan=False, ensure_ascii=False)


def load_record(text: str | bytes, schema: str, version: int) -> dict[str, Any]:
    """Parse a record and check that it is of the schema and version asked for.

    Args:
        text: JSON.
        schema: expected name.
        version: newest version that the caller can read.

    Returns:
        The record's fields.

    Raises:
        InputError: not JSON, too big, another schema, or a newer version.
    """
    if len(text) > MAX_RECORD_BYTES:
        raise InputError(f"The file is larger than {MAX_RECORD_BYTES // 1_000_000} MB")
    try:
        record = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise InputError("This is not a JSON file", why=str(error)) from error
    if not isinstance(record, dict) or record.get("schema") != schema:
        found = record.get("schema") if isinstance(record, dict) else None
        raise InputError(f"This file is not a {schema} record", why=f"its schema is {found!r}")
    if not isinstance(record.get("version"), int) or record["version"] > version:
        raise InputError(
            f"This record has version {record.get('version')!r} of {schema}",
            why=f"this Lantern reads up to version {version}",
            fix="Open it with a newer Lantern",
        )
    return record


def _refuse_constant(name: str) -> Any:
    """`NaN` and `Infinity` are Python's extension of JSON."""
    raise ValueError(f"{name} is not JSON")
