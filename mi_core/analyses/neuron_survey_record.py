"""A survey of neurons as a table and as JSON, and back. Called through `NeuronSurveyResult`."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from mi_core.analyses.neuron_inputs import NeuronSurveyInputs
from mi_core.analyses.neuron_survey_result import (
    ARRAYS,
    CONTEXT_ARRAYS,
    LAYER_ARRAYS,
    NeuronSurveyResult,
    SurveyCost,
)
from mi_core.analyses.plain import checks_from, damage_told, provenance_from, texts_from
from mi_core.analyses.records import decode_array, dump_record, encode_array, load_record

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = "lantern/neuron_survey"
VERSION = 1
_WHOLE = (
    "text_counts",
    "token_counts",
    "layers",
    "neurons",
    "context_texts",
    "context_positions",
    "never_active",
)
_SINGLE = ("maximum", "minimum", "context_values", "layer_peak")


def to_frame(result: NeuronSurveyResult) -> "pd.DataFrame":
    """Tidy table: statistics of the kept neurons, their contexts, then the layers."""
    import pandas as pd  # only tables need it

    parts = [_statistics(result, name, unit) for name, unit in _UNITS.items()]
    for index, category in enumerate(result.categories):
        means = {"quantity": "mean", "category": category, "value": result.category_means[:, index]}
        chosen = {
            "quantity": "selectivity",
            "category": category,
            "value": result.selectivity(category),
            "unit": "standard deviations",
        }
        of_category = {"n": int(result.token_counts[index])}
        parts += [_rows(result, unit="activation", **means, **of_category)]
        parts += [_rows(result, **chosen, **of_category)]
    for rank in range(result.inputs.contexts):
        parts.append(_contexts(result, rank))
    parts += [_layers(result, name) for name in LAYER_ARRAYS]
    made = [pd.DataFrame(part) for part in parts]
    frame = pd.concat([part for part in made if len(part)], ignore_index=True)
    frame = frame.dropna(subset=["value"]).reset_index(drop=True)
    return frame.astype({name: "Int64" for name in ("layer", "neuron", "rank", "text", "position", "n")})


_UNITS = {
    "mean": "activation",
    "deviation": "activation",
    "mean_absolute": "activation",
    "share_active": "share of tokens",
    "maximum": "activation",
    "minimum": "activation",
}


def _rows(result: NeuronSurveyResult, **more: Any) -> dict[str, Any]:
    count = len(result.layers)
    nothing = np.full(count, None, dtype=object)
    plain = {
        "layer": result.layers.astype(object),
        "neuron": result.neurons.astype(object),
        "quantity": "",
        "category": nothing,
        "rank": nothing,
        "text": nothing,
        "position": nothing,
        "token": nothing,
        "value": nothing,
        "unit": "",
        "n": result.n_tokens,
    }
    return {**plain, **more}


def _statistics(result: NeuronSurveyResult, name: str, unit: str) -> dict[str, Any]:
    return _rows(result, quantity=name, value=getattr(result, name).astype(float), unit=unit)


def _contexts(result: NeuronSurveyResult, rank: int) -> dict[str, Any]:
    texts, positions = result.context_texts[:, rank], result.context_positions[:, rank]
    there = texts >= 0
    shown = [result.context(kept, rank) for kept in range(len(texts))]
    return _rows(
        result,
        quantity="context",
        rank=np.full(len(texts), rank, dtype=object),
        text=[int(text) if text >= 0 else None for text in texts],
        position=[int(position) if position >= 0 else None for position in positions],
        token=[None if context is None else context[0] for context in shown],
        value=np.where(there, result.context_values[:, rank].astype(float), np.nan),
        unit="activation",
    )


def _layers(result: NeuronSurveyResult, name: str) -> dict[str, Any]:
    units = {"layer_share_active": "share of tokens and neurons", "never_active": "neurons"}
    nothing = np.full(result.n_layers, None, dtype=object)
    return {
        "layer": np.arange(result.n_layers).astype(object),
        **{column: nothing for column in ("neuron", "category", "rank", "text", "position", "token")},
        "quantity": name,
        "value": getattr(result, name).astype(float),
        "unit": units.get(name, "activation"),
        "n": result.n_tokens,
    }


def to_json(result: NeuronSurveyResult) -> str:
    """The whole result as JSON text."""
    fields: dict[str, Any] = {
        "inputs": result.inputs.to_dict(),
        "provenance": None if result.provenance is None else result.provenance.to_dict(),
        "n_layers": result.n_layers,
        "d_mlp": result.d_mlp,
        "categories": list(result.categories),
        **{name: encode_array(getattr(result, name)) for name in ARRAYS},
        "tokens": {str(index): list(tokens) for index, tokens in result.tokens.items()},
        "cost": asdict(result.cost),
        "warnings": list(result.warnings),
        "checks": [asdict(check) for check in result.checks],
        "seconds": result.seconds,
        "cancelled": result.cancelled,
    }
    return dump_record(SCHEMA, VERSION, fields)


def from_json(text: str | bytes) -> NeuronSurveyResult:
    """The inverse of `to_json`.

    Raises:
        InputError: anything that `to_json` would not have written.
    """
    record = load_record(text, SCHEMA, VERSION)
    with damage_told("survey"):
        return _build(record)


def _build(record: Mapping[str, Any]) -> NeuronSurveyResult:
    inputs = NeuronSurveyInputs.from_dict(record["inputs"])
    kept, kinds = len(record["layers"]), len(record["categories"])
    n_layers = int(record["n_layers"])
    shapes: dict[str, tuple[int, ...]] = {name: (kept,) for name in ARRAYS}
    shapes |= {name: (n_layers,) for name in LAYER_ARRAYS}
    shapes |= {name: (kept, inputs.contexts) for name in CONTEXT_ARRAYS}
    shapes |= {"category_means": (kept, kinds), "text_counts": (kinds,), "token_counts": (kinds,)}
    arrays = {name: decode_array(record[name], _dtype(name), shapes[name], name) for name in ARRAYS}
    return NeuronSurveyResult(
        inputs=inputs,
        provenance=provenance_from(record["provenance"]),
        n_layers=n_layers,
        d_mlp=int(record["d_mlp"]),
        categories=texts_from(record["categories"]),
        **arrays,
        tokens={int(index): tuple(str(t) for t in tokens) for index, tokens in record["tokens"].items()},
        cost=_cost(record["cost"]),
        warnings=texts_from(record["warnings"]),
        checks=checks_from(record["checks"]),
        seconds=float(record["seconds"]),
        cancelled=bool(record["cancelled"]),
    )


def _dtype(name: str) -> str:
    return "int64" if name in _WHOLE else "float32" if name in _SINGLE else "float64"


def _cost(fields: Mapping[str, Any]) -> SurveyCost:
    seconds = fields["seconds"]
    names = ("texts", "tokens", "passes", "state_bytes", "activations")
    return SurveyCost(
        **{name: int(fields[name]) for name in names}, seconds=None if seconds is None else float(seconds)
    )
