"""What the convergence matrix of a steering vector returns. CPU numpy."""

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

SCHEMA, VERSION = "lantern/steering_convergence", 1
ARRAYS = ("baseline", "values", "cosine", "distance")


@dataclass(frozen=True, slots=True, eq=False)
class SteeringConvergenceResult:
    """How far the last token's state is from where it would have been, after every layer.

    Attributes:
        inputs: what was asked for; `inputs.coefficient` is the dose, `inputs.layer` is not used.
        provenance: model, versions; None only for results made without a model.
        tokens: tokens of the prompt.
        answer: the token that is read.
        distractor: the token that it is compared with, or None.
        made: how the vector was made.
        positions: tokens that it was added to.
        metrics: what the first axis of `baseline` and `values` stands for.
        baseline: every metric without steering.
        values: every metric, steered at each layer.
        cosine: cos(base, steered) of the last token's state after layer `observe`, the edit included.
        distance: ||steered - base|| / ||base|| of the same states.
        warnings: sentences to be read before the figure.
        checks: identities tried on this result.
        seconds: duration.
        cancelled: whether it was stopped early; rows not run are NaN.
    """

    inputs: SteeringInputs
    provenance: Provenance | None
    tokens: tuple[Token, ...]
    answer: ReadToken
    distractor: ReadToken | None
    made: str
    positions: tuple[int, ...]
    metrics: tuple[str, ...]
    baseline: Float[np.ndarray, "metric"]
    values: Float[np.ndarray, "metric inject"]
    cosine: Float[np.ndarray, "inject observe"]
    distance: Float[np.ndarray, "inject observe"]
    warnings: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    seconds: float = 0.0
    cancelled: bool = False

    def __post_init__(self) -> None:
        """Arrays fit each other."""
        n, layers = len(self.metrics), self.n_layers
        shapes = self.baseline.shape, self.values.shape, self.cosine.shape, self.distance.shape
        if shapes != ((n,), (n, layers), (layers, layers), (layers, layers)):
            raise ValueError(f"shapes {shapes}, {n} metrics, {layers} layers")

    @property
    def n_layers(self) -> int:
        """Layers of the model."""
        return len(self.cosine)

    @property
    def absorption(self) -> tuple[int | None, ...]:
        """For every injected layer the first later one whose cosine reaches the threshold, or None."""
        found: list[int | None] = []
        for inject in range(self.n_layers):
            later = np.flatnonzero(self.cosine[inject, inject + 1 :] >= self.inputs.threshold)
            found.append(inject + 1 + int(later[0]) if len(later) else None)
        return tuple(found)

    def to_frame(self) -> "pd.DataFrame":
        """Tidy table, one row per number.

        Columns: inject, observe, quantity ("cosine", "relative distance"), value, absorbed_at, unit.
        """
        import pandas as pd  # a third of a second; only tables need it

        rows: list[dict[str, Any]] = []
        for inject, absorbed in enumerate(self.absorption):
            for observe in range(self.n_layers):
                for quantity, grid in (("cosine", self.cosine), ("relative distance", self.distance)):
                    rows.append({
                        "inject": inject, "observe": observe, "quantity": quantity,
                        "value": float(grid[inject, observe]), "absorbed_at": absorbed, "unit": "ratio",
                    })  # fmt: skip
        return pd.DataFrame(rows).astype({"absorbed_at": "Int64"})

    def to_json(self) -> str:
        """JSON text: schema "lantern/steering_convergence", version, every field; no NaN."""
        own = {"n_layers": self.n_layers, "absorption": list(self.absorption)}
        return dump_record(SCHEMA, VERSION, {**shared_fields(self, ARRAYS), **own})

    @classmethod
    def from_json(cls, text: str | bytes) -> "SteeringConvergenceResult":
        """The inverse of `to_json`; numbers come back exactly.

        Raises:
            InputError: not such a record, or damaged.
        """
        record = load_record(text, SCHEMA, VERSION)
        with damage_told("steering-convergence"):
            shared, layers = read_steering(record), int(record["n_layers"])
            n, square = len(shared["metrics"]), (layers, layers)
            shapes = {"baseline": (n,), "values": (n, layers), "cosine": square, "distance": square}
            return cls(**shared, **read_arrays(record, shapes))
