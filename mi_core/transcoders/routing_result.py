"""What attention routing under an injection returns. CPU numpy."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.plain import damage_told, outcome, outcome_from, provenance_from, tokens_from
from mi_core.analyses.records import decode_array, dump_record, encode_array, load_record
from mi_core.provenance import Provenance
from mi_core.tokens import Token
from mi_core.transcoders.planning_inputs import FeatureRoutingInputs

if TYPE_CHECKING:
    import pandas as pd

SCHEMA, VERSION = "lantern/feature_routing", 1
ARRAYS = ("before", "after", "sweep", "totals", "controls")


@dataclass(frozen=True, slots=True, eq=False)
class FeatureRoutingResult:
    """Every head's attention from one token to another, without and with features pushed at the latter.

    Attributes:
        inputs: what was asked for.
        provenance: model, versions; None for imported files.
        transcoder: its name.
        source: "lantern", or the tool whose file this was read from.
        tokens: tokens of the prompt.
        position: the token that is pushed and looked at.
        query: the token that looks.
        before: share of attention, baseline.
        after: the same at `inputs.strength`.
        sweep: change at every strength of the sweep; NaN where a file does not have it by head.
        totals: sum of the absolute changes of all heads at every strength of the sweep.
        controls: change at `inputs.strength` of every rotation of the edit.
        first_layer: the first layer that can change.
        warnings: sentences to be read before the figure.
        checks: identities tried on this result.
        seconds: duration.
        cancelled: always False: it is whole or not at all.
    """

    inputs: FeatureRoutingInputs
    provenance: Provenance | None
    transcoder: str
    source: str
    tokens: tuple[Token, ...]
    position: int
    query: int
    before: Float[np.ndarray, "layer head"]
    after: Float[np.ndarray, "layer head"]
    sweep: Float[np.ndarray, "strength layer head"]
    totals: Float[np.ndarray, "strength"]
    controls: Float[np.ndarray, "draw layer head"]
    first_layer: int
    warnings: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    seconds: float = 0.0
    cancelled: bool = False

    def __post_init__(self) -> None:
        """Arrays fit each other."""
        shape = self.before.shape
        sweep = (len(self.inputs.strengths), *shape)
        if (
            self.totals.shape != sweep[:1]
            or self.after.shape != shape
            or self.sweep.shape != sweep
            or self.controls.shape[1:] != shape
        ):
            raise ValueError(f"shapes {shape}, {self.after.shape}, {self.sweep.shape}, {self.controls.shape}")

    @property
    def change(self) -> Float[np.ndarray, "layer head"]:
        """Pushed minus baseline."""
        return self.after - self.before

    @property
    def total(self) -> float:
        """Sum of the absolute changes of all heads."""
        return float(np.abs(self.change).sum())

    @property
    def control_totals(self) -> Float[np.ndarray, "draw"]:
        """Sum of the absolute changes of all heads, of every rotation of the edit."""
        return np.abs(self.controls).sum((1, 2))

    @property
    def top_heads(self) -> tuple[tuple[int, int], ...]:
        """(layer, head), the largest absolute change first."""
        order = np.argsort(-np.abs(self.change).ravel(), kind="stable")
        layers, heads = np.unravel_index(order, self.change.shape)
        return tuple(zip(layers.tolist(), heads.tolist(), strict=True))

    def to_frame(self) -> "pd.DataFrame":
        """Tidy table: series, strength, layer, head, before, after, change, unit."""
        import pandas as pd  # a third of a second; only tables need it

        return pd.DataFrame(list(self._records()))

    def _records(self) -> Iterator[dict[str, Any]]:
        blocks = [("chosen strength", self.inputs.strength, self.change)]
        blocks += [("sweep", s, one) for s, one in zip(self.inputs.strengths, self.sweep, strict=True)]
        blocks += [(f"random rotation {i}", self.inputs.strength, one) for i, one in enumerate(self.controls)]
        for series, strength, change in blocks:
            for layer, head in np.ndindex(*change.shape):
                start = float(self.before[layer, head])
                yield {
                    "series": series, "strength": strength, "layer": layer, "head": head, "before": start,
                    "after": start + float(change[layer, head]), "change": float(change[layer, head]),
                    "unit": "share of attention",
                }  # fmt: skip

    def to_json(self) -> str:
        """JSON text: schema "lantern/feature_routing", version, every field; no NaN."""
        return dump_record(SCHEMA, VERSION, {
            "inputs": self.inputs.to_dict(),
            "provenance": None if self.provenance is None else self.provenance.to_dict(),
            "transcoder": self.transcoder,
            "source": self.source,
            "tokens": [asdict(token) for token in self.tokens],
            "position": self.position,
            "query": self.query,
            "shape": list(self.before.shape),
            "n_controls": len(self.controls),
            "first_layer": self.first_layer,
            "total": self.total,
            **{name: encode_array(getattr(self, name)) for name in ARRAYS},
            **outcome(self),
        })  # fmt: skip

    @classmethod
    def from_json(cls, text: str | bytes) -> "FeatureRoutingResult":
        """The inverse of `to_json`; numbers come back exactly.

        Raises:
            InputError: not such a record, or damaged.
        """
        record = load_record(text, SCHEMA, VERSION)
        with damage_told("feature-routing"):
            inputs = FeatureRoutingInputs.from_dict(record["inputs"])
            layers, heads = (int(size) for size in record["shape"])
            shapes = {
                "before": (layers, heads), "after": (layers, heads),
                "sweep": (len(inputs.strengths), layers, heads), "totals": (len(inputs.strengths),),
                "controls": (int(record["n_controls"]), layers, heads),
            }  # fmt: skip
            arrays = {name: decode_array(record[name], "float64", shapes[name], name) for name in ARRAYS}
            return cls(
                inputs=inputs,
                provenance=provenance_from(record["provenance"]),
                transcoder=str(record["transcoder"]),
                source=str(record["source"]),
                tokens=tokens_from(record["tokens"]),
                position=int(record["position"]),
                query=int(record["query"]),
                **arrays,
                first_layer=int(record["first_layer"]),
                **outcome_from(record),
            )
