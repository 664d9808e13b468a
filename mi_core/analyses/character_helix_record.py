"""A character-count helix as a table and as JSON, and back. Called through `CharacterHelixResult`."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from mi_core.analyses.character_helix_inputs import CharacterHelixInputs
from mi_core.analyses.character_helix_result import WHOLE, CharacterHelixResult, shapes
from mi_core.analyses.plain import checks_from, damage_told, provenance_from, texts_from
from mi_core.analyses.records import decode_array, dump_record, encode_array, load_record

if TYPE_CHECKING:
    import pandas as pd

SCHEMA, VERSION = "lantern/character_helix", 1

_COLUMNS = ["layer", "quantity", "component", "char_count", "value", "unit", "n"]
_UNITS = {
    "total_variance": "activation^2",
    "control_total_variance": "activation^2",
    "uncentred_cosine": "cosine",
    "dimensions": "dimensions",
    "control_dimensions": "dimensions",
    "ringing": "cosine",
    "control_ringing": "cosine",
}


def to_frame(result: CharacterHelixResult) -> "pd.DataFrame":
    """Tidy table: numbers of the layers, shares of the components, coordinates of the counts."""
    import pandas as pd  # only tables need it

    layers, components = np.arange(result.n_layers), np.arange(1, result.inputs.components + 1)
    parts: list[dict[str, Any]] = [
        {"layer": layers, "quantity": name, "value": getattr(result, name), "unit": unit}
        for name, unit in _UNITS.items()
    ]
    for name in ("explained_variance", "control_explained_variance"):
        parts.append(
            {
                "layer": np.repeat(layers, len(components)),
                "component": np.tile(components, len(layers)),
                "quantity": name,
                "value": getattr(result, name).ravel(),
                "unit": "share",
            }
        )
    layer, count, component = (axis.ravel() for axis in np.indices(result.projections.shape))
    parts.append(
        {
            "layer": layer,
            "component": components[component],
            "char_count": result.counts[count],
            "quantity": "projection",
            "value": result.projections.ravel(),
            "unit": "activation",
            "n": result.n[count],
        }
    )
    whole: dict[str, Any] = {"component": None, "char_count": None, "n": result.n_tokens}
    frame = pd.concat([pd.DataFrame(whole | part, columns=_COLUMNS) for part in parts], ignore_index=True)
    return frame.astype({name: "Int64" for name in ("layer", "component", "char_count", "n")})


def cosine_frame(result: CharacterHelixResult, layer: int) -> "pd.DataFrame":
    """One layer's cosines, one row per pair of counts."""
    import pandas as pd

    size = len(result.counts)
    return pd.DataFrame(
        {
            "layer": layer,
            "char_count": np.repeat(result.counts, size),
            "other_char_count": np.tile(result.counts, size),
            "cosine_similarity": result.cosine_similarity[layer].ravel(),
            "n": np.repeat(result.n, size),
            "other_n": np.tile(result.n, size),
        }
    )


def candle_mi(result: CharacterHelixResult, layer: int) -> dict[str, Any]:
    """One layer under candle-mi's keys (its example character_count_helix)."""
    shares = result.explained_variance[layer]
    return {
        "model_id": "" if result.provenance is None else result.provenance.model,
        "layer": layer,
        "max_char_count": int(result.counts[-1]),
        "line_widths": list(result.inputs.widths),
        "explained_variance": encode_array(shares),
        "total_variance_top6": encode_array(shares.sum()),
        "projections": [
            {"char_count": int(count), "pc": encode_array(row)}
            for count, row in zip(result.counts, result.projections[layer], strict=True)
        ],
        "cosine_similarity": encode_array(result.cosine_similarity[layer]),
    }


def to_json(result: CharacterHelixResult) -> str:
    """The whole result as JSON text."""
    fields: dict[str, Any] = {
        "inputs": result.inputs.to_dict(),
        "provenance": None if result.provenance is None else result.provenance.to_dict(),
        "n_layers": result.n_layers,
        "passages": result.passages,
        "tokens": result.tokens,
        "counted": result.counted,
        "warnings": list(result.warnings),
        "checks": [asdict(check) for check in result.checks],
        "seconds": result.seconds,
        "cancelled": result.cancelled,
        **{name: encode_array(getattr(result, name)) for name in shapes(0, 0, 0)},
    }
    return dump_record(SCHEMA, VERSION, fields)


def from_json(text: str | bytes) -> CharacterHelixResult:
    """The inverse of `to_json`.

    Raises:
        InputError: anything that `to_json` would not have written.
    """
    record = load_record(text, SCHEMA, VERSION)
    with damage_told("helix"):
        return _build(record)


def _build(record: Mapping[str, Any]) -> CharacterHelixResult:
    inputs = CharacterHelixInputs.from_dict(record["inputs"])
    n_layers = int(record["n_layers"])
    arrays = {
        name: decode_array(record[name], _precision(name), shape, name)
        for name, shape in shapes(n_layers, len(record["counts"]), inputs.components).items()
    }
    return CharacterHelixResult(
        inputs=inputs,
        provenance=provenance_from(record["provenance"]),
        n_layers=n_layers,
        passages=int(record["passages"]),
        tokens=int(record["tokens"]),
        counted=int(record["counted"]),
        warnings=texts_from(record["warnings"]),
        checks=checks_from(record["checks"]),
        seconds=float(record["seconds"]),
        cancelled=bool(record["cancelled"]),
        **arrays,
    )


def _precision(name: str) -> str:
    return "int64" if name in WHOLE else "float32" if name == "cosine_similarity" else "float64"
