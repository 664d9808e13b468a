"""What an attribution graph predicts for removing a node, against what removing it does to the model.

Predicted, by the graph alone: removing node s takes its edges away; a feature t that loses input answers
along its own edges, as long as it stays active (its activation is its pre-activation):

    change[s] = -1,   change[t] = sum over sources u of edge[t, u] * change[u] / a_t      (relative changes)
    predicted = sum over sources u of edge[logit, u] * change[u]        (all paths from s to the logit)
    direct    = -edge[logit, s]                                         (with everything else held)

Actual: the model runs with s's writes subtracted (from the MLP outputs of every layer that it writes to, or
from the embedding), and the logit is read. Nothing is frozen, or attention patterns are. What the graph
leaves out shows as distance from the diagonal: thresholds, features that wake up, errors that answer, norms
that rescale, attention that moves. Effects are edited minus baseline, in logits before the softcap, of what
`effect_on` names: a logit node (minus the vocabulary's mean, or a difference of two logits), the difference
of two logit nodes, or the sum of all with the graph's weights (`graph_removals_target`). "logit" above is
then that weighted sum of the logits' rows, and the same weighted sum of logits is read in the model.
Source: Ameisen et al. 2025, "validating the replacement model's local mechanisms"; the scatter is ours.

Cost: the graph, and one row of a forward pass per node (one more layer of attention patterns where frozen).
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.causal_trace_result import Step
from mi_core.engine import Edit, observe, run
from mi_core.errors import Cancelled, InputError
from mi_core.model.model import LoadedModel
from mi_core.provenance import Provenance
from mi_core.transcoders.graph_checks import sum_limit
from mi_core.transcoders.graph_names import FEATURE, LOGIT
from mi_core.transcoders.graph_parts import GraphParts, uncapped
from mi_core.transcoders.graph_places import Place, find_place, places, writing
from mi_core.transcoders.graph_removals_result import Freeze, GraphEffectsInputs, GraphEffectsResult
from mi_core.transcoders.graph_removals_target import EffectTarget, effect_target
from mi_core.transcoders.graph_result import GraphResult
from mi_core.transcoders.graph_run import attribution_graph, prepare

ROWS_AT_ONCE = 32
CHECKED_NODES = 12


def graph_effects(
    model: LoadedModel,
    inputs: GraphEffectsInputs,
    *,
    on_step: Callable[[Step[GraphEffectsResult]], None] | None = None,
) -> GraphEffectsResult:
    """Remove nodes one at a time: what the graph predicts, and what happens.

    Args:
        model: a loaded model.
        inputs: the graph's inputs, the nodes, and what is frozen.
        on_step: told of nodes; may raise `Cancelled`: the rest stays NaN.

    Raises:
        InputError: a name is no node of this graph, or is a logit; the graph does not explain `effect_on`.
        TranscoderError, SiteMissing, ModelError, OutOfMemory: see `attribution_graph`.
    """
    started = time.perf_counter()
    graph, made = attribution_graph(model, inputs.graph), prepare(model, inputs.graph)
    known = places(made.parts)
    removed = [find_place(known, name) for name in inputs.nodes]
    if any(place.kind == "logit" for place in removed):
        raise InputError("A logit cannot be removed", fix="Choose features, errors or tokens")
    target = effect_target(graph, inputs.effect_on)
    predicted, direct = predicted_effects(graph, [place.index for place in removed], target)
    actual, cancelled = _actual(model, made.parts, removed, target, inputs.freeze, on_step)
    result = GraphEffectsResult(
        inputs=inputs,
        provenance=Provenance.of(model, seed=None),
        target_name=target.label,
        predicted=predicted,
        direct=direct,
        actual=actual,
        logit_names=graph.target_names,
        logit_weights=target.weights,
        warnings=graph.warnings,
        cancelled=cancelled,
    )
    checks = (
        _sum_rule(graph, made.parts, target, model.dtype),
        _held(made.parts, removed, target, direct, model.dtype),
    )
    return replace(result, checks=checks, seconds=time.perf_counter() - started)


def predicted_effects(
    graph: GraphResult, removed: Sequence[int], target: EffectTarget | None = None
) -> tuple[Float[np.ndarray, " node"], Float[np.ndarray, " node"]]:
    """What the graph says of removing nodes, one at a time: (along all paths, along the edge alone).

    Args:
        graph: an attribution graph.
        removed: indices of nodes.
        target: what changes; None = the first logit.

    Returns:
        Changes of the target.
    """
    # change[u, k]: relative change of node u when the k-th node is removed.
    change = np.zeros((graph.n_nodes, len(removed)))
    change[list(removed), range(len(removed))] = -1.0
    fixed = change != 0
    features = graph.node_kind[graph.row_node] == FEATURE
    layers = graph.node_layer[graph.row_node]
    for layer in sorted(set(layers[features].tolist())):
        rows = np.flatnonzero(features & (layers == layer))
        nodes = graph.row_node[rows]
        answer = graph.edges[rows].astype(np.float64) @ change / graph.node_activation[nodes, None]
        change[nodes] = np.where(fixed[nodes], change[nodes], answer)
    logit = _row(graph, target or effect_target(graph))
    return logit @ change, -logit[list(removed)]


def _row(graph: GraphResult, target: EffectTarget) -> Float[np.ndarray, " node"]:
    """The target's edges: the weighted sum of the logits' rows."""
    logits = graph.node_kind[graph.row_node] == LOGIT
    return target.weights @ graph.edges[logits].astype(np.float64)


def _actual(
    model: LoadedModel,
    parts: GraphParts,
    removed: Sequence[Place],
    target: EffectTarget,
    freeze: Freeze,
    on_step: Callable[[Step[GraphEffectsResult]], None] | None,
) -> tuple[Float[np.ndarray, " node"], bool]:
    """(effects by running the model, whether it was stopped)."""
    found = np.full(len(removed), np.nan)
    baseline = float(target.weights @ parts.logit_value.cpu().double().numpy())
    held = _patterns(model, parts) if freeze == "attention" else []
    for start in range(0, len(removed), ROWS_AT_ONCE):
        try:
            if on_step is not None:
                on_step(Step(start, len(removed), None, None, "nodes"))
        except Cancelled:
            return found, True
        part = removed[start : start + ROWS_AT_ONCE]
        tokens = torch.tensor([parts.frozen.tokens] * len(part))
        edits = [*held, *_removals(model, parts, part)]
        logits = run(model, tokens, edits=edits, last=1).logits[:, -1]
        for index, row in enumerate(logits):
            found[start + index] = _read(model, parts, target, row) - baseline
    return found, False


def _read(
    model: LoadedModel, parts: GraphParts, target: EffectTarget, logits: Float[Tensor, " d_vocab"]
) -> float:
    """The target's value in a run: the weighted sum of what the logit nodes stand for."""
    wide = uncapped(model, logits.float() if logits.dtype.itemsize < 4 else logits)
    found = 0.0
    for weight, node in zip(target.weights.tolist(), parts.targets, strict=True):
        other = wide[node.ids[1]] if len(node.ids) == 2 else wide.mean()
        found += weight * float(wide[node.ids[0]] - other)
    return found


