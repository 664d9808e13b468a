"""Effects of removing nodes of an attribution graph: what is asked, what comes back (`graph_removals`)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from jaxtyping import Float

from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.plain import (
    check_choice,
    damage_told,
    inputs_from_dict,
    inputs_to_dict,
    outcome_from,
    provenance_from,
    result_to_dict,
    texts_from,
)
from mi_core.analyses.records import decode_array, dump_record, load_record
from mi_core.errors import InputError
from mi_core.provenance import Provenance
from mi_core.tokens import Bos
from mi_core.transcoders.graph_inputs import DEFAULT_ROWS, GraphInputs, graph_inputs_of
from mi_core.transcoders.graph_names import MAX_NAMES, parse_nodes
from mi_core.transcoders.graph_removals_target import check_effect_on

if TYPE_CHECKING:
    import pandas as pd

Freeze = Literal["nothing", "attention"]
SCHEMA = "lantern/graph_effects"
VERSION = 2  # 1 had the first logit only
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
        effect_on: whose change is read: a logit of the graph by its name (such as Y345, as in the table of
            `graph`), the difference of two (Y345-12), or "sum": all of them, each times what it counts in the
            graph (its probability; 1 for a difference). Empty = the first logit.
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
    effect_on: str = ""

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
        check_effect_on(self.effect_on)

    @property
    def graph(self) -> GraphInputs:
        """The inputs of the graph."""
        return graph_inputs_of(self)

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
    """Effects of removing nodes on a logit or a weighted sum of logits, edited minus baseline; in logits.

    Attributes:
        inputs: what was asked for.
        provenance: of the model.
        target_name: whose change it is, for example `·Paris`, `·Paris - ·Rome`, `weighted sum of 3 logits`.
        predicted: [node] by the graph, along all paths.
        direct: [node] by the graph, along the edges to the logits alone.
        actual: [node] by running the model; NaN where it was stopped before.
        logit_names: the logits of the graph.
        logit_weights: [logit] how much each of them counts in the target.
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
    logit_names: tuple[str, ...]
    logit_weights: Float[np.ndarray, " logit"]
    unit: str = "logits"
    warnings: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    seconds: float = 0.0
    cancelled: bool = False

    def __post_init__(self) -> None:
        """One number of each kind per node, and a weight for every logit that counts."""
        for name in _ARRAYS:
            if getattr(self, name).shape != (len(self.inputs.nodes),):
                raise ValueError(f"{name} has shape {getattr(self, name).shape}")
        if not self.logit_names or self.logit_weights.shape != (len(self.logit_names),):
            raise ValueError(f"{len(self.logit_names)} logits have weights {self.logit_weights.shape}")
        if not np.isfinite(self.logit_weights).all():
            raise ValueError("a logit's weight is not a number")

    @property
    def correlation(self) -> float:
        """Pearson's r of predicted and actual; NaN with fewer than two nodes, or without spread."""
        done = np.isfinite(self.actual)
        one, other = self.predicted[done], self.actual[done]
        if done.sum() < 2 or not one.std() or not other.std():
            return float("nan")
        return float(np.corrcoef(one, other)[0, 1])

    def to_frame(self) -> "pd.DataFrame":
        """Tidy table, one row per number. Columns: node, target, quantity, value, unit."""
        import pandas as pd  # a third of a second; only tables need it

        rows = [
            (node, self.target_name, name, float(getattr(self, name)[index]), self.unit)
            for index, node in enumerate(self.inputs.nodes)
            for name in _ARRAYS
        ]
        return pd.DataFrame(rows, columns=["node", "target", "quantity", "value", "unit"])

    def to_json(self) -> str:
        """JSON text: schema "lantern/graph_effects", version, every field; no NaN."""
        return dump_record(SCHEMA, VERSION, result_to_dict(self))

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
            counted = record if record["version"] > 1 else _first_logit(record)
            names = texts_from(counted["logit_names"])
            return cls(
                inputs=inputs,
                provenance=provenance_from(record["provenance"]),
                target_name=str(record["target_name"]),
                **arrays,
                logit_names=names,
                logit_weights=decode_array(
                    counted["logit_weights"], "float64", (len(names),), "logit_weights"
                ),
                unit=str(record["unit"]),
                **outcome_from(record),
            )


def _first_logit(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record of version 1 is about the one logit that it names."""
    return {"logit_names": [record["target_name"]], "logit_weights": [1.0]}
