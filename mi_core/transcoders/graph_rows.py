"""Rows of an attribution graph by an explicit backward sweep over the frozen pass.

A row is the gradient of one target (a feature's pre-activation, a logit) on its way back to the embedding;
at every MLP output it is multiplied with what the nodes write there, at every attention layer with the
biases' part, at the end with the tokens' embeddings:

    edge[t, s] = sum over layers m of (gradient of t at mlp_out[m, p_s]) . (what s writes to m)
    remainder[t] = the same with the constants, + the constant in the target's own reading

All targets go back together; a target of layer l joins at layer l. Cost: 4 rows pos d_model^2 per layer for
attention, and 2 rows d_model for every vector that a node writes. The same rows by automatic differentiation
are in `linear_autograd`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mi_core.transcoders.graph_parts import GraphParts

SWEEP_BYTES = 256 * 2**20
"""Memory for the gradients of one sweep and their intermediate values."""


@dataclass(frozen=True, eq=False, slots=True)
class Rows:
    """Rows of edges.

    Attributes:
        edges: [row, node without logits], in the dtype of the computation.
        remainder: [row].
    """

    edges: Float[Tensor, "row source"]
    remainder: Float[Tensor, " row"]


def rows_at_once(parts: GraphParts) -> int:
    """How many rows one sweep takes within `SWEEP_BYTES`."""
    size = parts.frozen.n_pos * parts.frozen.embed.shape[1] * parts.frozen.embed.element_size()
    return max(8, SWEEP_BYTES // (6 * size))


def logit_rows(parts: GraphParts) -> Rows:
    """The rows of all logits."""
    gradient = _nothing(parts, len(parts.targets))
    gradient[:, -1] = parts.logit_read
    nobody = torch.zeros(0, dtype=torch.long, device=gradient.device)
    found = _sweep(parts, gradient, nobody)
    return Rows(found[:, :-1], found[:, -1] + parts.logit_constant)


def feature_rows(parts: GraphParts, nodes: Int[Tensor, " row"]) -> Rows:
    """The rows of feature nodes.

    Args:
        parts: of the graph.
        nodes: indices of features, in any order; the rows come in the same.
    """
    with torch.inference_mode():
        # Deepest layer first: the rows that are on their way at a layer then stand at the front.
        order = torch.argsort(parts.active.layer[nodes], descending=True, stable=True)
        found = torch.empty(
            len(nodes), parts.first_logit + 1, dtype=parts.read.dtype, device=parts.read.device
        )
        for chosen in order.split(rows_at_once(parts)):
            gradient = _nothing(parts, len(chosen))
            found[chosen] = _sweep(parts, gradient, nodes[chosen])
        return Rows(found[:, :-1], found[:, -1] + parts.read_constant[nodes])


def _nothing(parts: GraphParts, rows: int) -> Tensor:
    embed = parts.frozen.embed
    return torch.zeros(rows, *embed.shape, dtype=embed.dtype, device=embed.device)


def _sweep(
    parts: GraphParts, gradient: Float[Tensor, "row pos d_model"], nodes: Int[Tensor, " join"]
) -> Float[Tensor, "row column"]:
    """Send gradients back; columns are all nodes but the logits, and last the remainder.

    Args:
        parts: of the graph.
        gradient: after the last block; changed in place.
        nodes: features that join on the way, deepest layer first: row i is node i. None of them = the rows
            are what `gradient` holds from the start.
    """
    frozen, layers = parts.frozen, parts.active.layer[nodes]
    joins = len(nodes) > 0
    active = [int((layers > layer).sum()) if joins else len(gradient) for layer in range(frozen.n_layers)]
    found = gradient.new_zeros(len(gradient), parts.first_logit + 1)
    with torch.inference_mode():
        for place, layer, live in frozen.backward(gradient, active):
            if place == "mlp_out":
                for position, (vectors, columns) in enumerate(_at(parts, layer)):
                    found[: len(live), columns] += live[:, position] @ vectors.T
            elif place == "attn_out":
                constant = frozen.attention[layer].constant
                found[: len(live), -1] += live.flatten(1) @ constant.flatten()
            if place == frozen.read_site and joins:
                here = (layers == layer).nonzero()[:, 0]
                live[here, parts.active.position[nodes[here]]] += parts.read[nodes[here]]
        tokens = torch.einsum("rtd,td->rt", gradient, frozen.embed)
        found[:, parts.first_token : parts.first_logit] = tokens
    return found


def _at(parts: GraphParts, layer: int) -> Iterator[tuple[Tensor, Tensor]]:
    writes = parts.writes[layer]
    return zip(writes.vectors, writes.columns, strict=True)
