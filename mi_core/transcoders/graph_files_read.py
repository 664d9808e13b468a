"""Attribution graphs from Neuronpedia's and circuit-tracer's JSON (schema version 1).

A file has no remainder and only pruned edges: what is read has NaN there, and rows are as far as the file
has them. Its texts come from strangers and are kept as texts. Older files call an error of layer l
`0_l_position`, which may also be the id of a feature of layer 0: what a node is, is decided by
`feature_type`; the links of such an id cannot be told apart, and a warning says so.
Facts: Neuronpedia's graph-schema.json; circuit-tracer's graph_models.py.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Int

from mi_core.analyses.plain import damage_told
from mi_core.analyses.records import MAX_RECORD_BYTES
from mi_core.errors import InputError
from mi_core.tokens import Token
from mi_core.transcoders.graph_inputs import GraphInputs
from mi_core.transcoders.graph_names import ERROR, FEATURE, LOGIT, TOKEN
from mi_core.transcoders.graph_result import GraphResult
from mi_core.transcoders.graph_scores import logit_weights, node_influence
from mi_core.visible import visible

SCHEMA_VERSION = 1
TYPES = {
    FEATURE: "cross layer transcoder",
    ERROR: "mlp reconstruction error",
    TOKEN: "embedding",
    LOGIT: "logit",
}
MAX_EDGE_NUMBERS = 50_000_000
MAX_TEXT = 20_000
MAX_LAYERS = 10_000
MAX_NUMBER = 2**31
_OUTPUT = re.compile(r'Output "(.*)" \(p=[0-9.eE+-]+\)', re.DOTALL)


@dataclass(frozen=True, slots=True, eq=False)
class ImportedGraph:
    """A graph from a file.

    Attributes:
        result: the graph; provenance None, remainder and row values NaN.
        pinned: indices of pinned nodes.
        groups: supernodes: name -> indices.
        labels: index of a node -> its label; a stranger's text.
    """

    result: GraphResult
    pinned: tuple[int, ...] = ()
    groups: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    labels: Mapping[int, str] = field(default_factory=dict)


def uncantor(number: int) -> tuple[int, int]:
    """(layer, feature) of a Cantor number."""
    diagonal = (math.isqrt(8 * number + 1) - 1) // 2
    feature = number - diagonal * (diagonal + 1) // 2
    return diagonal - feature, feature


def read_neuronpedia(text: str | bytes) -> ImportedGraph:
    """A graph from Neuronpedia's or circuit-tracer's JSON.

    Args:
        text: the file.

    Raises:
        InputError: no such file, damaged, or too large.
    """
    if len(text) > MAX_RECORD_BYTES:
        raise InputError(f"The file is larger than {MAX_RECORD_BYTES // 1_000_000} MB")
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError("This is not a JSON file", why=str(error)[:200]) from error
    wanted = ("metadata", "qParams", "nodes", "links")
    if not isinstance(record, dict) or any(name not in record for name in wanted):
        raise InputError(
            "This is no attribution graph of Neuronpedia or circuit-tracer",
            why=f"it needs the keys {', '.join(wanted)}",
        )
    version = record["metadata"].get("schema_version", 1) if isinstance(record["metadata"], dict) else None
    if version not in (None, SCHEMA_VERSION):
        raise InputError(f"This graph has schema version {version!r}", why="only version 1 can be read")
    with damage_told("attribution graph"):
        return _read(record)


@dataclass(frozen=True, slots=True)
class _Node:
    """A node of a file, in Lantern's terms; its fields in this order sort it among the others."""

    kind: int
    layer: int
    position: int
    feature: int
    id: str = field(compare=False)
    probability: float = field(compare=False)
    activation: float = field(compare=False)
    label: str = field(compare=False)

    @property
    def key(self) -> tuple[int, int, int, int]:
        """Its place in the order of nodes; logits stay in the file's order."""
        if self.kind == LOGIT:
            return self.kind, 0, 0, 0
        return self.kind, self.layer, self.position, self.feature


