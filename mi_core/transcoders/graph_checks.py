"""Identities of an attribution graph, tried on the graph itself and shown with it, and what to warn of."""

from collections.abc import Iterator

import numpy as np
import torch

from mi_core.analyses.causal_trace_parts import Check
from mi_core.model.model import LoadedModel
from mi_core.transcoders.graph_names import ERROR, LOGIT
from mi_core.transcoders.graph_parts import GraphParts
from mi_core.transcoders.graph_result import GraphResult
from mi_core.transcoders.graph_scores import scores
from mi_core.transcoders.linear_autograd import autograd_rows
from mi_core.transcoders.transcoder import Transcoder

SUM_LIMIT = 1e-4
_HALF_LIMIT = {torch.bfloat16: 5e-2, torch.float16: 1e-2}
CHECKED_ROWS = 4
CHECKED_BYTES = 256 * 2**20


def sum_limit(dtype: torch.dtype, largest: float) -> float:
    """The largest |residual| that rounding in a model of this dtype explains.

    Args:
        dtype: of the model.
        largest: sum of absolute terms in a row; rounding grows with it.
    """
    if dtype in _HALF_LIMIT:
        return _HALF_LIMIT[dtype] * max(1.0, largest)
    return max(SUM_LIMIT, 1e-6 * largest)


def sum_rule(result: GraphResult, dtype: torch.dtype) -> Check:
    """Every row adds up to the number that the model computed."""
    terms = np.abs(result.edges).sum(axis=1, dtype=np.float64) + np.abs(result.remainder)
    limit = sum_limit(dtype, float(terms.max(initial=0.0)))
    worst = result.worst_residual
    return Check(
        "edges + remainder = the target's value, every row",
        worst <= limit,
        f"Largest difference {worst:.1e} over {result.n_rows:,} rows (limit {limit:.0e}).",
    )


def second_way(
    model: LoadedModel, transcoder: Transcoder, parts: GraphParts, result: GraphResult
) -> Iterator[Check]:
    """A few rows made again by automatic differentiation through the model's own modules.

    Left out where the decoder rows, which are read again for it, are larger than `CHECKED_BYTES`.
    """
    numbers = sum(vectors.numel() for writes in parts.writes for vectors in writes.vectors)
    if numbers * parts.read.element_size() > CHECKED_BYTES:
        return
    features = result.row_node[result.node_kind[result.row_node] != LOGIT]
    strongest = features[np.argsort(-result.influence[features], kind="stable")[:CHECKED_ROWS]]
    again = autograd_rows(model, transcoder, parts, torch.from_numpy(strongest.copy()))
    rows = [
        *np.searchsorted(result.row_node, strongest),
        *range(result.n_rows - result.n_targets, result.n_rows),
    ]
    edges = result.edges[rows][:, : parts.first_logit]
    off = float(np.abs(edges - again.edges.float().numpy()).max(initial=0.0))
    largest = float(np.abs(edges).max(initial=0.0))
    limit = sum_limit(model.dtype, largest)
    yield Check(
        "automatic differentiation through the model gives the same edges",
        off <= limit,
        f"{len(rows)} rows compared; largest difference {off:.1e}, largest edge {largest:.2g} "
        f"(limit {limit:.0e}).",
    )


def graph_warnings(result: GraphResult, transcoder: Transcoder) -> Iterator[str]:
    """What a reader has to know before the figure."""
    yield from transcoder.warnings
    bad = [layer for layer, value in enumerate(result.fvu.tolist()) if value > 1]
    if bad:
        named = ", ".join(map(str, bad))
        yield (
            f"The transcoder explains less than nothing of the MLP output of layer {named}: wrong hooks, the "
            "wrong model, or a prompt that lacks its BOS token. Do not trust this graph."
        )
    absent = [str(layer) for layer, value in enumerate(result.fvu.tolist()) if np.isnan(value)]
    if absent and len(result.tokens) - len(result.masked) > 1:
        yield f"The transcoder writes nothing to layer {', '.join(absent)}: all of its MLP output is error."
    if result.unexpanded:
        share = scores(result).unexpanded
        yield (
            f"{result.unexpanded:,} of {result.n_features:,} features are not expanded (their inputs were "
            f"not computed): {share:.1%} of the influence ends in them. Scores are about the expanded rows."
        )
    if not result.n_features:
        yield "No feature is active on this prompt: everything is error."
    elif not (result.node_kind == ERROR).any():
        yield "Every token of this prompt is a special token: there is nothing to explain."
