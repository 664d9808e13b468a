"""A prediction sweep as a table and as JSON, and back."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from mi_core.analyses.plain import checks_from, damage_told, provenance_from, texts_from
from mi_core.analyses.prediction_sweep_result import (
    WHOLE,
    LeftOut,
    PredictionSweepInputs,
    PredictionSweepResult,
    SweptCase,
    sweep_shapes,
)
from mi_core.analyses.records import decode_array, dump_record, encode_array, load_record

if TYPE_CHECKING:
    import pandas as pd

SCHEMA, VERSION = "lantern/prediction_sweep", 1


def to_frame(result: PredictionSweepResult) -> "pd.DataFrame":
    """Tidy table: one row per prompt and layer."""
    import pandas as pd  # only tables need it

    cases, n_layers = [result.inputs.cases[one.index] for one in result.swept], result.n_layers
    repeated = {
        "case": [one.index for one in result.swept],
        "prompt": [case.prompt for case in cases],
        "answer": [one.pieces[0] for one in result.swept],
        "appears": result.appears,
        "stabilises": result.stabilises,
        "depth": result.depth,
    }
    frame = pd.DataFrame(
        {
            **{name: np.repeat(np.array(values), n_layers) for name, values in repeated.items()},
            "layer": np.tile(np.arange(n_layers), len(cases)),
            "top_token": [result.visible(token) for token in result.top_ids.T.ravel().tolist()],
            "top_probability": result.top_probabilities.T.ravel(),
            "answer_probability": np.exp(result.answer_log_probability.T.ravel()),
            "answer_rank": result.answer_rank.T.ravel(),
        }
    )
    return frame.astype({"appears": "Int64", "stabilises": "Int64"})


def to_json(result: PredictionSweepResult) -> str:
    """The whole result as JSON text."""
    fields: dict[str, Any] = {
        "inputs": result.inputs.to_dict(),
        "provenance": None if result.provenance is None else result.provenance.to_dict(),
        "n_layers": result.n_layers,
        "precision": str(result.top_probabilities.dtype),
        "swept": [{**asdict(one), "pieces": list(one.pieces)} for one in result.swept],
        "left_out": [asdict(one) for one in result.left_out],
        "vocabulary": {str(token): text for token, text in result.vocabulary.items()},
        "appears": encode_array(result.appears),
        "stabilises": encode_array(result.stabilises),
        "depth": encode_array(result.depth),
        "warnings": list(result.warnings),
        "checks": [asdict(check) for check in result.checks],
        "seconds": result.seconds,
        "cancelled": result.cancelled,
        **{name: encode_array(getattr(result, name)) for name in sweep_shapes(0, 0)},
    }
    return dump_record(SCHEMA, VERSION, fields)


def from_json(text: str | bytes) -> PredictionSweepResult:
    """The inverse of `to_json`.

    Raises:
        InputError: anything that `to_json` would not have written.
    """
    record = load_record(text, SCHEMA, VERSION)
    with damage_told("sweep"):
        return _build(record)


def _build(record: Mapping[str, Any]) -> PredictionSweepResult:
    swept = tuple(
        SweptCase(int(one["index"]), int(one["n_tokens"]), texts_from(one["pieces"]))
        for one in record["swept"]
    )
    n_layers = int(record["n_layers"])
    precision = "float32" if record["precision"] == "float32" else "float64"
    arrays = {
        name: decode_array(record[name], "int64" if name in WHOLE else precision, shape, name)
        for name, shape in sweep_shapes(n_layers, len(swept)).items()
    }
    inputs = PredictionSweepInputs.from_dict(record["inputs"])
    if any(not 0 <= one.index < len(inputs.cases) or not one.pieces for one in swept):
        raise ValueError("a prompt of the sweep is not in its set")
    return PredictionSweepResult(
        inputs=inputs,
        provenance=provenance_from(record["provenance"]),
        n_layers=n_layers,
        swept=swept,
        left_out=tuple(LeftOut(int(one["index"]), str(one["reason"])) for one in record["left_out"]),
        vocabulary={int(token): str(text) for token, text in record["vocabulary"].items()},
        warnings=texts_from(record["warnings"]),
        checks=checks_from(record["checks"]),
        seconds=float(record["seconds"]),
        cancelled=bool(record["cancelled"]),
        **arrays,
    )
