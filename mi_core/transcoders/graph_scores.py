"""How much of the output passes a node or an edge; pruning; how much of a graph the features explain.

With N[t, s] = |A[t, s]| / sum over s' of |A[t, s']| (rows of shares) and w the weights of the logits,

    influence = w N + w N^2 + ...        (all paths to the logits; the graph has no cycles, so it ends)
    replacement = influence of tokens / (influence of tokens + influence of errors)
    completeness = mean over nodes, weighted by influence, of 1 - (share of errors in the node's inputs)

The remainder (biases, masked positions) is no source here. A feature that was not expanded ends its paths:
what arrives there is neither tokens' nor errors', and `Scores.unexpanded` says how much it is. In a reader's
own subgraph, features that were left out count as errors.
These are circuit-tracer's definitions (graph.py: prune_graph, compute_graph_scores; Ameisen et al. 2025), so
the scores can be compared with Neuronpedia's; nodes without inputs (tokens, errors) count as complete there.

Cost: a few passes over the matrix of edges.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float, Int

from mi_core.errors import InputError
from mi_core.transcoders.graph_names import ERROR, FEATURE, LOGIT, TOKEN

if TYPE_CHECKING:
    from mi_core.transcoders.graph_result import GraphResult

NODE_THRESHOLD = 0.8
EDGE_THRESHOLD = 0.98


@dataclass(frozen=True, slots=True, eq=False)
class Pruned:
    """What is worth drawing.

    Attributes:
        nodes: [node] whether it is kept; tokens and logits always are.
        edges: [row, node] whether the edge is kept.
        influence: [node] cumulative: the share of all influence in the nodes at least as influential as this
            one, itself included (small = important), as in Neuronpedia's files.
        node_threshold: share of the influence that the kept nodes were to hold.
        edge_threshold: the same for edges.
    """

    nodes: Bool[np.ndarray, " node"]
    edges: Bool[np.ndarray, "row node"]
    influence: Float[np.ndarray, " node"]
    node_threshold: float = NODE_THRESHOLD
    edge_threshold: float = EDGE_THRESHOLD


@dataclass(frozen=True, slots=True)
class Scores:
    """How much of the output goes through features; NaN where nothing does.

    Attributes:
        replacement: share of end-to-end influence that reaches tokens and not errors.
        completeness: share of inputs that are not errors, weighted by influence.
        unexpanded: influence that arrives at features whose inputs were not computed, as a share of what
            arrives at tokens, errors and them; the two other scores are about the rest.
    """

    replacement: float
    completeness: float
    unexpanded: float


def shares(edges: Float[np.ndarray, "row node"]) -> Float[np.ndarray, "row node"]:
    """Absolute values, every row divided by its sum (a row of zeros stays one)."""
    size = np.abs(edges).astype(np.float64)
    return size / np.maximum(size.sum(axis=1, keepdims=True), 1e-10)


def influence(
    normalised: Float[np.ndarray, "row node"],
    row_node: Int[np.ndarray, " row"],
    layers: Int[np.ndarray, " node"],
    weights: Float[np.ndarray, " node"],
) -> Float[np.ndarray, " node"]:
    """W N + w N^2 + ..., exactly, in one pass from the logits down.

    Args:
        normalised: from `shares`.
        row_node: [row] the node that each row is about.
        layers: [node]; a row has sources in lower layers only.
        weights: [node] zero but for the logits.

    Returns:
        Influence of every node; a logit's own weight is not in it.
    """
    found = np.zeros(len(layers))
    of_row = layers[row_node]
    for layer in sorted(set(of_row.tolist()), reverse=True):
        rows = of_row == layer
        arriving = (found + weights)[row_node[rows]]
        found += arriving @ normalised[rows]
    return found


def logit_weights(result: "GraphResult") -> Float[np.ndarray, " node"]:
    """[node] the logits' weights, zero for all others."""
    weights = np.zeros(result.n_nodes)
    weights[result.node_kind == LOGIT] = result.logit_weights
    return weights


def node_influence(result: "GraphResult") -> Float[np.ndarray, " node"]:
    """The influence of every node on the weighted logits."""
    return influence(shares(result.edges), result.row_node, result.node_layer, logit_weights(result))


