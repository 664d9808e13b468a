"""What an attribution graph holds: nodes, exact linear edges between them, and what is left over.

Nodes stand in this order: active features (by layer, position, number), errors (by layer, position), tokens,
logits. A row of `edges` is a target (a feature that was expanded, or a logit), a column is a source:

    row_value[t] = sum over sources s of edges[t, s] + remainder[t] + residual[t]

with everything but the sources held (attention patterns, norm scales). `residual` is rounding; the figure
says how large it is.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from mi_core.analyses.causal_trace_parts import Check
from mi_core.provenance import Provenance
from mi_core.tokens import Token
from mi_core.transcoders.graph_inputs import GraphInputs
from mi_core.transcoders.graph_names import FEATURE, LOGIT

if TYPE_CHECKING:
    import pandas as pd

TargetKind = Literal["salient", "tokens", "difference"]


@dataclass(frozen=True, slots=True, eq=False)
class GraphResult:
    """An attribution graph of one prompt.

    Attributes:
        inputs: what was asked for.
        provenance: of the model; None for a graph read from another program's file.
        tokens: the prompt.
        n_layers: of the model.
        transcoder_name: what the transcoder is called.
        transcoder_fingerprint: identifies its files; "" = unknown.
        target_kind: how the logits were chosen.
        target_names: per logit what to show, for example `·Paris` or `·Paris - ·Rome`.
        target_ids: per logit its token id, or two ids of a difference.
        logit_weights: [target] how much each logit counts in influences: its probability; 1 for a difference.
        masked: positions whose features and errors are in the remainder.
        fvu: [layer] share of the MLP output's variance that the transcoder leaves unexplained on this prompt;
            NaN where it does not write.
        node_kind: [node] 0 feature, 1 error, 2 token, 3 logit.
        node_layer: [node]; -1 for tokens, n_layers for logits.
        node_position: [node] token position.
        node_feature: [node] number of the feature; -1 for errors; token id for tokens and logits.
        node_activation: [node] activation; NaN where there is none.
        node_probability: [node] probability of a logit's token; NaN where there is none.
        node_expanded: [node] whether its inputs were computed: a row of `edges` exists.
        edges: [row, node] float32; effect of the source on the target, in the target's unit.
        row_node: [row] index of the target, ascending.
        remainder: [row] biases, and what MLPs write at masked positions.
        row_value: [row] a feature's pre-activation, or a logit before the softcap (minus the vocabulary's
            mean, or minus the distractor's).
        residual: [row] row_value - sum of edges - remainder.
        influence: [node] share of the output's influence that passes the node (see `graph_scores`).
        warnings: what to read before the figure.
        checks: identities tried on these numbers.
        seconds: how long it took.
        cancelled: whether it was stopped before all rows that were asked for.
    """

    inputs: GraphInputs
    provenance: Provenance | None
    tokens: tuple[Token, ...]
    n_layers: int
    transcoder_name: str
    transcoder_fingerprint: str
    target_kind: TargetKind
    target_names: tuple[str, ...]
    target_ids: tuple[tuple[int, ...], ...]
    logit_weights: Float[np.ndarray, " target"]
    masked: tuple[int, ...]
    fvu: Float[np.ndarray, " layer"]
    node_kind: Int[np.ndarray, " node"]
    node_layer: Int[np.ndarray, " node"]
    node_position: Int[np.ndarray, " node"]
    node_feature: Int[np.ndarray, " node"]
    node_activation: Float[np.ndarray, " node"]
    node_probability: Float[np.ndarray, " node"]
    node_expanded: Bool[np.ndarray, " node"]
    edges: Float[np.ndarray, "row node"]
    row_node: Int[np.ndarray, " row"]
    remainder: Float[np.ndarray, " row"]
    row_value: Float[np.ndarray, " row"]
    residual: Float[np.ndarray, " row"]
    influence: Float[np.ndarray, " node"]
    warnings: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    seconds: float = 0.0
    cancelled: bool = False

    def __post_init__(self) -> None:
        """Arrays must fit each other, and the nodes must stand in their order."""
        nodes, rows, targets = len(self.node_kind), len(self.row_node), len(self.target_names)
        for name in NODE_ARRAYS:
            _check(name, getattr(self, name), (nodes,))
        for name in ROW_ARRAYS:
            _check(name, getattr(self, name), (rows,))
        _check("edges", self.edges, (rows, nodes))
        _check("logit_weights", self.logit_weights, (targets,))
        _check("fvu", self.fvu, (self.n_layers,))
        if (np.diff(self.node_kind) < 0).any() or (self.node_kind == LOGIT).sum() != targets:
            raise ValueError("nodes stand as features, errors, tokens, logits; one logit per target")
        if (np.diff(self.row_node) <= 0).any() or len(self.target_ids) != targets:
            raise ValueError("rows stand in the order of their nodes")
        expanded = np.zeros(nodes, dtype=bool)
        expanded[self.row_node] = True
        if (expanded != self.node_expanded).any() or not expanded[self.node_kind == LOGIT].all():
            raise ValueError("every expanded node has a row, and every logit is one")

    # --- sizes ---

    @property
    def n_nodes(self) -> int:
        """All nodes."""
        return len(self.node_kind)

    @property
    def n_rows(self) -> int:
        """Targets whose inputs were computed."""
        return len(self.row_node)

    @property
    def n_targets(self) -> int:
        """Logits."""
        return len(self.target_names)

    @property
    def n_features(self) -> int:
        """Active features at tokens."""
        return int((self.node_kind == FEATURE).sum())

    @property
    def unexpanded(self) -> int:
        """Features whose inputs were not computed."""
        return int(((self.node_kind == FEATURE) & ~self.node_expanded).sum())

    # --- numbers ---

    def nodes_of(self, kind: int) -> Int[np.ndarray, " some"]:
        """Indices of the nodes of a kind: FEATURE, ERROR, TOKEN or LOGIT of `graph_names`."""
        return np.flatnonzero(self.node_kind == kind)

    def row_of(self, node: int) -> int | None:
        """Row of a target; None where its inputs were not computed."""
        row = int(np.searchsorted(self.row_node, node))
        return row if row < self.n_rows and self.row_node[row] == node else None

    @property
    def worst_residual(self) -> float:
        """Largest |residual|, in the rows' units (pre-activation, logits)."""
        return float(np.abs(self.residual).max(initial=0.0))

    def to_frame(self) -> "pd.DataFrame":
        """Tidy table: one row per node and per edge that is not zero, and per remainder.

        Columns: level ("node", "edge", "remainder"), source, target (names of nodes), quantity, value, unit.
        """
        from mi_core.transcoders.graph_record import to_frame  # that module imports this one

        return to_frame(self)

    def to_json(self) -> str:
        """JSON text: schema "lantern/attribution_graph", version, every field; no NaN."""
        from mi_core.transcoders.graph_record import to_json

        return to_json(self)

    @classmethod
    def from_json(cls, text: str | bytes) -> "GraphResult":
        """The inverse of `to_json`; numbers come back exactly.

        Raises:
            InputError: not such a record, or damaged.
        """
        from mi_core.transcoders.graph_record import from_json

        return from_json(text)


NODE_ARRAYS = (
    "node_kind",
    "node_layer",
    "node_position",
    "node_feature",
    "node_activation",
    "node_probability",
    "node_expanded",
    "influence",
)
ROW_ARRAYS = ("row_node", "remainder", "row_value", "residual")


def _check(name: str, array: np.ndarray, shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}, not {shape}")
