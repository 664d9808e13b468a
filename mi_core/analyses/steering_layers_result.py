"""What steering at every layer returns: metrics (`SteeringLayersResult`). CPU numpy."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from mi_core.analyses.ablation_sweep_inputs import EFFECT_METRICS
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

SCHEMA, VERSION = "lantern/steering_layers", 1
ARRAYS = ("baseline", "values", "ratio")


@dataclass(frozen=True, slots=True, eq=False)
class SteeringLayersResult:
    """Every metric with the same dose at each layer in turn.

    Attributes:
        inputs: what was asked for; `inputs.coefficient` is the dose, `inputs.layer` is not used.
        provenance: model, versions; None only for results made without a model.
        tokens: tokens of the prompt.
        answer: the token that is read.
        distractor: the token that it is compared with, or None.
        made: how the vector was made.
        positions: tokens that it was added to.
        metrics: what the first axis of the arrays stands for.
        baseline: every metric without steering.
        values: every metric, steered at each layer; NaN where not run.
        ratio: ||c v|| / ||x|| at each layer, median over the steered tokens.
        warnings: sentences to be read before the figure.
        checks: identities tried on this result.
        seconds: duration.
        cancelled: whether it was stopped early.
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
    values: Float[np.ndarray, "metric layer"]
    ratio: Float[np.ndarray, "layer"]
    warnings: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    seconds: float = 0.0
    cancelled: bool = False

    def __post_init__(self) -> None:
        """Arrays fit each other."""
        n, layers = len(self.metrics), len(self.ratio)
        if self.baseline.shape != (n,) or self.values.shape != (n, layers):
            raise ValueError(
                f"shapes {self.baseline.shape}, {self.values.shape}: {n} metrics, {layers} layers"
            )

    @property
    def n_layers(self) -> int:
        """Layers of the model."""
        return len(self.ratio)

    def to_frame(self) -> "pd.DataFrame":
        """Tidy table, one row per number.

        Columns: layer, norm_ratio, metric, baseline, value, effect (steered minus baseline), unit.
        """
        import pandas as pd  # a third of a second; only tables need it

        rows: list[dict[str, Any]] = []
        for index, metric in enumerate(self.metrics):
            start = float(self.baseline[index])
            for layer, value in enumerate(self.values[index].tolist()):
                rows.append({
                    "layer": layer, "norm_ratio": float(self.ratio[layer]), "metric": metric,
                    "baseline": start, "value": value, "effect": value - start,
                    "unit": EFFECT_METRICS[metric].unit,
                })  # fmt: skip
        return pd.DataFrame(rows)

    def to_json(self) -> str:
        """JSON text: schema "lantern/steering_layers", version, every field; no NaN."""
        fields = {**shared_fields(self, ARRAYS), "n_layers": self.n_layers}
        return dump_record(SCHEMA, VERSION, fields)

    @classmethod
    def from_json(cls, text: str | bytes) -> "SteeringLayersResult":
        """The inverse of `to_json`; numbers come back exactly.

        Raises:
            InputError: not such a record, or damaged.
        """
        record = load_record(text, SCHEMA, VERSION)
        with damage_told("steering-layers"):
            shared, layers = read_steering(record), int(record["n_layers"])
            n = len(shared["metrics"])
            shapes = {"baseline": (n,), "values": (n, layers), "ratio": (layers,)}
            return cls(**shared, **read_arrays(record, shapes))
