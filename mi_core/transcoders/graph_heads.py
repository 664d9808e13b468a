"""Which attention heads carry an edge of an attribution graph?

The frozen pass moves a source's write to the target through residual connections and heads. Every way from
one to the other either meets no head at all (`direct`: source and target at the same token), or has a last
head, and a first one. Summing over the ways that share it splits the edge exactly, in two manners:

    edge = direct + sum over heads of loadings[l, h]      by the LAST head: it brings it to the target's token
         = direct + sum over heads of departures[l, h]    by the FIRST head: it picks it up at the source's

    loadings[l, h] = (what head h of layer l adds at the target's token, of all that arrived before layer l)
                     . (what the target reads of it without meeting another head)

Each sum is over disjoint sets of ways, so nothing is counted twice; a head in the middle of a longer way is
in neither. Linear skips of a transcoder belong to the ways without heads. The question is circuit-tracer's
(issue 53), the split by first and last head is ours. Cost: one row forward and back through the frozen pass.
"""

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.causal_trace_result import Step
from mi_core.analyses.plain import (
    damage_told,
    inputs_from_dict,
    inputs_to_dict,
    outcome_from,
    provenance_from,
    result_to_dict,
)
from mi_core.analyses.records import decode_array, dump_record, load_record
from mi_core.errors import InputError
from mi_core.model.model import LoadedModel
from mi_core.provenance import Provenance
from mi_core.tokens import Bos
from mi_core.transcoders.graph_checks import sum_limit
from mi_core.transcoders.graph_inputs import DEFAULT_ROWS, GraphInputs, graph_inputs_of
from mi_core.transcoders.graph_names import parse_nodes
from mi_core.transcoders.graph_parts import GraphParts
from mi_core.transcoders.graph_places import Place, find_place, places, reading, writing
from mi_core.transcoders.graph_rows import feature_rows, logit_rows
from mi_core.transcoders.graph_run import prepare
from mi_core.transcoders.linear_pass import FrozenPass, Pushed

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

SCHEMA = "lantern/head_loadings"
VERSION = 1


