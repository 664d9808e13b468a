"""What an attribution graph predicts for removing a node, against what removing it does to the model.

Predicted, by the graph alone: removing node s takes its edges away; a feature t that loses input answers
along its own edges, as long as it stays active (its activation is its pre-activation):

    change[s] = -1,   change[t] = sum over sources u of edge[t, u] * change[u] / a_t      (relative changes)
    predicted = sum over sources u of edge[logit, u] * change[u]        (all paths from s to the logit)
    direct    = -edge[logit, s]                                         (with everything else held)

Actual: the model runs with s's writes subtracted (from the MLP outputs of every layer that it writes to, or
from the embedding), and the logit is read. Nothing is frozen, or attention patterns are. What the graph
leaves out shows as distance from the diagonal: thresholds, features that wake up, errors that answer, norms
that rescale, attention that moves. Effects are edited minus baseline, in logits before the softcap, of the
first logit node: minus the vocabulary's mean, or a difference of two logits.
Source: Ameisen et al. 2025, "validating the replacement model's local mechanisms"; the scatter is ours.

Cost: the graph, and one row of a forward pass per node (one more layer of attention patterns where frozen).
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.causal_trace_result import Step
from mi_core.analyses.plain import (
    check_choice,
    checks_from,
    damage_told,
    inputs_from_dict,
    inputs_to_dict,
    provenance_from,
    texts_from,
)
from mi_core.analyses.records import decode_array, dump_record, encode_array, load_record
from mi_core.engine import Edit, observe, run
from mi_core.errors import Cancelled, InputError
from mi_core.model.model import LoadedModel
from mi_core.provenance import Provenance
from mi_core.tokens import Bos
from mi_core.transcoders.graph_checks import sum_limit
from mi_core.transcoders.graph_inputs import DEFAULT_ROWS, GraphInputs
from mi_core.transcoders.graph_names import FEATURE, LOGIT, MAX_NAMES, parse_nodes
from mi_core.transcoders.graph_parts import GraphParts, uncapped
from mi_core.transcoders.graph_places import Place, find_place, places, reading, writing
from mi_core.transcoders.graph_result import GraphResult
from mi_core.transcoders.graph_run import attribution_graph, prepare

if TYPE_CHECKING:
    import pandas as pd

Freeze = Literal["nothing", "attention"]
SCHEMA = "lantern/graph_effects"
VERSION = 1
ROWS_AT_ONCE = 32
CHECKED_NODES = 12
_ARRAYS = ("predicted", "direct", "actual")


@dataclass(frozen=True, slots=True)
class GraphEffectsInputs:
    """Nodes of a graph that are removed, one at a time.

    Attributes:
        prompt: ends just before its answer.
        nodes: names of the nodes: features, errors, tokens.
        freeze: what is held while the model runs: nothing, or all attention patterns.
        transcoder: the bundled one (empty), a folder, or a Hugging Face id in the cache.
        answer: text whose first token the graph explains.
        distractor: text whose first token's logit is subtracted.
        targets: texts whose first tokens the graph explains; not with answer or distractor.
        rows: for how many features inputs are computed; predictions follow expanded features only.
        show_bos: whether features and errors at leading special tokens are nodes.
        bos: whether a beginning-of-sequence token is put first; "auto" = as the tokenizer does.
    """

    prompt: str
    nodes: tuple[str, ...]
    freeze: Freeze = "nothing"
    transcoder: str = ""
    answer: str | None = None
    distractor: str | None = None
    targets: tuple[str, ...] = ()
    rows: int = DEFAULT_ROWS
    show_bos: bool = False
    bos: Bos = "auto"

    def __post_init__(self) -> None:
        """Refuse what no graph could have; the nodes must be names."""
        object.__setattr__(self, "targets", self.graph.targets)
        if isinstance(self.nodes, list):  # hashable, whoever wrote [..] in a notebook
            object.__setattr__(self, "nodes", tuple(self.nodes))
        if not self.nodes:
            raise InputError("No node is chosen", fix="Give some, such as L5F102@7")
        if len(self.nodes) > MAX_NAMES:
            raise InputError(f"More than {MAX_NAMES:,} nodes are chosen")
        if tuple(name for one in self.nodes for name in parse_nodes(one)) != self.nodes:
            raise InputError("A node's name is missing")
        if len(set(self.nodes)) < len(self.nodes):
            raise InputError("A node is listed twice")
        check_choice("freeze", self.freeze, get_args(Freeze))

    @property
    def graph(self) -> GraphInputs:
        """The inputs of the graph."""
        return GraphInputs(**{field.name: getattr(self, field.name) for field in fields(GraphInputs)})

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, one per field."""
        return inputs_to_dict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "GraphEffectsInputs":
        """The inverse of `to_dict`.

        Raises:
            InputError: an unknown or missing field, or a value that is refused.
        """
        return inputs_from_dict(cls, values, "graph effects")


