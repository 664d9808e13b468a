"""What the dose curve of an attention edge returns. CPU numpy."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from mi_core.analyses.ablation_sweep_inputs import EFFECT_METRICS
from mi_core.analyses.ablation_sweep_record import read_shared
from mi_core.analyses.attention_dose_inputs import AttentionDoseInputs
from mi_core.analyses.attribution_result import ReadToken
from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.plain import damage_told
from mi_core.analyses.records import decode_array, dump_record, encode_array, load_record
from mi_core.errors import InputError
from mi_core.provenance import Provenance
from mi_core.tokens import Token

if TYPE_CHECKING:
    import pandas as pd

SCHEMA, VERSION = "lantern/attention_dose", 1


@dataclass(frozen=True, slots=True, eq=False)
class AttentionDoseResult:
    """Every metric at every level of one edge.

    Attributes:
        inputs: what was asked for; `inputs.levels` are the doses.
        provenance: model, versions; None only for results made without a model.
        tokens: tokens of the prompt.
        edge: text form of the edge, such as "e14-2@L1H2".
        answer: the token that is read.
        distractor: the token that it is compared with, or None.
        metrics: what the first axis of the arrays stands for.
        baseline: every metric with the edge as it is.
        values: every metric at every level; NaN where not run.
        attention: the edge's attention that was measured at every level, mean over the chosen heads.
        base_attention: the same with the edge as it is.
        warnings: sentences to be read before the figure.
        checks: identities tried on this result.
        seconds: duration.
        cancelled: whether it was stopped early.
    """

    inputs: AttentionDoseInputs
    provenance: Provenance | None
    tokens: tuple[Token, ...]
    edge: str
    answer: ReadToken
    distractor: ReadToken | None
    metrics: tuple[str, ...]
    baseline: Float[np.ndarray, "metric"]
    values: Float[np.ndarray, "metric level"]
    attention: Float[np.ndarray, "level"]
    base_attention: float
    warnings: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    seconds: float = 0.0
    cancelled: bool = False

    def __post_init__(self) -> None:
        """Arrays fit each other."""
        n, levels = len(self.metrics), len(self.inputs.levels)
        shapes = self.baseline.shape, self.values.shape, self.attention.shape
        if shapes != ((n,), (n, levels), (levels,)):
            raise ValueError(f"shapes {shapes}, {n} metrics, {levels} levels")

    def effect(self, metric: str) -> Float[np.ndarray, "level"]:
        """Edited minus baseline at every level.

        Raises:
            InputError: no such metric here.
        """
        if metric not in self.metrics:
            raise InputError(f"There is no {metric!r} here", fix=f"Choose one of {', '.join(self.metrics)}")
        index = self.metrics.index(metric)
        return self.values[index] - self.baseline[index]

    def dose_for(self, effect: float, metric: str) -> float | None:
        """The smallest level at which the curve, straight between levels, has an effect; None outside it."""
        levels, effects = self.inputs.levels, self.effect(metric).tolist()
        for index, (level, here) in enumerate(zip(levels, effects, strict=True)):
            if here == effect:
                return level
            after = effects[index + 1] if index + 1 < len(levels) else here
            if min(here, after) < effect < max(here, after):
                return level + (levels[index + 1] - level) * (effect - here) / (after - here)
        return None

    @property
    def wished_dose(self) -> float | None:
        """The level for `inputs.wished`; None without a wish, or where the curve never has that effect."""
        wished, metric = self.inputs.wished, self.inputs.metric
        return None if wished is None or metric not in self.metrics else self.dose_for(wished, metric)

    def to_frame(self) -> "pd.DataFrame":
        """Tidy table, one row per number.

        Columns: what ("baseline" or "edited"), level, metric, value, effect, unit. The edge's own attention
        is among the metrics.
        """
        import pandas as pd  # a third of a second; only tables need it

        rows = []
        for index, metric in enumerate(self.metrics):
            unit, start = EFFECT_METRICS[metric].unit, float(self.baseline[index])
            rows.append(_row("baseline", None, metric, start, 0.0, unit))
            found = zip(self.inputs.levels, self.values[index], self.effect(metric), strict=True)
            rows += [
                _row("edited", lvl, metric, float(value), float(effect), unit) for lvl, value, effect in found
            ]
        start = self.base_attention
        rows.append(_row("baseline", None, "attention", start, 0.0, "share"))
        for level, value in zip(self.inputs.levels, self.attention.tolist(), strict=True):
            rows.append(_row("edited", level, "attention", value, value - start, "share"))
        return pd.DataFrame(rows)

    def to_json(self) -> str:
        """JSON text: schema "lantern/attention_dose", version, every field; no NaN."""
        fields = {
            "inputs": self.inputs.to_dict(),
            "provenance": None if self.provenance is None else self.provenance.to_dict(),
            "tokens": [asdict(token) for token in self.tokens],
            "edge": self.edge,
            "answer": asdict(self.answer),
            "distractor": None if self.distractor is None else asdict(self.distractor),
            "metrics": list(self.metrics),
            "units": {metric: EFFECT_METRICS[metric].unit for metric in self.metrics},
            "levels": list(self.inputs.levels),
            "baseline": encode_array(self.baseline),
            "values": encode_array(self.values),
            "attention": encode_array(self.attention),
            "base_attention": self.base_attention,
            "wished_dose": self.wished_dose,
            "warnings": list(self.warnings),
            "checks": [asdict(check) for check in self.checks],
            "seconds": self.seconds,
            "cancelled": self.cancelled,
        }
        return dump_record(SCHEMA, VERSION, fields)

    @classmethod
    def from_json(cls, text: str | bytes) -> "AttentionDoseResult":
        """The inverse of `to_json`; numbers come back exactly.

        Raises:
            InputError: not such a record, or damaged.
        """
        record = load_record(text, SCHEMA, VERSION)
        with damage_told("attention-dose"):
            inputs, n = AttentionDoseInputs.from_dict(record["inputs"]), len(record["metrics"])
            levels = len(inputs.levels)
            return cls(
                inputs=inputs,
                edge=str(record["edge"]),
                baseline=decode_array(record["baseline"], "float64", (n,), "baseline"),
                values=decode_array(record["values"], "float64", (n, levels), "values"),
                attention=decode_array(record["attention"], "float64", (levels,), "attention"),
                base_attention=float(record["base_attention"]),
                **read_shared(record),
            )


def _row(
    what: str, level: float | None, metric: str, value: float, effect: float, unit: str
) -> dict[str, object]:
    return {
        "what": what, "level": level, "metric": metric, "value": value, "effect": effect, "unit": unit,
    }  # fmt: skip
