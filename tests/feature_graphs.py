"""A small attribution graph made by hand, whose every number is known; with it drawings need no model."""

import gzip
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mi_core.tokens import Token
from mi_core.transcoders.corpus_density import SCHEMA, own_folder
from mi_core.transcoders.feature_files import INDEX, SUMMARY
from mi_core.transcoders.graph_inputs import GraphInputs
from mi_core.transcoders.graph_result import GraphResult

KINDS = (0, 0, 0, 1, 1, 1, 1, 2, 2, 3, 3)
LAYERS = (0, 0, 1, 0, 0, 1, 1, -1, -1, 2, 2)
POSITIONS = (0, 1, 1, 0, 1, 0, 1, 0, 1, 1, 1)
FEATURES = (4, 9, 2, -1, -1, -1, -1, 7, 8, 5, 6)
ROWS = (0, 1, 2, 9, 10)
EDGES: dict[int, dict[int, float]] = {
    0: {7: 2.0},
    1: {7: 0.5, 8: 1.5},
    2: {0: 1.0, 1: -2.0, 3: 0.5, 8: 0.5},
    9: {2: 3.0, 1: -1.0, 6: 0.5, 8: 0.5},
    10: {2: -1.0, 0: 2.0, 5: 1.0},
}


def hand_graph(**changes: Any) -> GraphResult:
    """Two tokens, two layers, three features, all errors, two logits; no model behind it."""
    edges = np.zeros((len(ROWS), len(KINDS)), np.float32)
    for row, target in enumerate(ROWS):
        for source, value in EDGES[target].items():
            edges[row, source] = value
    remainder = np.array([0.1, 0.0, -0.2, 0.3, 0.0], np.float32)
    fields: dict[str, Any] = {
        "inputs": GraphInputs("The <b>"),
        "provenance": None,
        "transcoder_name": "by hand",
        "transcoder_fingerprint": "",
        "target_kind": "tokens",
        "masked": (),
        "fvu": np.array([0.1, 0.2]),
        "node_kind": np.array(KINDS),
        "node_layer": np.array(LAYERS),
        "node_position": np.array(POSITIONS),
        "node_feature": np.array(FEATURES),
        "node_activation": np.array([2.0, 1.5, 3.0, *[np.nan] * 8]),
        "node_probability": np.array([*[np.nan] * 9, 0.7, 0.2]),
        "node_expanded": np.array([True, True, True, *[False] * 6, True, True]),
        "edges": edges,
        "row_node": np.array(ROWS),
        "remainder": remainder,
        "row_value": edges.sum(1) + remainder,
        "residual": np.zeros(5, np.float32),
        "influence": np.array([0.2, 0.25, 0.4, 0.05, 0.0, 0.04, 0.06, 0.2, 0.15, 0.7, 0.2]),
        "logit_weights": np.array([0.7, 0.2]),
        "tokens": (Token(0, 7, "The", 0, 3, False), Token(1, 8, "\u00b7<b>", 3, 6, False)),
        "target_names": ("\u00b7Paris", "\u00b7Rome"),
        "target_ids": ((5,), (6,)),
        "n_layers": 2,
        **changes,
    }
    return GraphResult(**fields)


def write_densities(fingerprint: str, counts: Mapping[int, Sequence[int]], n_tokens: int) -> None:
    """What a corpus pass leaves in the user's data folder: counts by layer, and nothing else."""
    layers = {str(layer): {"counts": list(row), "largest": [1.0] * len(row)} for layer, row in counts.items()}
    summary = {
        "schema": SCHEMA, "version": 1, "fingerprint": fingerprint, "text": "by hand", "n_tokens": n_tokens,
        "n_documents": 1, "layers": layers,
    }  # fmt: skip
    folder = own_folder(fingerprint)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SUMMARY).write_bytes(gzip.compress(json.dumps(summary).encode()))
    (folder / INDEX).write_bytes(gzip.compress(b"{}"))