@dataclass(frozen=True, slots=True, eq=False)
class GraphEffectsResult:
    """Effects of removing nodes on one logit, edited minus baseline; in logits.

    Attributes:
        inputs: what was asked for.
        provenance: of the model.
        target_name: whose logit it is.
        predicted: [node] by the graph, along all paths.
        direct: [node] by the graph, along the one edge to the logit.
        actual: [node] by running the model; NaN where it was stopped before.
        unit: "logits".
        warnings: what to read before the figure.
        checks: identities tried on these numbers.
        seconds: how long it took.
        cancelled: whether it was stopped before all nodes.
    """

    inputs: GraphEffectsInputs
    provenance: Provenance | None
    target_name: str
    predicted: Float[np.ndarray, " node"]
    direct: Float[np.ndarray, " node"]
    actual: Float[np.ndarray, " node"]
    unit: str = "logits"
    warnings: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    seconds: float = 0.0
    cancelled: bool = False

    def __post_init__(self) -> None:
        """One number of each kind per node."""
        for name in _ARRAYS:
            if getattr(self, name).shape != (len(self.inputs.nodes),):
                raise ValueError(f"{name} has shape {getattr(self, name).shape}")

    @property
    def correlation(self) -> float:
        """Pearson's r of predicted and actual; NaN with fewer than two nodes, or without spread."""
        done = np.isfinite(self.actual)
        one, other = self.predicted[done], self.actual[done]
        if done.sum() < 2 or not one.std() or not other.std():
            return float("nan")
        return float(np.corrcoef(one, other)[0, 1])

    def to_frame(self) -> "pd.DataFrame":
        """Tidy table, one row per number. Columns: node, quantity, value, unit."""
        import pandas as pd  # a third of a second; only tables need it

        rows = [
            (node, name, float(getattr(self, name)[index]), self.unit)
            for index, node in enumerate(self.inputs.nodes)
            for name in _ARRAYS
        ]
        return pd.DataFrame(rows, columns=["node", "quantity", "value", "unit"])

    def to_json(self) -> str:
        """JSON text: schema "lantern/graph_effects", version, every field; no NaN."""
        made: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        made["inputs"] = self.inputs.to_dict()
        made["provenance"] = None if self.provenance is None else self.provenance.to_dict()
        made |= {name: encode_array(getattr(self, name)) for name in _ARRAYS}
        made["warnings"], made["checks"] = list(self.warnings), [asdict(check) for check in self.checks]
        return dump_record(SCHEMA, VERSION, made)

    @classmethod
    def from_json(cls, text: str | bytes) -> "GraphEffectsResult":
        """The inverse of `to_json`.

        Raises:
            InputError: not such a record, or damaged.
        """
        record = load_record(text, SCHEMA, VERSION)
        with damage_told("graph effects"):
            inputs = GraphEffectsInputs.from_dict(record["inputs"])
            arrays = {
                name: decode_array(record[name], "float64", (len(inputs.nodes),), name) for name in _ARRAYS
            }
            return cls(
                inputs=inputs,
                provenance=provenance_from(record["provenance"]),
                target_name=str(record["target_name"]),
                **arrays,
                unit=str(record["unit"]),
                warnings=texts_from(record["warnings"]),
                checks=checks_from(record["checks"]),
                seconds=float(record["seconds"]),
                cancelled=bool(record["cancelled"]),
            )


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
        InputError: a name is no node of this graph, or is a logit.
        TranscoderError, SiteMissing, ModelError, OutOfMemory: see `attribution_graph`.
    """
    started = time.perf_counter()
    graph, made = attribution_graph(model, inputs.graph), prepare(model, inputs.graph)
    known = places(made.parts)
    removed = [find_place(known, name) for name in inputs.nodes]
    if any(place.kind == "logit" for place in removed):
        raise InputError("A logit cannot be removed", fix="Choose features, errors or tokens")
    predicted, direct = predicted_effects(graph, [place.index for place in removed])
    actual, cancelled = _actual(model, made.parts, removed, inputs.freeze, on_step)
    result = GraphEffectsResult(
        inputs=inputs,
        provenance=Provenance.of(model, seed=None),
        target_name=graph.target_names[0],
        predicted=predicted,
        direct=direct,
        actual=actual,
        warnings=graph.warnings,
        cancelled=cancelled,
    )
    check = _held(made.parts, removed, direct, model.dtype)
    return replace(result, checks=(check,), seconds=time.perf_counter() - started)


def predicted_effects(
    graph: GraphResult, removed: Sequence[int]
) -> tuple[Float[np.ndarray, " node"], Float[np.ndarray, " node"]]:
    """What the graph says of removing nodes, one at a time: (along all paths, along the edge alone).

    Args:
        graph: an attribution graph.
        removed: indices of nodes.

    Returns:
        Changes of the first logit.
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
    logit = graph.edges[int(np.flatnonzero(graph.node_kind[graph.row_node] == LOGIT)[0])].astype(np.float64)
    return logit @ change, -logit[list(removed)]