def prune(
    result: "GraphResult", node_threshold: float = NODE_THRESHOLD, edge_threshold: float = EDGE_THRESHOLD
) -> Pruned:
    """Keep the most influential nodes and edges.

    Nodes are kept until they hold `node_threshold` of all influence, then edges among them until these hold
    `edge_threshold`; features without inputs or outputs left, and errors without outputs, go too. Features
    that were not expanded need no inputs.

    Args:
        result: the graph.
        node_threshold: 0 to 1.
        edge_threshold: 0 to 1.

    Raises:
        InputError: a threshold outside 0 to 1.
    """
    for name, value in (("node", node_threshold), ("edge", edge_threshold)):
        if not 0 <= value <= 1:
            raise InputError(f"The {name} threshold is {value!r:.40}", fix="Give a number from 0 to 1")
    found, kinds, rows = node_influence(result), result.node_kind, result.row_node
    always = (kinds == TOKEN) | (kinds == LOGIT)
    nodes = always | (found >= _cut(found, node_threshold))
    kept = np.where(nodes[rows, None] & nodes[None], result.edges, np.float32(0))
    normalised, weights = shares(kept), logit_weights(result)
    arriving = influence(normalised, rows, result.node_layer, weights) + weights
    strength = normalised * arriving[rows, None]
    edges = strength >= _cut(strength.ravel(), edge_threshold)
    edges &= strength > 0
    _drop_loose(result, nodes, edges, always)
    order = np.argsort(-found, kind="stable")
    cumulative = np.empty_like(found)
    cumulative[order] = found[order].cumsum() / max(found.sum(), 1e-300)
    return Pruned(nodes, edges, np.minimum(cumulative, 1.0), float(node_threshold), float(edge_threshold))


def _drop_loose(
    result: "GraphResult",
    nodes: Bool[np.ndarray, " node"],
    edges: Bool[np.ndarray, "row node"],
    always: Bool[np.ndarray, " node"],
) -> None:
    """Takes away, in place, nodes that nothing leaves or (expanded features) nothing enters, one and all."""
    rows, kinds = result.row_node, result.node_kind
    needs_inputs = (kinds == FEATURE) & result.node_expanded
    while True:
        edges &= nodes[rows, None] & nodes[None]
        entered = np.ones(len(nodes), dtype=bool)
        entered[rows] = edges.any(axis=1)
        stays = always | (nodes & edges.any(axis=0) & (entered | ~needs_inputs))
        if (stays == nodes).all():
            return
        nodes &= stays


def _cut(values: np.ndarray, share: float) -> float:
    """The smallest value that is kept so that the kept ones hold a share of the sum."""
    ordered = np.sort(values)[::-1]
    total = ordered.sum()
    if total <= 0:
        return 0.0
    index = int(np.searchsorted(ordered.cumsum() / total, share))
    return float(ordered[min(index, max(int((ordered > 0).sum()) - 1, 0))])


def scores(result: "GraphResult", nodes: Bool[np.ndarray, " node"] | None = None) -> Scores:
    """Replacement and completeness of a graph, or of a part of it.

    Args:
        result: the graph.
        nodes: which features stay features; the others count as errors. None = all.
    """
    kinds = result.node_kind
    out = np.zeros(result.n_nodes, dtype=bool) if nodes is None else (kinds == FEATURE) & ~nodes
    errors = (kinds == ERROR) | out
    rows = ~out[result.row_node]
    normalised, row_node = shares(result.edges[rows]), result.row_node[rows]
    weights = logit_weights(result)
    found = influence(normalised, row_node, result.node_layer, weights)
    of_tokens, of_errors = found[kinds == TOKEN].sum(), found[errors].sum()
    open_ends = found[(kinds == FEATURE) & ~result.node_expanded & ~out].sum()
    arriving = found + weights
    complete = np.ones(result.n_nodes)
    complete[row_node] = 1 - normalised[:, errors].sum(axis=1)
    return Scores(
        _ratio(of_tokens, of_tokens + of_errors),
        _ratio((complete * arriving).sum(), arriving.sum()),
        _ratio(open_ends, of_tokens + of_errors + open_ends),
    )


def subgraph_scores(result: "GraphResult", pinned: Sequence[int]) -> Scores:
    """Scores of a reader's own subgraph: features that are not pinned count as errors.

    Args:
        result: the graph.
        pinned: indices of nodes; tokens and logits always belong to it, and pinned errors stay errors.
    """
    kept = np.zeros(result.n_nodes, dtype=bool)
    kept[list(pinned)] = True
    return scores(result, kept)


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole > 0 else float("nan")
