"""What the records of all steering results share, written and read back."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from mi_core.analyses.ablation_sweep_record import read_shared
from mi_core.analyses.records import decode_array, encode_array
from mi_core.analyses.steering_inputs import SteeringInputs


def shared_fields(result: Any, arrays: tuple[str, ...]) -> dict[str, Any]:
    """Plain JSON of the fields that every steering result has, and of its arrays by their names."""
    return {
        "inputs": result.inputs.to_dict(),
        "provenance": None if result.provenance is None else result.provenance.to_dict(),
        "tokens": [asdict(token) for token in result.tokens],
        "answer": asdict(result.answer),
        "distractor": None if result.distractor is None else asdict(result.distractor),
        "metrics": list(result.metrics),
        "made": result.made,
        "positions": list(result.positions),
        **{name: encode_array(getattr(result, name)) for name in arrays},
        "warnings": list(result.warnings),
        "checks": [asdict(check) for check in result.checks],
        "seconds": result.seconds,
        "cancelled": result.cancelled,
    }


def read_steering(record: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse, without the arrays."""
    return {
        **read_shared(record),
        "inputs": SteeringInputs.from_dict(record["inputs"]),
        "made": str(record["made"]),
        "positions": tuple(int(position) for position in record["positions"]),
    }


def read_arrays(
    record: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], dtype: str = "float64"
) -> dict[str, Any]:
    """Arrays of given shapes, by name."""
    return {name: decode_array(record[name], dtype, shape, name) for name, shape in shapes.items()}