def _read(record: Mapping[str, Any]) -> ImportedGraph:
    metadata, parameters = record["metadata"], record["qParams"]
    nodes = sorted((_read_node(one) for one in record["nodes"]), key=lambda node: node.key)
    if len({(node.kind, node.layer, node.position, node.feature) for node in nodes}) < len(nodes):
        raise ValueError("a node is listed twice")
    layers = [node.layer for node in nodes if node.kind in (FEATURE, ERROR)]
    logits = [int(str(one["layer"])) for one in record["nodes"] if _kind(one) == LOGIT]
    if any(not 0 < layer <= MAX_LAYERS + 2 for layer in logits):
        raise ValueError("a logit stands in no layer above the model")
    n_layers = max([layer + 1 for layer in layers] + [layer - 1 for layer in logits] + [1])
    nodes = [replace(node, layer=n_layers) if node.kind == LOGIT else node for node in nodes]
    places, warnings = _places(nodes)
    tokens = _tokens(metadata, nodes)
    if any(not 0 <= node.position < len(tokens) for node in nodes):
        raise ValueError("a node stands at a token that the prompt does not have")
    result = _graph(metadata, nodes, tokens, n_layers, _edges(record["links"], nodes, places), warnings)
    pinned = [places[one] for one in parameters.get("pinnedIds") or [] if str(one) in places]
    groups: dict[str, tuple[int, ...]] = {}
    for one in parameters.get("supernodes") or []:
        name, members = str(one[0])[:MAX_TEXT], [places[member] for member in one[1:] if member in places]
        groups[name] = tuple(dict.fromkeys([*groups.get(name, ()), *members]))
    labels = {index: node.label for index, node in enumerate(nodes) if node.label and node.kind != LOGIT}
    return ImportedGraph(result, tuple(dict.fromkeys(pinned)), groups, labels)


def _kind(one: Mapping[str, Any]) -> int:
    told = str(one["feature_type"])
    known = {name: kind for kind, name in TYPES.items()}
    if told not in known and "error" not in told and "transcoder" not in told:
        raise ValueError(f"feature_type {told[:60]!r}")
    return known.get(told, ERROR if "error" in told else FEATURE)


def _read_node(one: Mapping[str, Any]) -> _Node:
    kind, name, position = _kind(one), str(one["node_id"]), int(one["ctx_idx"])
    parts = name.split("_")
    layer = int(str(one["layer"])) if kind in (FEATURE, ERROR) else -1
    if kind == ERROR:
        feature = -1
    elif len(parts) == 3 and parts[1].isdecimal():
        feature = int(parts[1])
    else:
        feature = uncantor(int(one["feature"]))[1] if kind == FEATURE else int(one["feature"])
    if (layer < 0 and kind in (FEATURE, ERROR)) or layer > MAX_LAYERS:
        raise ValueError(f"layer {layer}")
    if not -1 <= feature < MAX_NUMBER:
        raise ValueError(f"feature or token {str(feature)[:40]}")
    return _Node(
        kind, layer, position, feature, name, _number(one.get("token_prob")), _number(one.get("activation")),
        str(one.get("clerp") or "")[:MAX_TEXT],
    )  # fmt: skip


def _number(value: Any) -> float:
    try:
        number = float("nan") if value is None else float(value)
    except OverflowError as error:  # JSON's whole numbers have no end
        raise ValueError("a number is too large") from error
    return number if math.isfinite(number) else float("nan")


def _places(nodes: Sequence[_Node]) -> tuple[dict[str, int], tuple[str, ...]]:
    """Index by id, and a warning for ids that two nodes share (the feature keeps it)."""
    found: dict[str, int] = {}
    shared = 0
    for index, node in enumerate(nodes):
        shared += node.id in found
        found.setdefault(node.id, index)
    if not shared:
        return found, ()
    return found, (
        f"{shared} ids of this file belong to a feature and to an error at once; their edges cannot be told "
        "apart and are shown at the feature.",
    )


def _tokens(metadata: Mapping[str, Any], nodes: Sequence[_Node]) -> tuple[Token, ...]:
    texts = [str(text)[:MAX_TEXT] for text in metadata["prompt_tokens"]]
    ids = {node.position: node.feature for node in nodes if node.kind == TOKEN}
    made, start = [], 0
    for position, text in enumerate(texts):
        shown = visible(text) if text else "\u2205"
        made.append(Token(position, ids.get(position, -1), shown, start, start + len(text)))
        start += len(text)
    if not made:
        raise ValueError("the prompt has no tokens")
    return tuple(made)


