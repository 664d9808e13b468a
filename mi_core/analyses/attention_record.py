"""Attention as a table and as JSON, and back. Called through the methods of `AttentionResult`."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from mi_core.analyses.attention_inputs import HEAD_METRICS, METRIC_NAMES, AttentionInputs
from mi_core.analyses.attention_result import AttentionResult, Side
from mi_core.analyses.causal_trace_parts import AnswerTokens
from mi_core.analyses.plain import checks_from, damage_told, provenance_from, texts_from, tokens_from
from mi_core.analyses.records import decode_array, dump_record, encode_array, load_record
from mi_core.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

SCHEMA, VERSION = "lantern/attention", 1

MAX_WRITTEN = 12_000_000
"""Numbers in a record; 12 layers of 12 heads with a window of 256 tokens have 9.4 million."""

ARRAYS = ("values", "outside", "metrics", "masked_metrics")
_DTYPES = {"values": "float32", "outside": "float32", "metrics": "float64", "masked_metrics": "float64"}


def to_frame(result: AttentionResult) -> "pd.DataFrame":
    """Tidy table of the numbers per head."""
    import pandas as pd

    parts = []
    sides: tuple[Side, ...] = ("a", "b") if result.compared else ("a",)
    for side in sides:
        for masked in (False, True):
            for metric in HEAD_METRICS:
                numbers = result.metric(metric.name, side, mask_first=masked)
                layers, heads = np.indices(numbers.shape).reshape(2, -1)
                parts.append(
                    pd.DataFrame(
                        {
                            "prompt": side.upper(),
                            "layer": layers,
                            "head": heads,
                            "metric": metric.name,
                            "value": numbers.ravel(),
                            "unit": metric.unit,
                            "first_token_masked": masked,
                        }
                    )
                )
    return pd.concat(parts, ignore_index=True)


def to_json(result: AttentionResult) -> str:
    """The whole result as JSON text."""
    count = result.values.size * (2 if result.compared else 1)
    if count > MAX_WRITTEN:
        raise InputError(
            f"The patterns have {count / 1e6:,.0f} million numbers, too many for a JSON file",
            fix="Choose a smaller window or a shorter prompt, or take one head's table",
        )
    arrays = {name: encode_array(getattr(result, name)) for name in ARRAYS}
    if result.compared:
        arrays |= {f"second_{name}": encode_array(getattr(result, f"second_{name}")) for name in ARRAYS}
    fields: dict[str, Any] = {
        "inputs": result.inputs.to_dict(),
        "provenance": None if result.provenance is None else result.provenance.to_dict(),
        "tokens": [asdict(token) for token in result.tokens],
        "second_tokens": [asdict(token) for token in result.second_tokens],
        "window": list(result.window),
        "n_layers": result.n_layers,
        "n_heads": result.n_heads,
        "answer": None if result.answer is None else asdict(result.answer),
        "distractor": None if result.distractor is None else asdict(result.distractor),
        "unit": result.unit,
        "metric_names": list(METRIC_NAMES),
        "metric_units": [metric.unit for metric in HEAD_METRICS],
        **arrays,
        "warnings": list(result.warnings),
        "checks": [asdict(check) for check in result.checks],
        "seconds": result.seconds,
        "cancelled": result.cancelled,
    }
    return dump_record(SCHEMA, VERSION, fields)


def from_json(text: str | bytes) -> AttentionResult:
    """The inverse of `to_json`.

    Raises:
        InputError: anything that `to_json` would not have written.
    """
    record = load_record(text, SCHEMA, VERSION)
    with damage_told("attention"):
        return _build(record)


def _build(record: Mapping[str, Any]) -> AttentionResult:
    if record["metric_names"] != list(METRIC_NAMES):
        raise InputError("The record has other numbers per head than this Lantern")
    start, end = (int(position) for position in record["window"])
    layers, heads, size = int(record["n_layers"]), int(record["n_heads"]), end - start
    shapes = {
        "values": (layers, heads, size, size),
        "outside": (layers, heads, size),
        "metrics": (len(METRIC_NAMES), layers, heads),
        "masked_metrics": (len(METRIC_NAMES), layers, heads),
    }
    prefixes = ("", "second_") if record["second_tokens"] else ("",)
    arrays: dict[str, Any] = {
        prefix + name: decode_array(record[prefix + name], _DTYPES[name], shapes[name], prefix + name)
        for prefix in prefixes
        for name in ARRAYS
    }
    return AttentionResult(
        inputs=AttentionInputs.from_dict(record["inputs"]),
        provenance=provenance_from(record["provenance"]),
        tokens=tokens_from(record["tokens"]),
        second_tokens=tokens_from(record["second_tokens"]),
        window=(start, end),
        answer=_answer(record["answer"]),
        distractor=_answer(record["distractor"]),
        **arrays,
        warnings=texts_from(record["warnings"]),
        checks=checks_from(record["checks"]),
        seconds=float(record["seconds"]),
        cancelled=bool(record["cancelled"]),
    )


def _answer(fields: Mapping[str, Any] | None) -> AnswerTokens | None:
    if fields is None:
        return None
    if fields["chosen_by"] not in ("user", "clean run"):
        raise ValueError(f"chosen by {fields['chosen_by']!r:.60}")
    return AnswerTokens(
        text=str(fields["text"]),
        ids=tuple(int(token_id) for token_id in fields["ids"]),
        visible=tuple(str(text) for text in fields["visible"]),
        chosen_by=fields["chosen_by"],
        joint=bool(fields["joint"]),
    )