def _patterns(model: LoadedModel, parts: GraphParts) -> list[Edit]:
    """Hold all attention patterns at the clean run's."""
    seen = observe(model, parts.frozen.tokens, ("pattern",))
    layers = range(parts.frozen.n_layers)
    return [Edit("pattern", layer, "set", value=seen["pattern", layer].clone()[None]) for layer in layers]


def _removals(model: LoadedModel, parts: GraphParts, removed: Sequence[Place]) -> list[Edit]:
    """One edit per place that any of the nodes writes to; row i lacks node i."""
    embed = parts.frozen.embed
    deltas: dict[int, Tensor] = {}
    for row, place in enumerate(removed):
        written, first = writing(parts, place)
        for layer, delta in (*written.items(), *(() if first is None else ((-1, first),))):
            if layer not in deltas:
                deltas[layer] = embed.new_zeros(len(removed), *embed.shape)
            deltas[layer][row] = -delta[0]
    edits = []
    for layer, delta in sorted(deltas.items()):
        site, at = ("embed", None) if layer < 0 else ("mlp_out", layer)
        edits.append(Edit(site, at, "add", value=delta.to(model.dtype)))
    return edits


def _sum_rule(graph: GraphResult, parts: GraphParts, target: EffectTarget, dtype: torch.dtype) -> Check:
    """The target's edges and remainder add up to its value in the model."""
    row, remainder = _row(graph, target), float(target.weights @ graph.remainder[-graph.n_targets :])
    value = float(target.weights @ parts.logit_value.cpu().double().numpy())
    off = abs(value - float(row.sum()) - remainder)
    limit = sum_limit(dtype, float(np.abs(row).sum()) + abs(remainder))
    return Check(
        "edges + remainder = the value of what effects are read on",
        off <= limit,
        f"{float(row.sum()):.6g} + {remainder:.6g} = {value:.6g} to {off:.1e} (limit {limit:.0e}).",
    )


def _held(
    parts: GraphParts,
    removed: Sequence[Place],
    target: EffectTarget,
    direct: Float[np.ndarray, " node"],
    dtype: torch.dtype,
) -> Check:
    """Pushed forward with everything held, removals change the target by exactly minus their edges."""
    some, reads = removed[:CHECKED_NODES], parts.logit_read
    worst, read = 0.0, torch.from_numpy(target.weights).to(reads) @ reads
    for index, place in enumerate(some):
        deltas, embed = writing(parts, place)
        moved = parts.frozen.push(deltas, embed).final[0, -1] if deltas or embed is not None else read * 0
        worst = max(worst, abs(-float(moved @ read) - float(direct[index])))
    limit = sum_limit(dtype, float(np.abs(direct).max(initial=0.0)))
    return Check(
        "with everything held, removing a node changes the target by minus its edge",
        worst <= limit,
        f"{len(some)} nodes pushed forward; largest difference {worst:.1e} (limit {limit:.0e}).",
    )
