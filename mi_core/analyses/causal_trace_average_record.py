"""An average of causal traces as a table and as JSON, and back."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from mi_core.analyses.causal_trace_average_inputs import ROLES, CausalTraceAverageInputs
from mi_core.analyses.causal_trace_average_types import CausalTraceAverageResult, SkippedCase, UsedCase
from mi_core.analyses.causal_trace_inputs import KINDS
from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.records import decode_array, dump_record, encode_array, load_record
from mi_core.errors import InputError
from mi_core.provenance import Provenance

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = "lantern/causal_trace_average"
VERSION = 1


def to_frame(result: CausalTraceAverageResult) -> "pd.DataFrame":
    """Tidy table: one row per kind, role and layer, then the total effect."""
    import pandas as pd  # only tables need it

    n_layers, prompts, tokens = result.n_layers, result.prompts_per_role(), result.tokens_per_role()
    parts = []
    for kind in result.sums:
        low, high = result.interval(kind)
        parts.append(
            pd.DataFrame(
                {
                    "kind": kind,
                    "role": np.repeat(np.array(ROLES, dtype=object), n_layers),
                    "layer": np.tile(np.arange(n_layers), len(ROLES)).astype(object),
                    "value": result.average(kind).ravel(),
                    "low": low.ravel(),
                    "high": high.ravel(),
                    "share": result.share(kind).ravel(),
                    "prompts": np.repeat(prompts, n_layers),
                    "tokens": np.repeat(tokens, n_layers),
                }
            )
        )
    low, high = result.total_effect_interval()
    total = {
        "kind": "total effect",
        "role": None,
        "layer": None,
        "value": result.total_effect,
        "low": low,
        "high": high,
    }
    parts.append(
        pd.DataFrame([{**total, "share": 1.0, "prompts": result.n_prompts, "tokens": result.n_prompts}])
    )
    frame = pd.concat(parts, ignore_index=True).astype({"layer": "Int64"})
    return frame.assign(metric=result.inputs.metric, unit=result.unit, pooling=result.inputs.pooling)


def to_json(result: CausalTraceAverageResult) -> str:
    """The whole result as JSON text."""
    fields: dict[str, Any] = {
        "inputs": result.inputs.to_dict(),
        "provenance": None if result.provenance is None else result.provenance.to_dict(),
        "n_layers": result.n_layers,
        "roles": list(ROLES),
        "unit": result.unit,
        "used": [{**asdict(case), "subject": list(case.subject)} for case in result.used],
        "skipped": [asdict(case) for case in result.skipped],
        "clean": encode_array(result.clean),
        "corrupted": encode_array(result.corrupted),
        "counts": encode_array(result.counts),
        "sums": {kind: encode_array(values) for kind, values in result.sums.items()},
        "warnings": list(result.warnings),
        "checks": [asdict(check) for check in result.checks],
        "seconds": result.seconds,
        "cancelled": result.cancelled,
    }
    return dump_record(SCHEMA, VERSION, fields)


def from_json(text: str | bytes) -> CausalTraceAverageResult:
    """The inverse of `to_json`.

    Raises:
        InputError: anything that `to_json` would not have written.
    """
    record = load_record(text, SCHEMA, VERSION)
    try:
        return _build(record)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise InputError(
            "The record of the average is damaged", why=f"{type(error).__name__}: {error}"
        ) from error


def _build(record: Mapping[str, Any]) -> CausalTraceAverageResult:
    used = tuple(
        UsedCase(
            int(c["index"]),
            int(c["n_tokens"]),
            (int(c["subject"][0]), int(c["subject"][1])),
            str(c["answer"]),
        )
        for c in record["used"]
    )
    n, n_layers, provenance = len(used), int(record["n_layers"]), record["provenance"]
    unknown = [kind for kind in record["sums"] if kind not in KINDS]
    if unknown or list(record["roles"]) != list(ROLES):
        raise InputError("The record of the average has other kinds or roles than this Lantern knows")
    return CausalTraceAverageResult(
        inputs=CausalTraceAverageInputs.from_dict(record["inputs"]),
        provenance=None if provenance is None else Provenance.from_dict(provenance),
        n_layers=n_layers,
        used=used,
        skipped=tuple(
            SkippedCase(int(c["index"]), str(c["reason"]), bool(c["wrong"])) for c in record["skipped"]
        ),
        clean=decode_array(record["clean"], "float64", (n,), "clean"),
        corrupted=decode_array(record["corrupted"], "float64", (n,), "corrupted"),
        counts=decode_array(record["counts"], "int64", (n, len(ROLES)), "counts"),
        sums={
            kind: decode_array(values, "float64", (n, len(ROLES), n_layers), kind)
            for kind, values in record["sums"].items()
        },
        warnings=tuple(str(warning) for warning in record["warnings"]),
        checks=tuple(Check(str(c["name"]), bool(c["passed"]), str(c["detail"])) for c in record["checks"]),
        seconds=float(record["seconds"]),
        cancelled=bool(record["cancelled"]),
    )
