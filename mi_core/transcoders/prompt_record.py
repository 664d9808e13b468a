"""The features of a prompt as a table and as JSON, and back."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from mi_core.analyses.attribution_result import ReadToken
from mi_core.analyses.plain import checks_from, damage_told, provenance_from, texts_from, tokens_from
from mi_core.analyses.plain_fields import from_plain
from mi_core.analyses.records import decode_array, dump_record, encode_array, load_record
from mi_core.transcoders.prompt_inputs import FeaturesOnPromptInputs
from mi_core.transcoders.prompt_label import TranscoderLabel
from mi_core.transcoders.prompt_result import FeaturesOnPromptResult

if TYPE_CHECKING:
    import pandas as pd

SCHEMA, VERSION = "lantern/features_on_prompt", 1
LISTED = {
    "layer": "int64", "position": "int64", "feature": "int64", "activation": "float32",
    "threshold": "float32", "density": "float32", "effect": "float64",
}  # fmt: skip
"""Arrays with one number per listed feature at a token, by their names in the record."""
ARRAYS = (*LISTED, "counts", "unexplained", "error")
"""Every array of the result, by its name in the record."""
QUANTITIES = (
    ("activation", "activation", "activation"),
    ("share of threshold", "share", "multiple of the threshold"),
    ("density", "density", "share of tokens"),
    ("effect on the target", "effect", "logits"),
)
"""(what, attribute, unit) of the numbers of a listed feature."""


def to_frame(result: FeaturesOnPromptResult) -> "pd.DataFrame":
    """See `FeaturesOnPromptResult.to_frame`."""
    import pandas as pd  # only tables need it

    parts = [_listed(result, *what) for what in QUANTITIES]
    frame = pd.concat([part for part in parts if len(part)] + [pd.DataFrame(list(_cells(result)))])
    columns = ["name", "layer", "feature", "position", "token", "quantity", "value", "unit"]
    whole = dict.fromkeys(("layer", "feature", "position"), "Int64")
    return frame.reindex(columns=columns).astype(whole).reset_index(drop=True)


def _listed(result: FeaturesOnPromptResult, quantity: str, attribute: str, unit: str) -> "pd.DataFrame":
    """One row per listed feature at a token that has this number."""
    import pandas as pd

    values = getattr(result, attribute).astype(float)
    known = np.isfinite(values)
    positions = result.position[known]
    shown = [token.visible for token in result.tokens]
    return pd.DataFrame({
        "name": [result.at(index).feature.text for index in np.flatnonzero(known).tolist()],
        "layer": result.layer[known], "feature": result.feature[known], "position": positions,
        "token": [shown[position] for position in positions],
        "quantity": quantity, "value": values[known], "unit": unit,
    })  # fmt: skip


def _cells(result: FeaturesOnPromptResult) -> Iterator[dict[str, Any]]:
    """Counts by source layer and token; what is not reconstructed by target layer and token."""
    for row, layer in enumerate(result.layers):
        for position in result.counting:
            yield {
                "name": f"L{layer}", "layer": layer, "position": position,
                "token": result.tokens[position].visible, "quantity": "active features",
                "value": float(result.counts[row, position]), "unit": "features",
            }  # fmt: skip
    for row, layer in enumerate(result.targets):
        for position in result.counting:
            yield {
                "name": f"L{layer}", "layer": layer, "position": position,
                "token": result.tokens[position].visible, "quantity": "error",
                "value": float(result.error[row, position]), "unit": "share of the length",
            }  # fmt: skip
        yield {
            "name": f"L{layer}", "layer": layer, "quantity": "unexplained",
            "value": float(result.unexplained[row]), "unit": "share of the variance",
        }  # fmt: skip


def to_json(result: FeaturesOnPromptResult) -> str:
    """The whole result as JSON text."""
    whole = np.array(result.unexplained_all)
    fields: dict[str, Any] = {
        "inputs": result.inputs.to_dict(),
        "provenance": None if result.provenance is None else result.provenance.to_dict(),
        "transcoder": result.transcoder.to_dict(),
        "tokens": [asdict(token) for token in result.tokens],
        "masked": list(result.masked),
        "layers": list(result.layers),
        "n_features": list(result.n_features),
        "targets": list(result.targets),
        **{name: encode_array(getattr(result, name)) for name in ARRAYS},
        "unexplained_all": encode_array(whole),
        "target": None if result.target is None else asdict(result.target),
        "distractor": None if result.distractor is None else asdict(result.distractor),
        "effect_unit": "logits",
        "warnings": list(result.warnings),
        "checks": [asdict(check) for check in result.checks],
        "cancelled": result.cancelled,
    }
    return dump_record(SCHEMA, VERSION, fields)


def from_json(text: str | bytes) -> FeaturesOnPromptResult:
    """The inverse of `to_json`.

    Raises:
        InputError: anything that `to_json` would not have written.
    """
    record = load_record(text, SCHEMA, VERSION)
    with damage_told("features of a prompt"):
        return _build(record)


def _build(record: Mapping[str, Any]) -> FeaturesOnPromptResult:
    tokens = tokens_from(record["tokens"])
    layers, targets = whole_from(record["layers"]), whole_from(record["targets"])
    listed, n_pos = (len(record["layer"]),), len(tokens)
    shapes = {"counts": (len(layers), n_pos), "unexplained": (len(targets),), "error": (len(targets), n_pos)}
    types = {**LISTED, "counts": "int64", "unexplained": "float64", "error": "float32"}
    arrays = {
        name: decode_array(record[name], types[name], shapes.get(name, listed), name) for name in ARRAYS
    }
    return FeaturesOnPromptResult(
        inputs=FeaturesOnPromptInputs.from_dict(record["inputs"]),
        provenance=provenance_from(record["provenance"]),
        transcoder=TranscoderLabel.from_dict(record["transcoder"]),
        tokens=tokens,
        masked=whole_from(record["masked"]),
        layers=layers,
        n_features=whole_from(record["n_features"]),
        targets=targets,
        **arrays,
        unexplained_all=float(decode_array(record["unexplained_all"], "float64", (), "unexplained_all")),
        target=_read_token(record["target"]),
        distractor=_read_token(record["distractor"]),
        warnings=texts_from(record["warnings"]),
        checks=checks_from(record["checks"]),
        cancelled=bool(record["cancelled"]),
    )


def whole_from(values: Any) -> tuple[int, ...]:
    """Whole numbers from a list."""
    return tuple(int(value) for value in values)


def _read_token(fields: Any) -> ReadToken | None:
    return None if fields is None else from_plain(ReadToken, fields)
