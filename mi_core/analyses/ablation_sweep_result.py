"""What sweeps of ablations return: the grid of single effects, and the joint effect of a list. CPU numpy."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float, Int

from mi_core.analyses.ablation_sweep_inputs import EFFECT_METRICS, AblationSweepInputs, JointAblationInputs
from mi_core.analyses.ablation_sweep_units import Units, units_of
from mi_core.analyses.attribution_result import ReadToken
from mi_core.analyses.causal_trace_parts import Check
from mi_core.errors import InputError
from mi_core.provenance import Provenance
from mi_core.tokens import Token

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True, eq=False)
class AblationSweepResult:
    """Numbers of every run in which one part was taken out.

    Attributes:
        inputs: what was asked for.
        provenance: model, versions; None only for results made without a model.
        tokens: tokens of the prompt.
        n_layers: layers of the model.
        n_heads: heads of a layer.
        answer: the token that is read.
        distractor: the token that it is compared with, or None.
        metrics: what the first axis of the arrays stands for.
        baseline: every metric with nothing taken out (but with `inputs.interventions`, if there are any).
        values: every metric with one part taken out; NaN where not run.
        top_ids: the top token of every run; -1 where not run.
        done: which cells were run.
        vocabulary: visible text of every token in `top_ids`.
        base_top: id of the baseline's top token.
        reference_note: what a mean or a resampled value is of; empty for zero and cut.
        warnings: sentences to be read before the figure.
        checks: identities tried on this result.
        seconds: duration.
        cancelled: whether it was stopped before all cells were run.
    """

    inputs: AblationSweepInputs
    provenance: Provenance | None
    tokens: tuple[Token, ...]
    n_layers: int
    n_heads: int
    answer: ReadToken
    distractor: ReadToken | None
    metrics: tuple[str, ...]
    baseline: Float[np.ndarray, "metric"]
    values: Float[np.ndarray, "metric row column"]
    top_ids: Int[np.ndarray, "row column"]
    done: Bool[np.ndarray, "row column"]
    vocabulary: dict[int, str]
    base_top: int
    reference_note: str = ""
    warnings: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    seconds: float = 0.0
    cancelled: bool = False

    def __post_init__(self) -> None:
        """Arrays fit each other and the sweep."""
        shape = self.units.shape
        if self.values.shape != (len(self.metrics), *shape) or self.baseline.shape != (len(self.metrics),):
            raise ValueError(f"values {self.values.shape}, baseline {self.baseline.shape}, cells {shape}")
        if self.top_ids.shape != shape or self.done.shape != shape:
            raise ValueError(f"top_ids {self.top_ids.shape}, done {self.done.shape}, cells {shape}")
        if set(self.metrics) - set(EFFECT_METRICS):
            raise ValueError(f"metrics {self.metrics}")

    @property
    def units(self) -> Units:
        """Names and text forms of all cells."""
        return units_of(self.inputs, self.n_layers, self.n_heads, len(self.tokens))

    def effect(self, metric: str) -> Float[np.ndarray, "row column"]:
        """Edited minus baseline.

        Raises:
            InputError: no such metric here.
        """
        if metric not in self.metrics:
            raise InputError(f"There is no {metric!r} here", fix=f"Choose one of {', '.join(self.metrics)}")
        index = self.metrics.index(metric)
        return self.values[index] - self.baseline[index]

    def floor(self, metric: str) -> float:
        """The median of |effect| over all cells that were run: half of the parts do no more than this."""
        effects = np.abs(self.effect(metric)[self.done])
        return float(np.median(effects)) if effects.size else float("nan")

    def ranked(self, metric: str) -> list[tuple[int, int]]:
        """Cells that were run, the largest |effect| first; equal ones in the order of the grid."""
        size = np.where(self.done, np.abs(self.effect(metric)), -1.0).ravel()
        order = np.argsort(-size, kind="stable")[: int(self.done.sum())]
        return [divmod(int(cell), self.done.shape[1]) for cell in order]

    def to_frame(self) -> "pd.DataFrame":
        """Tidy table, one row per number.

        Columns: what ("baseline" or "edited"), intervention, row, column, metric, value, effect, unit.
        """
        from mi_core.analyses.ablation_sweep_record import sweep_frame  # that module imports this one

        return sweep_frame(self)

    def to_json(self) -> str:
        """JSON text: schema "lantern/ablation_sweep", version, every field; no NaN."""
        from mi_core.analyses.ablation_sweep_record import sweep_json

        return sweep_json(self)

    @classmethod
    def from_json(cls, text: str | bytes) -> "AblationSweepResult":
        """The inverse of `to_json`; numbers come back exactly.

        Raises:
            InputError: not such a record, or damaged.
        """
        from mi_core.analyses.ablation_sweep_record import sweep_from_json

        return sweep_from_json(text)


@dataclass(frozen=True, slots=True, eq=False)
class JointAblationResult:
    """Single effects of a list of interventions, and their joint effect.

    Attributes:
        inputs: what was asked for.
        provenance: model, versions; None only for results made without a model.
        tokens: tokens of the prompt.
        interventions: text form of every intervention, in the order of the list.
        answer: the token that is read.
        distractor: the token that it is compared with, or None.
        metrics: what the first axis of the arrays stands for.
        baseline: every metric with nothing changed.
        single: every metric with one intervention alone; NaN where not run.
        joint: every metric with all of them; NaN where not run.
        warnings: sentences to be read before the figure.
        checks: identities tried on this result.
        seconds: duration.
        cancelled: whether it was stopped early.
    """

    inputs: JointAblationInputs
    provenance: Provenance | None
    tokens: tuple[Token, ...]
    interventions: tuple[str, ...]
    answer: ReadToken
    distractor: ReadToken | None
    metrics: tuple[str, ...]
    baseline: Float[np.ndarray, "metric"]
    single: Float[np.ndarray, "metric intervention"]
    joint: Float[np.ndarray, "metric"]
    warnings: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    seconds: float = 0.0
    cancelled: bool = False

    def __post_init__(self) -> None:
        """Arrays fit each other."""
        n = len(self.metrics)
        if self.single.shape != (n, len(self.interventions)) or {self.baseline.shape, self.joint.shape} != {
            (n,)
        }:
            raise ValueError(f"single {self.single.shape}, joint {self.joint.shape}, {n} metrics")

    def single_effects(self, metric: str) -> Float[np.ndarray, "intervention"]:
        """Edited minus baseline of each intervention alone."""
        index = self._index(metric)
        return self.single[index] - self.baseline[index]

    def joint_effect(self, metric: str) -> float:
        """Edited minus baseline of all interventions together."""
        index = self._index(metric)
        return float(self.joint[index] - self.baseline[index])

    def sum_of_singles(self, metric: str) -> float:
        """Sum of the single effects; equal to the joint effect when the interventions do not interact."""
        return float(self.single_effects(metric).sum())

    def _index(self, metric: str) -> int:
        if metric not in self.metrics:
            raise InputError(f"There is no {metric!r} here", fix=f"Choose one of {', '.join(self.metrics)}")
        return self.metrics.index(metric)

    def to_frame(self) -> "pd.DataFrame":
        """Tidy table, one row per number.

        Columns: what ("baseline", "single", "sum of singles" or "joint"), intervention, metric, value,
        effect, unit.
        """
        from mi_core.analyses.ablation_sweep_record import joint_frame

        return joint_frame(self)

    def to_json(self) -> str:
        """JSON text: schema "lantern/joint_ablation", version, every field; no NaN."""
        from mi_core.analyses.ablation_sweep_record import joint_json

        return joint_json(self)

    @classmethod
    def from_json(cls, text: str | bytes) -> "JointAblationResult":
        """The inverse of `to_json`.

        Raises:
            InputError: not such a record, or damaged.
        """
        from mi_core.analyses.ablation_sweep_record import joint_from_json

        return joint_from_json(text)
