"""Attribution patching as a table and as JSON, and back. Called through the result's methods."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from mi_core.analyses.attribution_patching_result import ESTIMATED_KINDS, AttributionPatchingResult
from mi_core.analyses.causal_trace_inputs import METRICS, CausalTraceInputs, Kind
from mi_core.analyses.causal_trace_parts import AnswerTokens
from mi_core.analyses.plain import checks_from, damage_told, provenance_from, texts_from, tokens_from
from mi_core.analyses.records import decode_array, dump_record, encode_array, load_record

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = "lantern/attribution_patching"
VERSION = 1


def to_frame(result: AttributionPatchingResult) -> "pd.DataFrame":
    """Tidy table: one row per number, the two runs first."""
    import pandas as pd  # a third of a second; only tables need it

    runs = [
        {
            "kind": f"{run} run", "position": None, "head": None, "token": None, "layer": None,
            "metric": metric, "value": result.value(run, metric), "effect": np.nan,
            "unit": METRICS[metric].unit, "samples": result.n_samples if run == "corrupted" else 1,
        }
        for run in ("clean", "corrupted")
        for metric in result.all_metrics
    ]  # fmt: skip
    cells = [
        row for kind in result.kinds for metric in result.all_metrics for row in _cells(result, kind, metric)
    ]
    frame = pd.DataFrame([*runs, *cells])
    return frame.astype({"position": "Int64", "head": "Int64", "layer": "Int64"})


def _cells(result: AttributionPatchingResult, kind: Kind, metric: str) -> list[dict[str, Any]]:
    grid, effect = result.grid(kind, metric), result.effect(kind, metric)
    shared = {
        "kind": kind,
        "metric": metric,
        "unit": METRICS[metric].unit,
        "samples": result.n_samples,
    }
    return [
        {
            **_row(result, kind, row), "layer": layer, **shared,
            "value": float(grid[row, layer]), "effect": float(effect[row, layer]),
        }
        for row in range(grid.shape[0])
        for layer in range(result.n_layers)
    ]  # fmt: skip


def _row(result: AttributionPatchingResult, kind: Kind, row: int) -> dict[str, Any]:
    """Where a row of a grid is."""
    position = result.inputs.head_position if kind == "head" else result.rows[row]
    token = None if position is None else result.tokens[position].visible
    return {"position": position, "head": row if kind == "head" else None, "token": token}


def to_json(result: AttributionPatchingResult) -> str:
    """The whole result as JSON text."""
    arrays = {kind: getattr(result, kind) for kind in ESTIMATED_KINDS}
    fields: dict[str, Any] = {
        "inputs": result.inputs.to_dict(),
        "provenance": None if result.provenance is None else result.provenance.to_dict(),
        "tokens": [asdict(token) for token in result.tokens],
        "subject": list(result.subject),
        "first_difference": result.first_difference,
        "n_layers": result.n_layers,
        "answer": asdict(result.answer),
        "distractor": None if result.distractor is None else asdict(result.distractor),
        "metrics": list(result.metrics),
        "units": {metric: METRICS[metric].unit for metric in result.metrics},
        "rows": list(result.rows),
        "clean": encode_array(result.clean),
        "corrupted": encode_array(result.corrupted),
        **{kind: None if array is None else encode_array(array) for kind, array in arrays.items()},
        "n_heads": 0 if result.head is None else result.head.shape[1],
        "n_samples": result.n_samples,
        "warnings": list(result.warnings),
        "checks": [asdict(check) for check in result.checks],
        "seconds": result.seconds,
        "cancelled": result.cancelled,
    }
    return dump_record(SCHEMA, VERSION, fields)


def from_json(text: str | bytes) -> AttributionPatchingResult:
    """The inverse of `to_json`.

    Raises:
        InputError: anything that `to_json` would not have written.
    """
    record = load_record(text, SCHEMA, VERSION)
    with damage_told("attribution-patching"):
        return _build(record)


def _build(record: Mapping[str, Any]) -> AttributionPatchingResult:
    metrics, rows = texts_from(record["metrics"]), tuple(int(row) for row in record["rows"])
    n_layers, distractor = int(record["n_layers"]), record["distractor"]
    start, end = record["subject"]

    def array(kind: Kind) -> np.ndarray | None:
        size = int(record["n_heads"]) if kind == "head" else len(rows)
        shape = (len(metrics), size, n_layers)
        return None if record[kind] is None else decode_array(record[kind], "float64", shape, kind)

    return AttributionPatchingResult(
        inputs=CausalTraceInputs.from_dict(record["inputs"]),
        provenance=provenance_from(record["provenance"]),
        tokens=tokens_from(record["tokens"]),
        subject=(int(start), int(end)),
        first_difference=int(record["first_difference"]),
        n_layers=n_layers,
        answer=_answer(record["answer"]),
        distractor=None if distractor is None else _answer(distractor),
        metrics=metrics,
        rows=rows,
        clean=decode_array(record["clean"], "float64", (len(metrics),), "clean"),
        corrupted=decode_array(record["corrupted"], "float64", (len(metrics),), "corrupted"),
        state=array("state"),
        attn=array("attn"),
        mlp=array("mlp"),
        head=array("head"),
        n_samples=int(record["n_samples"]),
        warnings=texts_from(record["warnings"]),
        checks=checks_from(record["checks"]),
        seconds=float(record["seconds"]),
        cancelled=bool(record["cancelled"]),
    )


def _answer(fields: Mapping[str, Any]) -> AnswerTokens:
    if fields["chosen_by"] not in ("user", "clean run", "corrupted run"):
        raise ValueError(f"a token chosen by {fields['chosen_by']!r}")
    return AnswerTokens(
        text=str(fields["text"]),
        ids=tuple(int(token_id) for token_id in fields["ids"]),
        visible=texts_from(fields["visible"]),
        chosen_by=fields["chosen_by"],
        joint=bool(fields["joint"]),
    )
