"""What the dose curve of a steering vector returns. CPU numpy."""

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
from mi_core.errors import InputError
from mi_core.provenance import Provenance
from mi_core.tokens import Token

if TYPE_CHECKING:
    import pandas as pd

SCHEMA, VERSION = "lantern/steering_dose", 1
ARRAYS = ("baseline", "values", "controls", "ratio")


@dataclass(frozen=True, slots=True, eq=False)
class SteeringDoseResult:
    """Every metric at every dose, of the vector and of random directions of its norm.

    Attributes:
        inputs: what was asked for; `inputs.coefficients` are the doses.
        provenance: model, versions; None only for results made without a model.
        tokens: tokens of the prompt.
        answer: the token that is read.
        distractor: the token that it is compared with, or None.
        made: how the vector was made.
        layer: where it was added.
        positions: tokens that it was added to.
        metrics: what the first axis of the arrays stands for.
        baseline: every metric without steering.
        values: every metric at every dose; NaN where not run.
        controls: the same for random directions.
        ratio: ||c v|| / ||x|| per dose, x the states after the layer, median over the steered tokens.
        norm: ||v||.
        spread: the median distance between the states of two tokens of the prompt after that layer, over the
            same median norm; above it a dose counts as off the distribution. 1 for a prompt of one token.
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
    layer: int
    positions: tuple[int, ...]
    metrics: tuple[str, ...]
    baseline: Float[np.ndarray, "metric"]
    values: Float[np.ndarray, "metric dose"]
    controls: Float[np.ndarray, "metric control dose"]
    ratio: Float[np.ndarray, "dose"]
    norm: float
    spread: float
    warnings: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    seconds: float = 0.0
    cancelled: bool = False

    def __post_init__(self) -> None:
        """Arrays fit each other."""
        for name, shape in _shapes(self.metrics, self.inputs).items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} has shape {getattr(self, name).shape}, expected {shape}")

    @property
    def doses(self) -> tuple[float, ...]:
        """The coefficients."""
        return self.inputs.coefficients

    def index(self, metric: str) -> int:
        """Place of a metric.

        Raises:
            InputError: it is not here.
        """
        if metric not in self.metrics:
            raise InputError(f"There is no {metric!r} here", fix=f"Choose one of {', '.join(self.metrics)}")
        return self.metrics.index(metric)

    def band(self, metric: str) -> tuple[Float[np.ndarray, "dose"], Float[np.ndarray, "dose"]]:
        """Lowest and highest value of the random directions at every dose; NaN without them."""
        found = self.controls[self.index(metric)]
        if not len(found):
            return np.full(len(self.doses), np.nan), np.full(len(self.doses), np.nan)
        return found.min(0), found.max(0)

    def dose_for(self, value: float, metric: str) -> float | None:
        """The dose nearest to 0 at which the curve, straight between doses, has a value; None outside it."""
        doses, found = self.doses, self.values[self.index(metric)].tolist()
        hits = [dose for dose, here in zip(doses, found, strict=True) if here == value]
        for step in range(len(doses) - 1):
            here, after = found[step], found[step + 1]
            if min(here, after) < value < max(here, after):
                hits.append(doses[step] + (doses[step + 1] - doses[step]) * (value - here) / (after - here))
        return min(hits, key=lambda dose: (abs(dose), -dose), default=None)

    @property
    def wished_dose(self) -> float | None:
        """The dose for `inputs.wished`; None without a wish, or where the curve does not have that value."""
        wished, metric = self.inputs.wished, self.inputs.metric
        return None if wished is None or metric not in self.metrics else self.dose_for(wished, metric)

    @property
    def off(self) -> tuple[float, ...]:
        """Doses off the distribution: longer than the way between two tokens' states."""
        return tuple(dose for dose, one in zip(self.doses, self.ratio, strict=True) if one > self.spread)

    def to_frame(self) -> "pd.DataFrame":
        """Tidy table, one row per number.

        Columns: what ("baseline", "steered", "random"), control, dose, norm_ratio, metric, value, effect
        (steered minus baseline), unit.
        """
        import pandas as pd  # a third of a second; only tables need it

        rows: list[dict[str, Any]] = []
        for index, metric in enumerate(self.metrics):
            unit, start = EFFECT_METRICS[metric].unit, float(self.baseline[index])
            shared = {"metric": metric, "unit": unit}
            rows.append({"what": "baseline", "control": None, "dose": 0.0, "norm_ratio": 0.0, **shared,
                         "value": start, "effect": 0.0})  # fmt: skip
            runs = [("steered", None, self.values[index])]
            runs += [("random", number, one) for number, one in enumerate(self.controls[index])]
            for what, number, found in runs:
                for dose, ratio, value in zip(self.doses, self.ratio.tolist(), found.tolist(), strict=True):
                    rows.append({"what": what, "control": number, "dose": dose, "norm_ratio": ratio, **shared,
                                 "value": value, "effect": value - start})  # fmt: skip
        return pd.DataFrame(rows).astype({"control": "Int64"})

    def to_json(self) -> str:
        """JSON text: schema "lantern/steering_dose", version, every field; no NaN."""
        own = {"layer": self.layer, "norm": self.norm, "spread": self.spread, "wished_dose": self.wished_dose}
        return dump_record(SCHEMA, VERSION, {**shared_fields(self, ARRAYS), **own})

    @classmethod
    def from_json(cls, text: str | bytes) -> "SteeringDoseResult":
        """The inverse of `to_json`; numbers come back exactly.

        Raises:
            InputError: not such a record, or damaged.
        """
        record = load_record(text, SCHEMA, VERSION)
        with damage_told("steering-dose"):
            shared = read_steering(record)
            return cls(
                **shared,
                **read_arrays(record, _shapes(shared["metrics"], shared["inputs"])),
                layer=int(record["layer"]),
                norm=float(record["norm"]),
                spread=float(record["spread"]),
            )


def _shapes(metrics: tuple[str, ...], inputs: SteeringInputs) -> dict[str, tuple[int, ...]]:
    n, doses = len(metrics), len(inputs.coefficients)
    return {
        "baseline": (n,), "values": (n, doses), "controls": (n, inputs.controls, doses), "ratio": (doses,),
    }  # fmt: skip
