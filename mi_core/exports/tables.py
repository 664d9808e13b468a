"""The numbers of a figure as CSV and as JSON."""

import json
from typing import TYPE_CHECKING

from mi_core.exports.figure import Figure

if TYPE_CHECKING:
    import pandas as pd

_ORIGIN = (
    "model",
    "revision",
    "fingerprint",
    "dtype",
    "device",
    "attention",
    "seed",
    "lantern_version",
    "created",
)
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def csv(figure: Figure) -> bytes:
    """Tidy CSV in UTF-8: one row per number, units in a column, where it comes from in the last columns.

    Numbers are written with all their digits. A text that a spreadsheet would run as a formula, such as a
    token `=`, gets an apostrophe in front, as spreadsheets themselves write it.
    """
    table = figure.frame().copy()
    for name in table.columns:
        if table[name].dtype == object or str(table[name].dtype) in ("str", "string"):
            table[name] = table[name].map(_harmless, na_action="ignore")
    if figure.provenance is not None:
        origin = figure.provenance.to_dict()
        for name in _ORIGIN:
            table[name] = _harmless(origin[name]) if origin[name] is not None else ""
    return table.to_csv(index=False, lineterminator="\n").encode("utf-8", errors="replace")


def _harmless(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA_STARTS) else value


def result_json(figure: Figure) -> bytes:
    """The record of the figure with the whole result under "result" and the drawing under "spec"."""
    record = figure.record_json()[:-1]  # without the closing brace
    spec = json.dumps(dict(figure.spec), allow_nan=False)
    text = f'{record},"result":{figure.result_json()},"spec":{spec}}}'
    return text.encode("utf-8", errors="surrogatepass")


def frame_from_csv(data: bytes) -> "pd.DataFrame":
    """Read back what `csv` wrote, texts included."""
    import io

    import pandas as pd

    table = pd.read_csv(io.BytesIO(data), keep_default_na=True)
    for name in table.columns:
        if str(table[name].dtype) in ("object", "str", "string"):
            table[name] = table[name].map(_original, na_action="ignore")
    return table


def _original(value: object) -> object:
    if isinstance(value, str) and value[:1] == "'" and value[1:].startswith(_FORMULA_STARTS):
        return value[1:]
    return value
