"""An attribution graph: which features, errors and tokens add up to a logit, through which other features?

With attention patterns and the scales of all norms held at what they are on this prompt, every feature's
pre-activation and every logit is a linear function of the embeddings and of the MLP outputs, and these are
sums over features, errors and constants (`graph_parts`). So

    pre-activation[t] (or logit[t]) = sum over nodes s of edge[t, s] + remainder[t]         exactly
    edge[t, s] = a_s * (sum over layers m that s writes to, below t, of W_dec[s, m] . J . v_t)

J is the linear map from mlp_out[m] at s's token to what t reads, v_t is t's encoder row (W_U - mean for a
logit). The remainder holds b_enc, b_dec, attention and norm biases and what MLPs write at leading special
tokens. Doubling a feature with all of this held changes every target by exactly its edge; the real model also
moves its attention, its norms and the features' thresholds (`graph_effects` compares). Why attention looks
where it looks is not explained by the graph.

Rows are computed for the logits and for the most influential `inputs.rows` features: greedily, in batches,
by the influence that they have in the graph so far (circuit-tracer's heuristic). Every computed row is exact.

Sources: Ameisen et al. 2025 ("Circuit Tracing: Revealing Computational Graphs in Language Models"),
circuit-tracer. Cost: one forward pass, 4 rows tokens d_model^2 operations per layer and 2 rows d_model per
vector that a node writes.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int

from mi_core.analyses.causal_trace_result import Step
from mi_core.errors import Cancelled
from mi_core.model.model import LoadedModel
from mi_core.provenance import Provenance
from mi_core.tokens import TokenizedPrompt, prompt_warnings, tokenize
from mi_core.transcoders.encode import fit
from mi_core.transcoders.graph_checks import graph_warnings, second_way, sum_rule
from mi_core.transcoders.graph_inputs import GraphInputs
from mi_core.transcoders.graph_names import ERROR, FEATURE, LOGIT, TOKEN
from mi_core.transcoders.graph_parts import GraphParts, graph_parts
from mi_core.transcoders.graph_result import GraphResult, TargetKind
from mi_core.transcoders.graph_rows import feature_rows, logit_rows, rows_at_once
from mi_core.transcoders.graph_scores import influence, node_influence, shares
from mi_core.transcoders.graph_targets import choose_targets
from mi_core.transcoders.linear import check_hooks, frozen_pass
from mi_core.transcoders.store import load_transcoder
from mi_core.transcoders.transcoder import Transcoder

OnStep = Callable[[Step[GraphResult]], None]

BATCHES = 8
"""In how many greedy batches the budget is spent, when it does not cover all features."""


def attribution_graph(
    model: LoadedModel, inputs: GraphInputs, *, on_step: OnStep | None = None
) -> GraphResult:
    """The attribution graph of a prompt.

    Args:
        model: a loaded model.
        inputs: prompt, transcoder, targets and budget.
        on_step: told of rows; may raise `Cancelled`: with the logits' rows done, what is done is returned.

    Raises:
        InputError: the inputs do not fit the model.
        TranscoderError: there is no such transcoder, it is for another model, has no decoders here, or does
            not stand for MLPs.
        SiteMissing, ModelError: the model cannot be held linear, with the reason.
        OutOfMemory: the device is too small.
    """
    started = time.perf_counter()
    made = prepare(model, inputs)
    edges = _Edges(made.parts)
    cancelled = edges.fill(inputs.rows, on_step or (lambda step: None))
    result = _result(model, made, edges)
    again = second_way(model, made.transcoder, made.parts, result)
    checks = (sum_rule(result, model.dtype), *again)
    return replace(
        result,
        checks=checks,
        warnings=(*result.warnings, *graph_warnings(result, made.transcoder)),
        cancelled=cancelled,
        seconds=time.perf_counter() - started,
    )


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """The inputs, resolved on the model.

    Attributes:
        inputs: as asked.
        prompt: tokenised.
        transcoder: opened.
        parts: nodes, writes and reads.
        target_kind: how the logits were chosen.
        warnings: about prompt and tokens.
    """

    inputs: GraphInputs
    prompt: TokenizedPrompt
    transcoder: Transcoder
    parts: GraphParts
    target_kind: TargetKind
    warnings: tuple[str, ...]


def prepare(model: LoadedModel, inputs: GraphInputs) -> Prepared:
    """Everything but the rows.

    Raises:
        InputError, TranscoderError, SiteMissing, ModelError: see `attribution_graph`.
    """
    prompt = tokenize(model.tokenizer, inputs.prompt, bos=inputs.bos)
    transcoder = load_transcoder(model, inputs.transcoder)
    check_hooks(model, transcoder)
    kind, targets, warnings = choose_targets(model, prompt, inputs)
    frozen = frozen_pass(model, prompt.ids, transcoder)
    parts = graph_parts(model, transcoder, frozen, targets, show_bos=inputs.show_bos)
    warnings = (*prompt_warnings(prompt, model.tokenizer), *warnings)
    return Prepared(inputs, prompt, transcoder, parts, kind, warnings)


class _Edges:
    """Rows of the graph, filled batch by batch; the logits' rows are there from the start."""

    def __init__(self, parts: GraphParts) -> None:
        self.parts = parts
        logits = logit_rows(parts)
        self.nodes = [torch.arange(parts.first_logit, parts.n_nodes)]
        self.edges = [logits.edges.float().cpu()]
        self.remainder = [logits.remainder.double().cpu()]
        self.values = [parts.logit_value.double().cpu()]
        weights = np.zeros(parts.n_nodes)
        weights[parts.first_logit :] = [target.weight for target in parts.targets]
        self.weights, self.layers = weights, node_layers(parts)

    def fill(self, rows: int, on_step: OnStep) -> bool:
        """Expand features until the budget is spent; True if it was cancelled before."""
        wanted = min(rows, self.parts.n_features)
        whole = wanted == self.parts.n_features
        batch = rows_at_once(self.parts) if whole else min(rows_at_once(self.parts), -(-wanted // BATCHES))
        left, done = np.ones(self.parts.n_features, dtype=bool), 0
        while done < wanted:
            try:
                on_step(Step(done, wanted, None, None, "rows"))
            except Cancelled:
                return True
            count = min(batch, wanted - done)
            nodes = np.flatnonzero(left)
            if not whole:
                nodes = nodes[np.argsort(-self._influence()[nodes], kind="stable")]
            self._add(torch.from_numpy(nodes[:count].copy()))
            left[nodes[:count]] = False
            done += count
        return False

    def _add(self, nodes: torch.Tensor) -> None:
        chosen = nodes.to(self.parts.active.layer.device)
        rows = feature_rows(self.parts, chosen)
        self.nodes.append(nodes)
        self.edges.append(rows.edges.float().cpu())
        self.remainder.append(rows.remainder.double().cpu())
        self.values.append(self.parts.active.activation[chosen].double().cpu())

    def _influence(self) -> Float[np.ndarray, " node"]:
        """Influence of every node in the graph so far."""
        normalised = shares(torch.cat(self.edges).numpy())
        padded = np.pad(normalised, ((0, 0), (0, len(self.parts.targets))))
        return influence(padded, torch.cat(self.nodes).numpy(), self.layers, self.weights)


def node_layers(parts: GraphParts) -> Int[np.ndarray, " node"]:
    """[node] layers: -1 for tokens, the number of layers for logits."""
    n_layers = parts.frozen.n_layers
    errors = np.repeat(np.arange(n_layers), len(parts.unmasked))
    tokens, logits = np.full(parts.frozen.n_pos, -1), np.full(len(parts.targets), n_layers)
    return np.concatenate([parts.active.layer.cpu().numpy(), errors, tokens, logits]).astype(np.int64)


def _result(model: LoadedModel, made: Prepared, filled: _Edges) -> GraphResult:
    """The graph without checks."""
    parts, transcoder = made.parts, made.transcoder
    nodes = torch.cat(filled.nodes)
    order = torch.argsort(nodes)
    sources = torch.cat(filled.edges)[order].numpy()
    edges = np.pad(sources, ((0, 0), (0, len(parts.targets))))
    remainder = torch.cat(filled.remainder)[order].numpy()
    values = torch.cat(filled.values)[order].numpy()
    row_node = nodes[order].numpy()
    arrays = _node_arrays(parts)
    expanded = np.zeros(parts.n_nodes, dtype=bool)
    expanded[row_node] = True
    result = GraphResult(
        inputs=made.inputs,
        provenance=Provenance.of(model, seed=None),
        tokens=made.prompt.tokens,
        n_layers=parts.frozen.n_layers,
        transcoder_name=transcoder.name,
        transcoder_fingerprint=transcoder.fingerprint,
        target_kind=made.target_kind,
        target_names=tuple(target.name for target in parts.targets),
        target_ids=tuple(target.ids for target in parts.targets),
        logit_weights=np.array([target.weight for target in parts.targets]),
        masked=parts.active.masked,
        fvu=_unexplained(model, made),
        node_kind=arrays["node_kind"],
        node_layer=filled.layers,
        node_position=arrays["node_position"],
        node_feature=arrays["node_feature"],
        node_activation=arrays["node_activation"],
        node_probability=arrays["node_probability"],
        node_expanded=expanded,
        edges=edges,
        row_node=row_node,
        remainder=remainder,
        row_value=values,
        residual=values - edges.astype(np.float64).sum(axis=1) - remainder,
        influence=np.zeros(parts.n_nodes),
        warnings=made.warnings,
    )
    weights = filled.weights
    return replace(result, influence=(node_influence(result) + weights) / max(weights.sum(), 1e-300))


def _node_arrays(parts: GraphParts) -> dict[str, np.ndarray]:
    active, n_layers, n_pos = parts.active, parts.frozen.n_layers, parts.frozen.n_pos
    n_targets, n_errors = len(parts.targets), parts.first_token - parts.n_features
    sizes = (parts.n_features, n_errors, n_pos, n_targets)
    nothing = np.full(n_errors + n_pos + n_targets, np.nan, dtype=np.float32)
    position = [
        active.position.cpu().numpy(), np.tile(parts.unmasked, n_layers), np.arange(n_pos),
        np.full(n_targets, n_pos - 1),
    ]  # fmt: skip
    feature = [
        active.feature.cpu().numpy(), np.full(n_errors, -1), parts.frozen.tokens,
        [target.ids[0] for target in parts.targets],
    ]  # fmt: skip
    probability = np.full(parts.n_nodes, np.nan)
    probability[parts.first_logit :] = [target.probability for target in parts.targets]
    return {
        "node_kind": np.repeat([FEATURE, ERROR, TOKEN, LOGIT], sizes),
        "node_position": np.concatenate(position).astype(np.int64),
        "node_feature": np.concatenate(feature).astype(np.int64),
        "node_activation": np.concatenate([active.activation.float().cpu().numpy(), nothing]),
        "node_probability": probability,
    }


def _unexplained(model: LoadedModel, made: Prepared) -> Float[np.ndarray, " layer"]:
    """[layer] the transcoder's fit on this prompt; NaN where it writes nothing."""
    found = np.full(made.parts.frozen.n_layers, np.nan)
    told = fit(model, made.transcoder, made.prompt.ids, show_bos=made.inputs.show_bos)
    found[list(told.layers)] = told.unexplained.numpy()
    return found
