"""Attribution graphs as Neuronpedia's and circuit-tracer's JSON (schema version 1).

Written are the nodes and edges that pruning kept (and pinned ones), with pins, supernodes and labels. Ids are
circuit-tracer's: feature `layer_feature_position`, error `layer_-1_position` (so that no two are equal),
token `E_token_position`, logit `{layers + 1}_token_position`; `feature` is the Cantor number of the pair
(layer, feature). Facts: Neuronpedia's graph-schema.json; circuit-tracer's graph_models.py. Reading is in
`graph_files_read`.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np

from mi_core.tokens import Token
from mi_core.transcoders.graph_files_read import SCHEMA_VERSION, TYPES, ImportedGraph, read_neuronpedia
from mi_core.transcoders.graph_names import ERROR, FEATURE, LOGIT, TOKEN
from mi_core.transcoders.graph_result import GraphResult
from mi_core.transcoders.graph_scores import Pruned
from mi_core.version import __version__

__all__ = ["ImportedGraph", "cantor", "neuronpedia_id", "neuronpedia_json", "read_neuronpedia"]


def cantor(layer: int, feature: int) -> int:
    """Cantor's number of a pair, as circuit-tracer writes features."""
    return (layer + feature) * (layer + feature + 1) // 2 + feature


def neuronpedia_json(
    result: GraphResult,
    pruned: Pruned,
    *,
    pinned: Sequence[int] = (),
    groups: Mapping[str, Sequence[int]] | None = None,
    labels: Mapping[int, str] | None = None,
    slug: str = "",
) -> str:
    """A graph as Neuronpedia's JSON.

    Args:
        result: the graph.
        pruned: which nodes and edges are written.
        pinned: indices of the nodes of the reader's subgraph; written whether kept or not.
        groups: supernodes: name -> indices.
        labels: index of a node -> label.
        slug: name of the graph in addresses; "" = made of the prompt.
    """
    groups, labels = groups or {}, labels or {}
    kept = pruned.nodes.copy()
    kept[[*pinned, *(node for nodes in groups.values() for node in nodes)]] = True
    ids = [neuronpedia_id(result, index) for index in range(result.n_nodes)]
    wanted = np.flatnonzero(kept).tolist()
    nodes = [_node(result, pruned, index, ids[index], labels.get(index, "")) for index in wanted]
    links = [
        {
            "source": ids[source],
            "target": ids[int(result.row_node[row])],
            "weight": float(result.edges[row, source]),
        }
        for row, source in zip(*(axis.tolist() for axis in np.nonzero(pruned.edges)), strict=True)
    ]
    parameters = {
        "pinnedIds": [ids[index] for index in pinned],
        "supernodes": [[name, *(ids[index] for index in members)] for name, members in groups.items()],
        "linkType": "both",
        "clickedId": "",
        "sg_pos": "",
    }
    record = {
        "metadata": _metadata(result, pruned, slug), "qParams": parameters, "nodes": nodes, "links": links,
    }  # fmt: skip
    return json.dumps(record, allow_nan=False, ensure_ascii=False)


def neuronpedia_id(result: GraphResult, index: int) -> str:
    """The id of a node in circuit-tracer's files."""
    kind, layer = int(result.node_kind[index]), int(result.node_layer[index])
    position, feature = int(result.node_position[index]), int(result.node_feature[index])
    if kind == TOKEN:
        return f"E_{feature}_{position}"
    if kind == LOGIT:
        return f"{result.n_layers + 1}_{feature}_{position}"
    return f"{layer}_{feature}_{position}"  # an error's feature is -1


def _node(result: GraphResult, pruned: Pruned, index: int, name: str, label: str) -> dict[str, Any]:
    kind, layer = int(result.node_kind[index]), int(result.node_layer[index])
    position, feature = int(result.node_position[index]), int(result.node_feature[index])
    target = index - (result.n_nodes - result.n_targets)
    chance = float(result.node_probability[index]) if kind == LOGIT else 0.0
    chance = chance if math.isfinite(chance) else 0.0
    if kind == LOGIT and not label:
        label = f'Output "{result.target_names[target]}" (p={chance:.3f})'
    activation = float(result.node_activation[index])
    last = position if kind in (ERROR, TOKEN, LOGIT) else 0
    return {
        "node_id": name,
        "feature": {FEATURE: cantor(layer, max(feature, 0)), TOKEN: position}.get(kind, feature),
        "layer": {TOKEN: "E", LOGIT: str(result.n_layers + 1)}.get(kind, str(layer)),
        "ctx_idx": position,
        "feature_type": TYPES[kind],
        "token_prob": chance,
        "is_target_logit": bool(kind == LOGIT and target == 0),
        "run_idx": 0,
        "reverse_ctx_idx": 0,
        "jsNodeId": f"{'L' if kind == LOGIT else name.split('_')[0]}_{feature}-{last}",
        "clerp": label,
        "influence": None if kind == LOGIT else float(pruned.influence[index]),
        "activation": activation if math.isfinite(activation) else None,
    }


def _metadata(result: GraphResult, pruned: Pruned, slug: str) -> dict[str, Any]:
    origin = result.provenance
    words = re.sub(r"[^a-z0-9]+", "-", result.inputs.prompt.lower()).strip("-")[:40].strip("-")
    made = 0 if origin is None else int(datetime.fromisoformat(origin.created).timestamp() * 1000)
    return {
        "slug": slug or words or "graph",
        "scan": result.transcoder_name if origin is None else origin.model,
        "transcoder_list": [],
        "prompt_tokens": [_raw(result.inputs.prompt, token) for token in result.tokens],
        "prompt": result.inputs.prompt,
        "node_threshold": pruned.node_threshold,
        "schema_version": SCHEMA_VERSION,
        "info": {
            "generator": {"name": "Lantern", "version": __version__},
            "source_urls": [],
            "create_time_ms": made,
            "description": f"transcoder {result.transcoder_name} ({result.transcoder_fingerprint})",
        },
        "generation_settings": {
            "max_n_logits": result.n_targets,
            "max_feature_nodes": result.inputs.rows,
            "targets": result.target_kind,
        },
        "pruning_settings": {
            "node_threshold": pruned.node_threshold, "edge_threshold": pruned.edge_threshold,
        },
    }  # fmt: skip


def _raw(prompt: str, token: Token) -> str:
    """A token's own characters with its leading space; what is shown of it where it covers none (BOS)."""
    own = prompt[token.start : token.end]
    if not own:
        return token.visible
    return f" {own}" if token.visible.startswith("\u00b7") and not own[0].isspace() else own