def _edges(links: Any, nodes: Sequence[_Node], places: Mapping[str, int]) -> Iterator[tuple[int, int, float]]:
    """(target, source, weight) of every link between nodes of the file."""
    for link in links:
        source, target = places.get(str(link["source"])), places.get(str(link["target"]))
        weight = _number(link["weight"])
        if source is None or target is None or not math.isfinite(weight):
            continue
        if nodes[target].kind not in (FEATURE, LOGIT) or nodes[source].layer >= nodes[target].layer:
            raise ValueError(f"a link from {nodes[source].id[:40]!r} to {nodes[target].id[:40]!r}")
        yield target, source, weight


def _graph(
    metadata: Mapping[str, Any],
    nodes: Sequence[_Node],
    tokens: tuple[Token, ...],
    n_layers: int,
    links: Iterator[tuple[int, int, float]],
    warnings: tuple[str, ...],
) -> GraphResult:
    listed = list(links)
    kinds = np.array([node.kind for node in nodes], dtype=np.int64)
    rows = sorted({target for target, _, _ in listed} | set(np.flatnonzero(kinds == LOGIT).tolist()))
    if len(rows) * len(nodes) > MAX_EDGE_NUMBERS:
        raise InputError(f"This graph has {len(nodes):,} nodes", fix="Prune it before saving it")
    targets = [node for node in nodes if node.kind == LOGIT]
    chances = np.array([node.probability for node in targets], dtype=np.float64)
    weights = np.nan_to_num(chances) if np.nan_to_num(chances).sum() > 0 else np.ones(len(targets))
    prompt = str(metadata.get("prompt") or "") or "".join(token.visible for token in tokens)
    result = GraphResult(
        inputs=GraphInputs(prompt[:MAX_TEXT], show_bos=True),
        provenance=None,
        tokens=tokens,
        n_layers=n_layers,
        transcoder_name=str(metadata.get("scan") or "")[:1000],
        transcoder_fingerprint="",
        target_kind="tokens",
        target_names=tuple(_target_name(node) for node in targets),
        target_ids=tuple((node.feature,) for node in targets),
        logit_weights=weights,
        masked=(),
        fvu=np.full(n_layers, np.nan),
        **_node_fields(nodes, kinds),
        **_row_fields(rows, len(nodes), listed),
        influence=np.zeros(len(nodes)),
        warnings=(
            "This graph was read from a file: it has the edges that its maker kept, without a remainder, so "
            "sums cannot be checked and scores are those of the pruned graph.",
            *warnings,
        ),
    )
    whole = node_influence(result) + logit_weights(result)
    return replace(result, influence=whole / max(weights.sum(), 1e-300))


def _node_fields(nodes: Sequence[_Node], kinds: Int[np.ndarray, " node"]) -> dict[str, Any]:
    """The graph's fields of its nodes."""
    return {
        "node_kind": kinds,
        "node_layer": np.array([node.layer for node in nodes], dtype=np.int64),
        "node_position": np.array([node.position for node in nodes], dtype=np.int64),
        "node_feature": np.array([node.feature for node in nodes], dtype=np.int64),
        "node_activation": np.array([node.activation for node in nodes], dtype=np.float32),
        "node_probability": np.where(kinds == LOGIT, [node.probability for node in nodes], np.nan),
    }


def _row_fields(rows: list[int], n_nodes: int, links: list[tuple[int, int, float]]) -> dict[str, Any]:
    """The graph's fields of the rows that its file has; what a file does not tell of a row is NaN."""
    edges = np.zeros((len(rows), n_nodes), np.float32)
    row_of = {node: row for row, node in enumerate(rows)}
    for target, source, weight in links:
        edges[row_of[target], source] = weight
    expanded = np.zeros(n_nodes, dtype=bool)
    expanded[rows] = True
    unknown = np.full(len(rows), np.nan)
    return {
        "node_expanded": expanded,
        "edges": edges,
        "row_node": np.array(rows, dtype=np.int64),
        "remainder": unknown,
        "row_value": unknown.copy(),
        "residual": unknown.copy(),
    }


def _target_name(node: _Node) -> str:
    """What a logit speaks for, from circuit-tracer's label."""
    found = _OUTPUT.fullmatch(node.label)
    text = found[1] if found else node.label or f"token {node.feature}"
    return visible(text)
