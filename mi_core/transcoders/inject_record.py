"""An intervention on features as a table, as JSON and back. Called through `InjectResult`."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from mi_core.analyses.attribution_result import ReadToken
from mi_core.analyses.before_after import RUN_NAMES, by_run, read_records, step_records
from mi_core.analyses.plain import (
    damage_told,
    outcome,
    outcome_from,
    provenance_from,
    texts_from,
    tokens_from,
)
from mi_core.analyses.records import decode_array, dump_record, encode_array, load_record
from mi_core.transcoders.inject_inputs import InjectInputs
from mi_core.transcoders.inject_result import InjectResult, array_shapes

if TYPE_CHECKING:
    import pandas as pd

SCHEMA, VERSION = "lantern/inject", 1
FLOATS = (
    "logits", "log_probabilities", "top_probabilities", "activation_from", "activation_to",
    "activation_largest", "delta_norms", "sum_norms", "residual_norms", "feature_activations",
)  # fmt: skip
INTEGERS = (
    "ranks", "top_ids", "top_ranks", "edited_pieces", "edited_layers", "edited_positions", "edited_features",
    "pushed_positions", "pushed_layers", "feature_layers", "feature_positions", "feature_indices", "n_active",
    "n_switched", "baseline_ids", "edited_ids",
)  # fmt: skip
_COLUMNS = ("kind", "quantity", "token", "layer", "feature", "position", "run", "value", "unit")


def to_frame(result: InjectResult) -> "pd.DataFrame":
    """Tidy table: one row per number."""
    import pandas as pd  # a third of a second; only tables need it

    rows = [
        *read_records(result), *_top_rows(result), *_edited_rows(result), *_pushed_rows(result),
        *_feature_rows(result), *step_records(result),
    ]  # fmt: skip
    frame = pd.DataFrame([{name: row.get(name) for name in _COLUMNS} for row in rows], columns=list(_COLUMNS))
    return frame.astype(dict.fromkeys(("layer", "feature", "position"), "Int64"))


def _top_rows(result: InjectResult) -> Iterator[dict[str, Any]]:
    for index, token in enumerate(result.top_ids.tolist()):
        for what, values, unit in (
            ("probability", result.top_probabilities, "probability"),
            ("rank", result.top_ranks, "rank"),
        ):
            before, after = values[:, index].tolist()
            for run, value in by_run(before, after):
                yield {
                    "kind": "top token", "quantity": f"{what} of token {token}",
                    "token": result.vocabulary[token], "run": run, "value": value, "unit": unit,
                }  # fmt: skip


def _edited_rows(result: InjectResult) -> Iterator[dict[str, Any]]:
    numbers = (result.activation_from, result.activation_to, result.activation_largest)
    for at, piece, (before, after, largest) in zip(
        result.edited_names, result.edited_pieces.tolist(), np.stack(numbers, 1).tolist(), strict=True
    ):
        told = [("from", before), ("to", after), ("to \N{MINUS SIGN} from", after - before)]
        for run, value in [*told, *([] if np.isnan(largest) else [("largest in the corpus", largest)])]:
            yield {
                "kind": "edited feature", "quantity": result.edits[piece],
                "token": result.tokens[at.position].visible, "layer": at.layer, "feature": at.index,
                "position": at.position, "run": run, "value": value, "unit": "activation",
            }  # fmt: skip


def _pushed_rows(result: InjectResult) -> Iterator[dict[str, Any]]:
    for name, values in (
        ("||delta||", result.delta_norms),
        ("||sum of delta up to this layer||", result.sum_norms),
        ("||residual||", result.residual_norms),
        ("||delta|| / ||residual||", result.delta_ratios),
    ):
        for row, layer in enumerate(result.pushed_layers.tolist()):
            for column, position in enumerate(result.pushed_positions.tolist()):
                yield {
                    "kind": "push", "quantity": name, "token": result.tokens[position].visible,
                    "layer": layer, "position": position, "value": float(values[row, column]),
                    "unit": "ratio" if "/" in name else "L2 norm",
                }  # fmt: skip


def _feature_rows(result: InjectResult) -> Iterator[dict[str, Any]]:
    for at, (before, after) in zip(result.feature_names, result.feature_activations.T.tolist(), strict=True):
        for run, value in by_run(before, after):
            yield {
                "kind": "other feature", "quantity": "activation",
                "token": result.tokens[at.position].visible, "layer": at.layer, "feature": at.index,
                "position": at.position, "run": run, "value": value, "unit": "activation",
            }  # fmt: skip


def to_json(result: InjectResult) -> str:
    """The whole result as JSON text."""
    fields: dict[str, Any] = {
        "inputs": result.inputs.to_dict(),
        "provenance": None if result.provenance is None else result.provenance.to_dict(),
        "transcoder": result.transcoder,
        "fingerprint": result.fingerprint,
        "tokens": [asdict(token) for token in result.tokens],
        "target": asdict(result.target),
        "distractor": None if result.distractor is None else asdict(result.distractor),
        "edits": list(result.edits),
        "runs": list(RUN_NAMES),
        "kl": result.kl,
        "vocabulary": {str(token): text for token, text in result.vocabulary.items()},
        **{name: encode_array(getattr(result, name)) for name in (*FLOATS, *INTEGERS)},
        "n_layers": result.n_layers,
        "d_model": result.d_model,
        **outcome(result),
    }
    return dump_record(SCHEMA, VERSION, fields)


def from_json(text: str | bytes) -> InjectResult:
    """The inverse of `to_json`.

    Raises:
        InputError: anything that `to_json` would not have written.
    """
    record = load_record(text, SCHEMA, VERSION)
    with damage_told("intervention on features"):
        return _build(record)


def _build(record: Mapping[str, Any]) -> InjectResult:
    edited, others = len(record["edited_pieces"]), len(record["feature_layers"])
    read, top = 1 if record["distractor"] is None else 2, len(record["top_ids"])
    pushed = (len(record["pushed_layers"]), len(record["pushed_positions"]))
    shapes = array_shapes(read, top, edited, others, pushed)
    kinds = {**dict.fromkeys(FLOATS, "float64"), **dict.fromkeys(INTEGERS, "int64")}
    return InjectResult(
        inputs=InjectInputs.from_dict(record["inputs"]),
        provenance=provenance_from(record["provenance"]),
        transcoder=str(record["transcoder"]),
        fingerprint=str(record["fingerprint"]),
        tokens=tokens_from(record["tokens"]),
        target=ReadToken.from_dict(record["target"]),
        distractor=None if record["distractor"] is None else ReadToken.from_dict(record["distractor"]),
        edits=texts_from(record["edits"]),
        kl=float(record["kl"]),
        vocabulary={int(token): str(text) for token, text in record["vocabulary"].items()},
        **{
            name: decode_array(record[name], kind, shapes.get(name, (len(record[name]),)), name)
            for name, kind in kinds.items()
        },
        n_layers=int(record["n_layers"]),
        d_model=int(record["d_model"]),
        **outcome_from(record),
    )
