"""What attention routing under steering returns. CPU numpy."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from mi_core.analyses.attribution_result import ReadToken
from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.plain import damage_told
from mi_core.analyses.records import dump_record, load_record
from mi_core.analyses.steering_inputs import SteeringInputs
from mi_core.analyses.steering_record import read_arrays, read_steering, shared_fields
from mi_core.provenance import Provenance
from mi_core.tokens import Token

if TYPE_CHECKING:
    import pandas as pd

SCHEMA, VERSION = "lantern/steering_routing", 1
ARRAYS = ("before", "after")


@dataclass(frozen=True, slots=True, eq=False)
class SteeringRoutingResult:
    """Every head's attention to the steered tokens, without and with steering.

    Attributes:
        inputs: what was asked for; `inputs.coefficient` is the dose.
        provenance: model, versions; None only for results made without a model.
        tokens: tokens of the prompt.
        answer: the token that the other figures read; not used here.
        distractor: likewise.
        made: how the vector was made.
        layer: where it was added.
        positions: tokens that it was added to: the keys.
        metrics: none; other steering results have them.
        before: attention summed over the steered tokens, from the last token or as a mean over later ones.
        after: the same, steered.
        warnings: sentences to be read before the figure.
        checks: identities tried on this result.
        seconds: duration.
        cancelled: always False: it is whole or not at all.
    """

    inputs: SteeringInputs
    provenance: Provenance | None
    tokens: tuple[Token, ...]
    answer: ReadToken
    distractor: ReadToken | None
    made: str
    layer: int
    positions: tuple[int, ...]
    metrics: tuple[str, ...]
    before: Float[np.ndarray, "layer head"]
    after: Float[np.ndarray, "layer head"]
    warnings: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    seconds: float = 0.0
    cancelled: bool = False

    def __post_init__(self) -> None:
        """Arrays fit each other."""
        if self.before.shape != self.after.shape or self.before.ndim != 2:
            raise ValueError(f"shapes {self.before.shape} and {self.after.shape}")

    @property
    def change(self) -> Float[np.ndarray, "layer head"]:
        """Steered minus baseline."""
        return self.after - self.before

    @property
    def total(self) -> float:
        """Sum of the absolute changes of all heads."""
        return float(np.abs(self.change).sum())

    def to_frame(self) -> "pd.DataFrame":
        """Tidy table, one row per head. Columns: layer, head, before, after, change, unit."""
        import pandas as pd  # a third of a second; only tables need it

        rows: list[dict[str, Any]] = [
            {
                "layer": layer, "head": head, "before": float(self.before[layer, head]),
                "after": float(self.after[layer, head]), "change": float(self.change[layer, head]),
                "unit": "share of attention",
            }
            for layer, head in np.ndindex(*self.before.shape)
        ]  # fmt: skip
        return pd.DataFrame(rows)

    def to_json(self) -> str:
        """JSON text: schema "lantern/steering_routing", version, every field; no NaN."""
        own = {"layer": self.layer, "shape": list(self.before.shape), "total": self.total}
        return dump_record(SCHEMA, VERSION, {**shared_fields(self, ARRAYS), **own})

    @classmethod
    def from_json(cls, text: str | bytes) -> "SteeringRoutingResult":
        """The inverse of `to_json`; numbers come back exactly.

        Raises:
            InputError: not such a record, or damaged.
        """
        record = load_record(text, SCHEMA, VERSION)
        with damage_told("steering-routing"):
            layers, heads = (int(size) for size in record["shape"])
            shapes = {"before": (layers, heads), "after": (layers, heads)}
            return cls(**read_steering(record), layer=int(record["layer"]), **read_arrays(record, shapes))