def _actual(
    model: LoadedModel,
    parts: GraphParts,
    removed: Sequence[Place],
    freeze: Freeze,
    on_step: Callable[[Step[GraphEffectsResult]], None] | None,
) -> tuple[Float[np.ndarray, " node"], bool]:
    """(effects by running the model, whether it was stopped)."""
    found, baseline = np.full(len(removed), np.nan), float(parts.logit_value[0])
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
            found[start + index] = _read(model, parts, row) - baseline
    return found, False


def _read(model: LoadedModel, parts: GraphParts, logits: Float[Tensor, " d_vocab"]) -> float:
    """The first logit node's value in a run."""
    wide, ids = uncapped(model, logits.float() if logits.dtype.itemsize < 4 else logits), parts.targets[0].ids
    return float(wide[ids[0]] - (wide[ids[1]] if len(ids) == 2 else wide.mean()))


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


def _held(
    parts: GraphParts, removed: Sequence[Place], direct: Float[np.ndarray, " node"], dtype: torch.dtype
) -> Check:
    """Pushed forward with everything held, removals change the logit by exactly minus their edges."""
    some = removed[:CHECKED_NODES]
    worst, target = 0.0, reading(parts, Place("", "logit", parts.first_logit, 0, 0))
    for index, place in enumerate(some):
        deltas, embed = writing(parts, place)
        moved = parts.frozen.push(deltas, embed).final[0, -1] if deltas or embed is not None else target * 0
        worst = max(worst, abs(-float(moved @ target) - float(direct[index])))
    limit = sum_limit(dtype, float(np.abs(direct).max(initial=0.0)))
    return Check(
        "with everything held, removing a node changes the logit by minus its edge",
        worst <= limit,
        f"{len(some)} nodes pushed forward; largest difference {worst:.1e} (limit {limit:.0e}).",
    )
