"""An inspection as a table and as JSON, and back."""

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.inspect_inputs import InspectInputs
from mi_core.analyses.inspect_parts import (
    Architecture,
    ConfigKey,
    DeviceMemory,
    Proof,
    SiteInfo,
    WeightInfo,
)
from mi_core.analyses.inspect_result import STATISTICS, EmbeddingNorms, InspectResult
from mi_core.analyses.plain_fields import from_plain
from mi_core.analyses.records import decode_array, dump_record, encode_array, load_record
from mi_core.errors import InputError
from mi_core.provenance import Provenance

if TYPE_CHECKING:
    import pandas as pd

SCHEMA, VERSION = "lantern/inspect", 1
_COUNTS = ("embedding_norms", "unembedding_norms")
_NORM_ARRAYS = ("smallest_ids", "smallest_norms", "largest_ids", "largest_norms")


def to_frame(result: InspectResult) -> "pd.DataFrame":
    """One row per weight and statistic; statistics that were not computed are left out."""
    import pandas as pd

    records = []
    for index, weight in enumerate(result.weights):
        shared = {
            "weight": weight.full_name,
            "role": weight.role,
            "layer": weight.layer,
            "head": weight.head,
            "shape": shape_text(weight.shape),
            "dtype": weight.dtype,
            "parameter": weight.stored_in,
        }
        for name in STATISTICS:
            value = float(getattr(result, name)[index])
            if np.isfinite(value):
                records.append({**shared, "statistic": name, "value": value, "unit": "weight"})
    columns = ["weight", "role", "layer", "head", "shape", "dtype", "parameter", "statistic", "value", "unit"]
    frame = pd.DataFrame(records, columns=pd.Index(columns))
    return frame.astype({"layer": "Int64", "head": "Int64"})


def shape_text(shape: tuple[int, ...]) -> str:
    """`768 x 64`, with a true multiplication sign."""
    return " \N{MULTIPLICATION SIGN} ".join(str(size) for size in shape)


def to_json(result: InspectResult) -> str:
    """The whole result as JSON text."""
    provenance = result.provenance
    plain = ("replay", "parameters", "load_seconds", "warnings", "seconds", "cancelled")
    record: dict[str, Any] = {
        "inputs": result.inputs.to_dict(),
        "provenance": None if provenance is None else provenance.to_dict(),
        **{name: [asdict(one) for one in getattr(result, name)] for name in _PARTS},
        **{name: encode_array(getattr(result, name)) for name in (*STATISTICS, "norm_edges", *_COUNTS)},
        "embeddings": [_norms_fields(norms) for norms in result.embeddings],
        "vocabulary": {str(token_id): text for token_id, text in result.vocabulary.items()},
        "architecture": asdict(result.architecture),
        **{name: getattr(result, name) for name in plain},
    }
    return dump_record(SCHEMA, VERSION, record)


_PARTS: dict[str, type] = {
    "weights": WeightInfo,
    "sites": SiteInfo,
    "proofs": Proof,
    "config": ConfigKey,
    "memory": DeviceMemory,
    "checks": Check,
}


def _norms_fields(norms: EmbeddingNorms) -> dict[str, Any]:
    return {
        field.name: encode_array(value) if isinstance(value, np.ndarray) else value
        for field in fields(norms)
        for value in [getattr(norms, field.name)]
    }


def from_json(text: str | bytes) -> InspectResult:
    """The inverse of `to_json`.

    Raises:
        InputError: anything that `to_json` would not have written.
    """
    record = load_record(text, SCHEMA, VERSION)
    try:
        return _build(record)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise InputError(
            "The inspection record is damaged", why=f"{type(error).__name__}: {error}"
        ) from error


def _build(record: Mapping[str, Any]) -> InspectResult:
    parts: dict[str, Any] = {
        name: tuple(from_plain(kind, one) for one in record[name]) for name, kind in _PARTS.items()
    }
    count, edges = len(parts["weights"]), len(record["norm_edges"])
    provenance = record["provenance"]
    numbers: dict[str, Any] = {
        **{name: decode_array(record[name], "float64", (count,), name) for name in STATISTICS},
        **{name: decode_array(record[name], "int64", (max(0, edges - 1),), name) for name in _COUNTS},
    }
    return InspectResult(
        inputs=InspectInputs.from_dict(record["inputs"]),
        provenance=None if provenance is None else Provenance.from_dict(provenance),
        **parts,
        **numbers,
        norm_edges=decode_array(record["norm_edges"], "float64", (edges,), "norm_edges"),
        embeddings=tuple(_norms(one) for one in record["embeddings"]),
        vocabulary={int(token_id): str(text) for token_id, text in record["vocabulary"].items()},
        architecture=from_plain(Architecture, record["architecture"]),
        replay=bool(record["replay"]),
        parameters=int(record["parameters"]),
        load_seconds=float(record["load_seconds"]),
        warnings=tuple(str(warning) for warning in record["warnings"]),
        seconds=float(record["seconds"]),
        cancelled=bool(record["cancelled"]),
    )


def _norms(values: Mapping[str, Any]) -> EmbeddingNorms:
    numbers = {name: float(values[name]) for name in ("mean", "std", "smallest", "largest")}
    arrays: dict[str, Any] = {
        name: decode_array(
            values[name], "int64" if name.endswith("ids") else "float64", (len(values[name]),), name
        )
        for name in _NORM_ARRAYS
    }
    return EmbeddingNorms(str(values["name"]), **numbers, **arrays)
