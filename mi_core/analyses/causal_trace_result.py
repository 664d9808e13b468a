"""What a causal trace returns: grids of numbers, the two runs they lie between, warnings and checks.

Everything is CPU numpy and plain Python; nothing here needs torch or a model. Metrics that are shares are
computed on demand from the stored per-sample numbers, so a figure, a table and a file can never disagree.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np
from jaxtyping import Float

from mi_core.analyses.causal_trace_inputs import METRICS, CausalTraceInputs, Kind
from mi_core.analyses.causal_trace_parts import AnswerTokens, Check, PlanFigures, Reading, TraceGrid
from mi_core.analyses.shares import kl_recovery, recovered_share, standard_error, student_t
from mi_core.errors import InputError
from mi_core.provenance import Provenance
from mi_core.tokens import Token

if TYPE_CHECKING:
    import pandas as pd

Partial = TypeVar("Partial")


@dataclass(frozen=True, slots=True, eq=False)
class CausalTraceResult:
    """A causal trace: every number of the grids and the two runs they lie between.

    Attributes:
        inputs: what was asked for.
        provenance: model, versions, seed; None only for results made without a model.
        tokens: tokens of the clean prompt, one per position.
        corrupted_tokens: tokens of the corrupted prompt; the same as `tokens` when noise corrupts.
        subject: token span [start, end) that is marked as the subject.
        first_difference: first position at which the two runs differ; rows above it equal the base run
            exactly.
        n_layers: layers of the model.
        answer: the text whose probability is read.
        distractor: the text it is compared with, or None.
        clean: the clean run.
        corrupted: the corrupted run, one number per noise sample.
        grids: kind -> grid, in the order asked for.
        noise_scale: standard deviation (gaussian) or half width (uniform) of the noise in embedding units;
            None without noise.
        sigma: standard deviation of the embedding outputs that noise levels refer to; None without noise.
        vocabulary: token id -> visible text, for every id in the tops, answer and distractor.
        warnings: sentences to be read before the figure.
        checks: identities tried on this result.
        plan: cost.
        seconds: duration.
        cancelled: whether the user stopped it; then some cells are not done.
    """

    inputs: CausalTraceInputs
    provenance: Provenance | None
    tokens: tuple[Token, ...]
    corrupted_tokens: tuple[Token, ...]
    subject: tuple[int, int]
    first_difference: int
    n_layers: int
    answer: AnswerTokens
    distractor: AnswerTokens | None
    clean: Reading
    corrupted: Reading
    grids: Mapping[Kind, TraceGrid]
    plan: PlanFigures
    seconds: float
    noise_scale: float | None = None
    sigma: float | None = None
    vocabulary: Mapping[int, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    cancelled: bool = False

    def __post_init__(self) -> None:
        """Tokens, spans, grids and samples fit each other."""
        if len(self.tokens) != len(self.corrupted_tokens):
            raise ValueError(
                f"{len(self.tokens)} clean tokens but {len(self.corrupted_tokens)} corrupted ones"
            )
        if not 0 <= self.subject[0] < self.subject[1] <= len(self.tokens):
            raise ValueError(f"subject {self.subject} lies outside the {len(self.tokens)} tokens")
        for kind, grid in self.grids.items():
            if grid.kind != kind or grid.done.shape[1] != self.n_layers:
                raise ValueError(
                    f"grid {kind!r} is of kind {grid.kind!r} with layers {grid.done.shape[1]}, "
                    f"expected {self.n_layers} layers"
                )
            samples = {values.shape[2] for values in grid.samples.values()}
            if samples != {self.n_samples}:
                raise ValueError(f"grid {kind!r} has {samples} samples, the corrupted run {self.n_samples}")
            if set(grid.samples) != set(self.clean.samples):
                raise ValueError(
                    f"grid {kind!r} has metrics {sorted(grid.samples)}, "
                    f"the clean run {sorted(self.clean.samples)}"
                )

    # --- what is there
    # ------------------------------------------------------------------------------------------

    @property
    def n_samples(self) -> int:
        """Noise samples (1 for token replacement)."""
        return len(self.corrupted.samples["probability"])

    @property
    def metrics(self) -> tuple[str, ...]:
        """Metrics that this result has; the two logit differences need a distractor."""
        return tuple(
            m.name for m in METRICS.values() if not m.needs_distractor or self.distractor is not None
        )

    @property
    def base(self) -> Reading:
        """The run that is patched into: corrupted when denoising, clean when noising."""
        return self.corrupted if self.inputs.direction == "denoising" else self.clean

    @property
    def source(self) -> Reading:
        """The run that patched values come from: clean when denoising, corrupted when noising."""
        return self.clean if self.inputs.direction == "denoising" else self.corrupted

    def is_subject(self, position: int) -> bool:
        """Whether a token position belongs to the subject."""
        return self.subject[0] <= position < self.subject[1]

    def visible(self, token_id: int) -> str:
        """Visible text of a token id that occurs in this result."""
        return self.vocabulary.get(token_id, f"#{token_id}")

    # --- numbers
    # ------------------------------------------------------------------------------------------------

    def grid(self, kind: Kind, metric: str = "probability") -> Float[np.ndarray, "row layer"]:
        """A metric at every cell: the mean over noise samples, or a share computed from such means.

        Args:
            kind: one of `grids`.
            metric: one of `metrics`.

        Returns:
            In the metric's unit. NaN where the cell is not done, and everywhere when a share has no
            denominator (clean and corrupted run agree).

        Raises:
            InputError: no such kind or metric here.
        """
        samples = self._samples(kind)
        return self._combine(metric, lambda stored: samples[stored].mean(axis=-1))

    def value(self, reading: Reading, metric: str) -> float:
        """A metric of the clean or the corrupted run, on the same scale as `grid`."""
        return float(self._combine(metric, lambda stored: np.array([reading.mean(stored)]))[0])

    def baseline(self, metric: str = "probability") -> float:
        """The metric with nothing patched: of the corrupted run, or of the clean run when noising."""
        return self.value(self.base, metric)

    def ceiling(self, metric: str = "probability") -> float:
        """The metric with everything patched: of the clean run, or of the corrupted run when noising."""
        return self.value(self.source, metric)

    def effect(self, kind: Kind, metric: str = "probability") -> Float[np.ndarray, "row layer"]:
        """Indirect effect: the grid minus the baseline (not clipped)."""
        return self.grid(kind, metric) - self.baseline(metric)

    def total_effect(self, metric: str = "probability") -> float:
        """Clean minus corrupted run."""
        return self.value(self.clean, metric) - self.value(self.corrupted, metric)

    def interval(
        self, kind: Kind, metric: str = "probability"
    ) -> tuple[Float[np.ndarray, "row layer"], Float[np.ndarray, "row layer"]]:
        """95 % band of `grid` for the draw of the noise.

        The band is that of the *paired* difference patched - baseline of the same noise sample (Student's t),
        put around the grid's value: it answers whether a cell differs from the baseline, not how far samples
        spread.

        Returns:
            (low, high). NaN with fewer than two samples.
        """
        centre = self.grid(kind, metric)
        half = self._half_width(kind, metric)
        return centre - half, centre + half

    def effect_interval(
        self, kind: Kind, metric: str = "probability"
    ) -> tuple[Float[np.ndarray, "row layer"], Float[np.ndarray, "row layer"]]:
        """95 % band of `effect`: the one of `interval`, counted from the baseline.

        Returns:
            (low, high). NaN with fewer than two samples.
        """
        low, high = self.interval(kind, metric)
        return low - self.baseline(metric), high - self.baseline(metric)

    def to_frame(self) -> "pd.DataFrame":
        """Tidy table, one row per number.

        Columns: kind ("clean run", "corrupted run" or a kind of `grids`), position, head, token, layer,
            metric,
        value, low, high (95 % band), unit, samples.
        """
        from mi_core.analyses.causal_trace_record import to_frame  # that module imports this one

        return to_frame(self)

    def to_json(self) -> str:
        """JSON text: schema "lantern/causal_trace", version, every field; no NaN."""
        from mi_core.analyses.causal_trace_record import to_json

        return to_json(self)

    @classmethod
    def from_json(cls, text: str | bytes) -> "CausalTraceResult":
        """The inverse of `to_json`; numbers come back exactly.

        Raises:
            InputError: not such a record, or damaged.
        """
        from mi_core.analyses.causal_trace_record import from_json

        return from_json(text)

    def _samples(self, kind: Kind) -> Mapping[str, np.ndarray]:
        if kind not in self.grids:
            raise InputError(f"This trace has no grid {kind!r}", fix=f"Choose one of {', '.join(self.grids)}")
        return self.grids[kind].samples

    def _combine(self, metric: str, mean_of: Callable[[str], np.ndarray]) -> np.ndarray:
        """A metric from the means of stored metrics; clean and corrupted runs give the ends of the shares."""
        self._check_metric(metric)
        if metric == "kl_recovery":
            return kl_recovery(mean_of("kl"), self.corrupted.mean("kl"))
        if metric in ("recovered_probability", "recovered_logit_difference"):
            stored = metric.removeprefix("recovered_")
            return recovered_share(mean_of(stored), self.corrupted.mean(stored), self.clean.mean(stored))
        return mean_of(metric)

    def _check_metric(self, metric: str) -> None:
        if metric not in self.metrics:
            why = "no distractor was chosen" if metric in METRICS else ""
            raise InputError(
                f"This trace has no metric {metric!r}",
                why=why,
                fix=f"Choose one of {', '.join(self.metrics)}",
            )

    def _half_width(self, kind: Kind, metric: str) -> np.ndarray:
        """Half of the 95 % band of the paired difference, in the metric's unit."""
        self._check_metric(metric)
        if metric == "kl_recovery":
            scale, stored = self.corrupted.mean("kl"), "kl"
        elif METRICS[metric].derived:
            stored = metric.removeprefix("recovered_")
            scale = self.clean.mean(stored) - self.corrupted.mean(stored)
        else:
            scale, stored = 1.0, metric
        difference = self._samples(kind)[stored] - self.base.samples[stored]
        half = standard_error(difference) * student_t(self.n_samples - 1)
        return np.full_like(half, np.nan) if scale == 0 else half / abs(scale)


@dataclass(frozen=True, slots=True, eq=False)
class Step(Generic[Partial]):
    """Progress of a trace or of an average.

    Attributes:
        done: cells (prompts) finished.
        total: cells in all.
        seconds_left: estimate, None until there is something to go by.
        partial: the result so far, or None while there is nothing to draw.
        text: what is going on.
    """

    done: int
    total: int
    seconds_left: float | None
    partial: Partial | None
    text: str
