"""What attribution patching returns: a first-order estimate of every cell of a causal trace.

Everything is CPU numpy and plain Python. The arrays hold estimated *effects* (cell minus baseline), so a
figure, a table and a file can never disagree about the baseline.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from mi_core.analyses.causal_trace_inputs import METRICS, CausalTraceInputs, Kind
from mi_core.analyses.causal_trace_parts import AnswerTokens, Check
from mi_core.analyses.shares import recovered_share
from mi_core.errors import InputError
from mi_core.provenance import Provenance
from mi_core.tokens import Token

if TYPE_CHECKING:
    import pandas as pd

ESTIMATED_KINDS: tuple[Kind, ...] = ("state", "attn", "mlp", "head")
"""Kinds of restoration that have a slope; severing does not."""

ESTIMATED_METRICS: tuple[str, ...] = ("probability", "log_probability", "logit", "logit_difference")
_SHARES = {
    "recovered_probability": "probability",
    "recovered_logit_difference": "logit_difference",
}


@dataclass(frozen=True, slots=True, eq=False)
class AttributionPatchingResult:
    """First-order estimates of a causal trace's cells.

    Attributes:
        inputs: the trace that is estimated.
        provenance: model, versions, seed; None only for results made without a model.
        tokens: tokens of the clean prompt.
        subject: token span [start, end) that is marked as the subject.
        first_difference: first position at which the two runs differ; effects above it are 0.
        n_layers: layers of the model.
        answer: the text whose probability is read.
        distractor: the text it is compared with, or None.
        metrics: what the first axis of the arrays stands for.
        rows: token positions of state, attn and mlp.
        clean: every metric in the clean run.
        corrupted: every metric in the corrupted run, mean over the noise samples.
        state: estimated effect of patching the state; None if it was not asked for.
        attn: of patching what attention adds, over the trace's window of layers; or None.
        mlp: of patching what the MLP adds; or None.
        head: of patching a head; or None.
        n_samples: noise samples that the mean is over.
        warnings: sentences to be read before the figure.
        checks: identities tried on this result.
        seconds: duration.
        cancelled: always False: an estimate is whole or not at all.
    """

    inputs: CausalTraceInputs
    provenance: Provenance | None
    tokens: tuple[Token, ...]
    subject: tuple[int, int]
    first_difference: int
    n_layers: int
    answer: AnswerTokens
    distractor: AnswerTokens | None
    metrics: tuple[str, ...]
    rows: tuple[int, ...]
    clean: Float[np.ndarray, "metric"]
    corrupted: Float[np.ndarray, "metric"]
    state: Float[np.ndarray, "metric row layer"] | None = None
    attn: Float[np.ndarray, "metric row layer"] | None = None
    mlp: Float[np.ndarray, "metric row layer"] | None = None
    head: Float[np.ndarray, "metric head layer"] | None = None
    n_samples: int = 1
    warnings: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    seconds: float = 0.0
    cancelled: bool = False

    def __post_init__(self) -> None:
        """Arrays fit each other and the tokens."""
        n_metrics = len(self.metrics)
        for kind in ("state", "attn", "mlp"):
            values = getattr(self, kind)
            if values is not None and values.shape != (n_metrics, len(self.rows), self.n_layers):
                raise ValueError(f"{kind} has shape {values.shape}, rows {len(self.rows)}")
        if self.head is not None and (self.head.shape[0], self.head.shape[2]) != (n_metrics, self.n_layers):
            raise ValueError(f"head has shape {self.head.shape}")
        if self.clean.shape != (n_metrics,) or self.corrupted.shape != (n_metrics,):
            raise ValueError(
                f"clean {self.clean.shape}, corrupted {self.corrupted.shape}, {n_metrics} metrics"
            )

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds that were estimated, in the order in which the trace asks for them."""
        return tuple(
            kind for kind in self.inputs.kinds if kind in ESTIMATED_KINDS and getattr(self, kind) is not None
        )

    @property
    def all_metrics(self) -> tuple[str, ...]:
        """Metrics that can be asked for, shares included."""
        return (*self.metrics, *(share for share, of in _SHARES.items() if of in self.metrics))

    def is_subject(self, position: int) -> bool:
        """Whether a token position belongs to the subject."""
        return self.subject[0] <= position < self.subject[1]

    def grid(self, kind: Kind, metric: str = "probability") -> Float[np.ndarray, "row layer"]:
        """Estimate of a metric at every cell: baseline plus estimated effect, or the share that it recovers.

        It is a straight line continued: a probability may come out below 0 or above 1.

        Raises:
            InputError: no such kind or metric here.
        """
        stored = self._stored(metric)
        values = getattr(self, kind) if kind in self.kinds else None
        if values is None:
            fix = f"Choose one of {', '.join(self.kinds)}"
            raise InputError(f"There is no estimate of {kind!r}", fix=fix)
        index = self.metrics.index(stored)
        cells = self._ends(stored)[self.inputs.direction == "noising"] + values[index]
        return cells if stored == metric else recovered_share(cells, *self._ends(stored))

    def effect(self, kind: Kind, metric: str = "probability") -> Float[np.ndarray, "row layer"]:
        """Estimated effect: `grid` minus the baseline."""
        return self.grid(kind, metric) - self.baseline(metric)

    def value(self, run: str, metric: str) -> float:
        """A metric of the "clean" or the "corrupted" run, on the same scale as `grid`."""
        stored = self._stored(metric)
        corrupted, clean = self._ends(stored)
        end = clean if run == "clean" else corrupted
        return end if stored == metric else float(recovered_share(np.array([end]), corrupted, clean)[0])

    def baseline(self, metric: str = "probability") -> float:
        """The metric with nothing patched: of the corrupted run, or of the clean run when noising."""
        return self.value("corrupted" if self.inputs.direction == "denoising" else "clean", metric)

    def to_frame(self) -> "pd.DataFrame":
        """Tidy table, one row per number.

        Columns: kind ("clean run", "corrupted run" or a kind), position, head, token, layer, metric, value,
        effect, unit, samples.
        """
        from mi_core.analyses.attribution_patching_record import to_frame  # that module imports this one

        return to_frame(self)

    def to_json(self) -> str:
        """JSON text: schema "lantern/attribution_patching", version, every field; no NaN."""
        from mi_core.analyses.attribution_patching_record import to_json

        return to_json(self)

    @classmethod
    def from_json(cls, text: str | bytes) -> "AttributionPatchingResult":
        """The inverse of `to_json`; numbers come back exactly.

        Raises:
            InputError: not such a record, or damaged.
        """
        from mi_core.analyses.attribution_patching_record import from_json

        return from_json(text)

    def _ends(self, stored: str) -> tuple[float, float]:
        """A stored metric in the corrupted and in the clean run."""
        index = self.metrics.index(stored)
        return float(self.corrupted[index]), float(self.clean[index])

    def _stored(self, metric: str) -> str:
        """The metric whose slope was taken."""
        stored = _SHARES.get(metric, metric)
        if stored not in self.metrics:
            why = "it has no slope" if metric in METRICS and metric not in ESTIMATED_METRICS else ""
            raise InputError(
                f"There is no first-order estimate of {metric!r}",
                why=why,
                fix=f"Choose one of {', '.join(self.all_metrics)}",
            )
        return stored