@dataclass(frozen=True, slots=True)
class HeadLoadingsInputs:
    """An edge of a graph.

    Attributes:
        prompt: ends just before its answer.
        source: name of the node that it starts from, such as "L2F31@4", "L2E@4" or "T@4".
        target: name of the node that it ends at, such as "L5F102@7" or "Y345".
        transcoder: the bundled one (empty), a folder, or a Hugging Face id in the cache.
        answer: text whose first token the graph explains.
        distractor: text whose first token's logit is subtracted.
        targets: texts whose first tokens the graph explains; not with answer or distractor.
        rows: budget of the graph; the edge is exact whatever it is.
        show_bos: whether features and errors at leading special tokens are nodes.
        bos: whether a beginning-of-sequence token is put first; "auto" = as the tokenizer does.
    """

    prompt: str
    source: str
    target: str
    transcoder: str = ""
    answer: str | None = None
    distractor: str | None = None
    targets: tuple[str, ...] = ()
    rows: int = DEFAULT_ROWS
    show_bos: bool = False
    bos: Bos = "auto"

    def __post_init__(self) -> None:
        """Refuse what no graph could have; both ends must be names of nodes."""
        object.__setattr__(self, "targets", self.graph.targets)
        for what, name in (("source", self.source), ("target", self.target)):
            if len(parse_nodes(name)) != 1:
                raise InputError(f"The {what} of the edge is missing", fix="Give one node, such as L5F102@7")

    @property
    def graph(self) -> GraphInputs:
        """The inputs of the graph."""
        return graph_inputs_of(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, one per field."""
        return inputs_to_dict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "HeadLoadingsInputs":
        """The inverse of `to_dict`.

        Raises:
            InputError: an unknown or missing field, or a value that is refused.
        """
        return inputs_from_dict(cls, values, "head loadings")


@dataclass(frozen=True, slots=True, eq=False)
class HeadLoadingsResult:
    """An edge, split by heads; in the target's unit (pre-activation, or logits).

    Attributes:
        inputs: what was asked for.
        provenance: of the model.
        edge: the edge, as in the graph.
        direct: the part that meets no head.
        loadings: [layer, head] by the last head on the way.
        departures: [layer, head] by the first head on the way.
        unit: "pre-activation" or "logits".
        warnings: what to read before the figure.
        checks: both sums against the edge.
        seconds: how long it took.
        cancelled: always False.
    """

    inputs: HeadLoadingsInputs
    provenance: Provenance | None
    edge: float
    direct: float
    loadings: Float[np.ndarray, "layer head"]
    departures: Float[np.ndarray, "layer head"]
    unit: str
    warnings: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    seconds: float = 0.0
    cancelled: bool = False

    def __post_init__(self) -> None:
        """Both splits are over the same heads."""
        if self.loadings.ndim != 2 or self.loadings.shape != self.departures.shape:
            raise ValueError(f"loadings {self.loadings.shape}, departures {self.departures.shape}")

    def to_frame(self) -> "pd.DataFrame":
        """Tidy table, one row per number. Columns: part, layer, head, value, unit."""
        import pandas as pd  # a third of a second; only tables need it

        rows = [("edge", None, None, self.edge), ("direct", None, None, self.direct)]
        for part, values in (("last head", self.loadings), ("first head", self.departures)):
            rows += [(part, layer, head, float(value)) for (layer, head), value in np.ndenumerate(values)]
        frame = pd.DataFrame(rows, columns=["part", "layer", "head", "value"])
        frame["unit"] = self.unit
        return frame.astype({"layer": "Int64", "head": "Int64"})

    def to_json(self) -> str:
        """JSON text: schema "lantern/head_loadings", version, every field; no NaN."""
        return dump_record(SCHEMA, VERSION, result_to_dict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> "HeadLoadingsResult":
        """The inverse of `to_json`.

        Raises:
            InputError: not such a record, or damaged.
        """
        record = load_record(text, SCHEMA, VERSION)
        with damage_told("head loadings"):
            shape = tuple(np.shape(record["loadings"]))
            return cls(
                inputs=HeadLoadingsInputs.from_dict(record["inputs"]),
                provenance=provenance_from(record["provenance"]),
                edge=float(record["edge"]),
                direct=float(record["direct"]),
                loadings=decode_array(record["loadings"], "float64", shape, "loadings"),
                departures=decode_array(record["departures"], "float64", shape, "departures"),
                unit=str(record["unit"]),
                **outcome_from(record),
            )


def head_loadings(
    model: LoadedModel,
    inputs: HeadLoadingsInputs,
    *,
    on_step: "Callable[[Step[HeadLoadingsResult]], None] | None" = None,
) -> HeadLoadingsResult:
    """Split an edge of an attribution graph by the heads that carry it.

    Args:
        model: a loaded model.
        inputs: the graph's inputs, and the names of both ends.
        on_step: told once; may raise `Cancelled`.

    Raises:
        InputError: an end is no node of this graph, or the target has no inputs.
        TranscoderError, SiteMissing, ModelError: see `attribution_graph`.
    """
    started = time.perf_counter()
    made = prepare(model, inputs.graph)
    known = places(made.parts)
    source, target = find_place(known, inputs.source), find_place(known, inputs.target)
    if target.kind not in ("feature", "logit"):
        raise InputError(f"{inputs.target} has no inputs", fix="Choose a feature or a logit as target")
    if on_step is not None:
        on_step(Step(0, 1, None, None, "heads"))
    with torch.inference_mode():
        direct, last, first = _split(made.parts, source, target)
    edge = _edge(made.parts, source, target)
    return HeadLoadingsResult(
        inputs=inputs,
        provenance=Provenance.of(model, seed=None),
        edge=edge,
        direct=direct,
        loadings=last,
        departures=first,
        unit="logits" if target.kind == "logit" else "pre-activation",
        warnings=made.warnings,
        checks=(
            _adds_up("last", edge, direct, last, model.dtype),
            _adds_up("first", edge, direct, first, model.dtype),
        ),
        seconds=time.perf_counter() - started,
    )


def _adds_up(name: str, edge: float, direct: float, values: np.ndarray, dtype: torch.dtype) -> Check:
    total = direct + float(values.sum())
    limit = sum_limit(dtype, abs(direct) + float(np.abs(values).sum()))
    return Check(
        f"direct + loadings by the {name} head = the edge",
        abs(total - edge) <= limit,
        f"sum {total:.6f}, edge {edge:.6f} (limit {limit:.0e}).",
    )


def _edge(parts: GraphParts, source: Place, target: Place) -> float:
    """The edge as the graph computes it."""
    if source.index >= parts.first_logit:
        return 0.0
    if target.kind == "feature":
        node = torch.tensor([target.index], device=parts.active.layer.device)
        return float(feature_rows(parts, node).edges[0, source.index])
    return float(logit_rows(parts).edges[target.index - parts.first_logit, source.index])


def _split(
    parts: GraphParts, source: Place, target: Place
) -> tuple[float, Float[np.ndarray, "layer head"], Float[np.ndarray, "layer head"]]:
    """(direct, by last head, by first head)."""
    frozen, headless = parts.frozen, without_heads(parts.frozen)
    shape = (frozen.n_layers, frozen.attention[0].n_heads)
    last, first = np.zeros(shape), np.zeros(shape)
    deltas, embed = writing(parts, source)
    if not deltas and embed is None:  # a logit writes nothing
        return 0.0, last, first
    whole, alone = frozen.push(deltas, embed), headless.push(deltas, embed)
    back, short = _gradients(frozen, parts, target), _gradients(headless, parts, target)
    for layer, attention in enumerate(frozen.attention):
        added = attention.by_head(whole.resid_pre[layer], target.position)[0]
        last[layer] = (added @ short[layer][0, target.position]).double().cpu().numpy()
        picked = attention.back_by_head(back[layer], source.position)[0]
        first[layer] = (picked @ alone.resid_pre[layer][0, source.position]).double().cpu().numpy()
    return float(_arrived(frozen, alone, target) @ reading(parts, target)), last, first


def without_heads(frozen: FrozenPass) -> FrozenPass:
    """The same pass with every head's output taken away: only residual connections (and skips) are left."""
    silent = tuple(replace(one, output=torch.zeros_like(one.output)) for one in frozen.attention)
    return replace(frozen, attention=silent)


def _arrived(frozen: FrozenPass, pushed: Pushed, target: Place) -> Float[Tensor, " d_model"]:
    """The change of the stream where the target reads."""
    if target.kind == "logit":
        return pushed.final[0, target.position]
    middle = None if frozen.read_site == "resid_pre" else pushed.resid_mid
    return (pushed.resid_pre if middle is None else middle)[target.layer][0, target.position]


def _gradients(
    frozen: FrozenPass, parts: GraphParts, target: Place
) -> list[Float[Tensor, "row pos d_model"]]:
    """Per layer, the gradient of the target for what attention adds; zero above it."""
    gradient = torch.zeros_like(frozen.embed)[None]
    if target.kind == "logit":
        gradient[0, target.position] = reading(parts, target)
    found: list[Tensor] = []
    for place, layer, live in frozen.backward(gradient):
        if place == "attn_out":
            found.append(live.clone())
        if target.kind == "feature" and layer == target.layer and place == frozen.read_site:
            live[0, target.position] += reading(parts, target)
    return found[::-1]
