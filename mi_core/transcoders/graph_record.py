"""An attribution graph as a table and as JSON, and back. Called through the methods of `GraphResult`."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from mi_core.analyses.plain import (
    damage_told,
    outcome,
    outcome_from,
    provenance_from,
    texts_from,
    tokens_from,
)
from mi_core.analyses.records import decode_array, dump_record, encode_array, load_record
from mi_core.transcoders.graph_inputs import GraphInputs
from mi_core.transcoders.graph_names import KIND_NAMES, LOGIT, node_names
from mi_core.transcoders.graph_result import NODE_ARRAYS, ROW_ARRAYS, GraphResult

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = "lantern/attribution_graph"
VERSION = 1
DTYPES = {
    "node_kind": "int64",
    "node_layer": "int64",
    "node_position": "int64",
    "node_feature": "int64",
    "node_activation": "float32",
    "node_probability": "float64",
    "node_expanded": "bool",
    "influence": "float64",
    "row_node": "int64",
    "remainder": "float64",
    "row_value": "float64",
    "residual": "float64",
    "logit_weights": "float64",
    "fvu": "float64",
    "edges": "float32",
}
ARRAYS = tuple(DTYPES)
"""All arrays, as they are called on the result and in its JSON."""

_COLUMNS = ("level", "source", "target", "quantity", "value", "unit")


def to_frame(result: GraphResult) -> "pd.DataFrame":
    """Tidy table: nodes, edges that are not zero, remainders."""
    import pandas as pd  # a third of a second; only tables need it

    return pd.DataFrame(list(_rows(result)), columns=list(_COLUMNS))


def _rows(result: GraphResult) -> Iterator[tuple[Any, ...]]:
    names = node_names(result)
    for index, name in enumerate(names):
        kind = KIND_NAMES[int(result.node_kind[index])]
        yield "node", name, None, "influence", float(result.influence[index]), "share"
        if kind == "feature":
            yield "node", name, None, "activation", float(result.node_activation[index]), "activation"
        if kind == "logit":
            yield "node", name, None, "probability", float(result.node_probability[index]), "probability"
    for row, node in enumerate(result.row_node.tolist()):
        unit = "logits" if result.node_kind[node] == LOGIT else "pre-activation"
        for column in np.flatnonzero(result.edges[row]).tolist():
            yield "edge", names[column], names[node], "edge", float(result.edges[row, column]), unit
        yield "remainder", None, names[node], "remainder", float(result.remainder[row]), unit
        yield "remainder", None, names[node], "value", float(result.row_value[row]), unit


def to_json(result: GraphResult) -> str:
    """The whole result as JSON text."""
    fields: dict[str, Any] = {
        "inputs": result.inputs.to_dict(),
        "provenance": None if result.provenance is None else result.provenance.to_dict(),
        "tokens": [asdict(token) for token in result.tokens],
        "n_layers": result.n_layers,
        "transcoder_name": result.transcoder_name,
        "transcoder_fingerprint": result.transcoder_fingerprint,
        "target_kind": result.target_kind,
        "target_names": list(result.target_names),
        "target_ids": [list(ids) for ids in result.target_ids],
        "masked": list(result.masked),
        "kinds": list(KIND_NAMES),
        "unit": "edges, row_value: pre-activation of a feature, logits (before the softcap) of a logit",
        **{name: encode_array(getattr(result, name)) for name in ARRAYS},
        **outcome(result),
    }
    return dump_record(SCHEMA, VERSION, fields)


def from_json(text: str | bytes) -> GraphResult:
    """The inverse of `to_json`.

    Raises:
        InputError: anything that `to_json` would not have written.
    """
    record = load_record(text, SCHEMA, VERSION)
    with damage_told("attribution graph"):
        return _build(record)


def _build(record: Mapping[str, Any]) -> GraphResult:
    if record["target_kind"] not in ("salient", "tokens", "difference"):
        raise ValueError(f"targets chosen as {record['target_kind']!r}")
    n_layers, nodes, rows = int(record["n_layers"]), len(record["node_kind"]), len(record["row_node"])
    shapes = {
        **dict.fromkeys(NODE_ARRAYS, (nodes,)),
        **dict.fromkeys(ROW_ARRAYS, (rows,)),
        "edges": (rows, nodes),
        "logit_weights": (len(record["target_names"]),),
        "fvu": (n_layers,),
    }
    return GraphResult(
        inputs=GraphInputs.from_dict(record["inputs"]),
        provenance=provenance_from(record["provenance"]),
        tokens=tokens_from(record["tokens"]),
        n_layers=n_layers,
        transcoder_name=str(record["transcoder_name"]),
        transcoder_fingerprint=str(record["transcoder_fingerprint"]),
        target_kind=record["target_kind"],
        target_names=texts_from(record["target_names"]),
        target_ids=tuple(tuple(int(one) for one in ids) for ids in record["target_ids"]),
        masked=tuple(int(one) for one in record["masked"]),
        **{name: decode_array(record[name], kind, shapes[name], name) for name, kind in DTYPES.items()},
        **outcome_from(record),
    )
