"""A causal trace as a table and as JSON, and back. Called through the methods of `CausalTraceResult`."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from mi_core.analyses.causal_trace_inputs import KINDS, METRICS, CausalTraceInputs
from mi_core.analyses.causal_trace_parts import AnswerTokens, Check, PlanFigures, Reading, TraceGrid
from mi_core.analyses.causal_trace_result import CausalTraceResult
from mi_core.analyses.records import decode_array, dump_record, encode_array, load_record
from mi_core.errors import InputError
from mi_core.provenance import Provenance
from mi_core.tokens import Token

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = "lantern/causal_trace"
VERSION = 1


def to_frame(result: CausalTraceResult) -> "pd.DataFrame":
    """Tidy table: one row per number, the two runs first."""
    import pandas as pd  # a third of a second; only tables need it

    columns: dict[str, list[Any]] = {name: [] for name in _COLUMNS}
    for run, reading in (("clean run", result.clean), ("corrupted run", result.corrupted)):
        for metric in result.metrics:
            _append(columns, run, result, metric, reading)
    frames = [pd.DataFrame(columns)]
    frames += [
        pd.DataFrame(_grid_columns(result, kind, metric))
        for kind in result.grids
        for metric in result.metrics
    ]
    frame = pd.concat([part for part in frames if len(part)], ignore_index=True)
    return frame.astype({"position": "Int64", "head": "Int64", "layer": "Int64"})


_COLUMNS = ("kind", "position", "head", "token", "layer", "metric", "value", "low", "high", "unit", "samples")


def _append(
    columns: dict[str, list[Any]], run: str, result: CausalTraceResult, metric: str, reading: Reading
) -> None:
    row = (
        run,
        None,
        None,
        None,
        None,
        metric,
        result.value(reading, metric),
        np.nan,
        np.nan,
        METRICS[metric].unit,
        len(reading.samples["probability"]),
    )
    for name, value in zip(_COLUMNS, row, strict=True):
        columns[name].append(value)


def _grid_columns(result: CausalTraceResult, kind: Any, metric: str) -> dict[str, Any]:
    """The columns of one grid and metric; cells that are not done are left out."""
    grid = result.grids[kind]
    low, high = result.interval(kind, metric)
    done = grid.done.ravel()
    count = int(done.sum())
    rows = np.repeat(np.array(grid.rows), result.n_layers)[done]
    by_position = grid.row_axis == "position"
    nothing = np.full(count, None, dtype=object)
    head_position = result.inputs.head_position
    patched_position = rows if by_position else np.full(count, head_position, dtype=object)
    labels = [None if p is None else result.tokens[int(p)].visible for p in patched_position]
    return {
        "kind": np.full(count, kind, dtype=object),
        "position": patched_position.astype(object),
        "head": nothing if by_position else rows.astype(object),
        "token": labels,
        "layer": np.tile(np.arange(result.n_layers), len(grid.rows))[done].astype(object),
        "metric": np.full(count, metric, dtype=object),
        "value": result.grid(kind, metric).ravel()[done],
        "low": low.ravel()[done],
        "high": high.ravel()[done],
        "unit": np.full(count, METRICS[metric].unit, dtype=object),
        "samples": np.full(count, result.n_samples),
    }


def to_json(result: CausalTraceResult) -> str:
    """The whole result as JSON text."""
    provenance = result.provenance
    fields: dict[str, Any] = {
        "inputs": result.inputs.to_dict(),
        "provenance": None if provenance is None else provenance.to_dict(),
        "tokens": [asdict(token) for token in result.tokens],
        "corrupted_tokens": [asdict(token) for token in result.corrupted_tokens],
        "subject": list(result.subject),
        "first_difference": result.first_difference,
        "n_layers": result.n_layers,
        "n_samples": result.n_samples,
        "precision": str(result.clean.samples["probability"].dtype),
        "metrics": {
            name: {"unit": METRICS[name].unit, "meaning": METRICS[name].meaning} for name in result.metrics
        },
        "answer": asdict(result.answer),
        "distractor": None if result.distractor is None else asdict(result.distractor),
        "clean": _reading_fields(result.clean),
        "corrupted": _reading_fields(result.corrupted),
        "grids": {kind: _grid_fields(grid) for kind, grid in result.grids.items()},
        "noise_scale": result.noise_scale,
        "sigma": result.sigma,
        "vocabulary": {str(token_id): text for token_id, text in result.vocabulary.items()},
        "warnings": list(result.warnings),
        "checks": [asdict(check) for check in result.checks],
        "plan": asdict(result.plan),
        "seconds": result.seconds,
        "cancelled": result.cancelled,
    }
    return dump_record(SCHEMA, VERSION, fields)


def _reading_fields(reading: Reading) -> dict[str, Any]:
    return {
        "samples": {name: encode_array(values) for name, values in reading.samples.items()},
        "top_ids": encode_array(reading.top_ids),
        "top_probabilities": encode_array(reading.top_probabilities),
    }


def _grid_fields(grid: TraceGrid) -> dict[str, Any]:
    return {
        "row_axis": grid.row_axis,
        "rows": list(grid.rows),
        "done": encode_array(grid.done),
        "samples": {name: encode_array(values) for name, values in grid.samples.items()},
        "top_ids": encode_array(grid.top_ids),
        "top_probabilities": encode_array(grid.top_probabilities),
    }


def from_json(text: str | bytes) -> CausalTraceResult:
    """The inverse of `to_json`.

    Raises:
        InputError: anything that `to_json` would not have written.
    """
    record = load_record(text, SCHEMA, VERSION)
    try:
        return _build(record)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise InputError(
            "The causal-trace record is damaged", why=f"{type(error).__name__}: {error}"
        ) from error


def _build(record: Mapping[str, Any]) -> CausalTraceResult:
    precision = record["precision"]
    if precision not in ("float32", "float64"):
        raise InputError(f"The record's precision is {precision!r}")
    n_layers, n_samples = int(record["n_layers"]), int(record["n_samples"])
    provenance, distractor = record["provenance"], record["distractor"]
    return CausalTraceResult(
        inputs=CausalTraceInputs.from_dict(record["inputs"]),
        provenance=None if provenance is None else Provenance.from_dict(provenance),
        tokens=tuple(_token(fields) for fields in record["tokens"]),
        corrupted_tokens=tuple(_token(fields) for fields in record["corrupted_tokens"]),
        subject=_pair(record["subject"]),
        first_difference=int(record["first_difference"]),
        n_layers=n_layers,
        answer=_answer(record["answer"]),
        distractor=None if distractor is None else _answer(distractor),
        clean=_reading(record["clean"], precision, 1),
        corrupted=_reading(record["corrupted"], precision, n_samples),
        grids={
            kind: _grid(kind, fields, precision, n_layers, n_samples)
            for kind, fields in record["grids"].items()
        },
        noise_scale=_optional_number(record["noise_scale"]),
        sigma=_optional_number(record["sigma"]),
        vocabulary={int(token_id): str(text) for token_id, text in record["vocabulary"].items()},
        warnings=tuple(str(warning) for warning in record["warnings"]),
        checks=tuple(Check(str(c["name"]), bool(c["passed"]), str(c["detail"])) for c in record["checks"]),
        plan=_plan(record["plan"]),
        seconds=float(record["seconds"]),
        cancelled=bool(record["cancelled"]),
    )


def _optional_number(value: Any) -> float | None:
    return None if value is None else float(value)


def _one_of(value: Any, choices: tuple[str, ...]) -> Any:
    if value not in choices:
        raise ValueError(f"{value!r} is none of {', '.join(choices)}")
    return value


def _plan(fields: Mapping[str, Any]) -> PlanFigures:
    return PlanFigures(
        variants=int(fields["variants"]),
        rows=int(fields["rows"]),
        token_layers=int(fields["token_layers"]),
        token_layers_full=int(fields["token_layers_full"]),
        flops=float(fields["flops"]),
        seconds=_optional_number(fields["seconds"]),
        method=str(fields["method"]),
        reason=str(fields["reason"]),
    )


def _pair(values: Any) -> tuple[int, int]:
    start, end = values
    return int(start), int(end)


def _token(fields: Mapping[str, Any]) -> Token:
    return Token(
        position=int(fields["position"]),
        id=int(fields["id"]),
        visible=str(fields["visible"]),
        start=int(fields["start"]),
        end=int(fields["end"]),
        special=bool(fields["special"]),
    )


def _answer(fields: Mapping[str, Any]) -> AnswerTokens:
    return AnswerTokens(
        text=str(fields["text"]),
        ids=tuple(int(token_id) for token_id in fields["ids"]),
        visible=tuple(str(text) for text in fields["visible"]),
        chosen_by=_one_of(fields["chosen_by"], ("user", "clean run", "corrupted run")),
        joint=bool(fields["joint"]),
    )


def _reading(fields: Mapping[str, Any], precision: str, n_samples: int) -> Reading:
    top = len(fields["top_ids"])
    return Reading(
        samples={
            n: decode_array(v, precision, (n_samples,), n)
            for n, v in fields["samples"].items()
            if n in METRICS
        },
        top_ids=decode_array(fields["top_ids"], "int64", (top,), "top_ids"),
        top_probabilities=decode_array(fields["top_probabilities"], precision, (top,), "top_probabilities"),
    )


def _grid(kind: str, fields: Mapping[str, Any], precision: str, n_layers: int, n_samples: int) -> TraceGrid:
    if kind not in KINDS:
        raise InputError(f"The record has a grid of unknown kind {kind!r}")
    rows = tuple(int(row) for row in fields["rows"])
    shape = (len(rows), n_layers)
    top = np.array(fields["top_ids"]).shape[-1]
    samples = {
        name: decode_array(values, precision, (*shape, n_samples), name)
        for name, values in fields["samples"].items()
        if name in METRICS
    }
    return TraceGrid(
        kind=kind,
        row_axis=_one_of(fields["row_axis"], ("position", "head")),
        rows=rows,
        done=decode_array(fields["done"], "bool", shape, "done"),
        samples=samples,
        top_ids=decode_array(fields["top_ids"], "int64", (*shape, top), "top_ids"),
        top_probabilities=decode_array(
            fields["top_probabilities"], precision, (*shape, top), "top_probabilities"
        ),
    )
