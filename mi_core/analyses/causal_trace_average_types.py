"""Causal traces averaged over a prompt set: six token roles x layer (ROME, arXiv 2202.05262, figure 2).

    AIE[role, layer] = mean of (restored - corrupted) over the role's tokens
    ATE              = mean of (clean - corrupted)

Differences are taken per prompt between runs with the same noise, then averaged; nothing is clipped. A token
that plays two roles (a one-token subject is first and last; the only token after the subject is first after
and last) counts in both; a role that a prompt has no token for does not count for it. `pooling` says what one
item of the mean is: "tokens", as in ROME's program (a subject with four middle tokens counts four times), or
"prompts" (each prompt's mean over its tokens counts once). Bands are percentile bootstraps over prompts.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from mi_core.analyses.causal_trace_average_inputs import ROLES, CausalTraceAverageInputs
from mi_core.analyses.causal_trace_inputs import METRICS, Kind
from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.shares import bootstrap_weights, percentile_band, ratio
from mi_core.errors import InputError
from mi_core.provenance import Provenance

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class UsedCase:
    """A prompt that went into the average.

    Attributes:
        index: its place in `inputs.cases`.
        n_tokens: tokens of the prompt.
        subject: token span [start, end).
        answer: visible text of the answer's tokens.
    """

    index: int
    n_tokens: int
    subject: tuple[int, int]
    answer: str


@dataclass(frozen=True, slots=True)
class SkippedCase:
    """A prompt that did not.

    Attributes:
        index: its place in `inputs.cases`.
        reason: a clause.
        wrong: whether it was left out because the model does not get it right.
    """

    index: int
    reason: str
    wrong: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class CausalTraceAverageResult:
    """Averages of causal traces by token role.

    Attributes:
        inputs: what was asked for.
        provenance: model, versions, seed.
        n_layers: layers of the model.
        used: prompts in the average, in order.
        skipped: the others, with the reason.
        clean: [prompt] the metric in the clean run.
        corrupted: [prompt] the metric in the corrupted run, mean over noise samples.
        counts: [prompt, role] tokens that play the role.
        sums: kind -> [prompt, role, layer] sum over these tokens of restored - corrupted (0 where there is
            none).
        warnings: sentences to be read before the figure.
        checks: identities tried.
        seconds: duration.
        cancelled: whether the user stopped it; then `used` holds what was done.
    """

    inputs: CausalTraceAverageInputs
    provenance: Provenance | None
    n_layers: int
    used: tuple[UsedCase, ...]
    skipped: tuple[SkippedCase, ...]
    clean: Float[np.ndarray, "prompt"]
    corrupted: Float[np.ndarray, "prompt"]
    counts: Int[np.ndarray, "prompt role"]
    sums: Mapping[Kind, Float[np.ndarray, "prompt role layer"]]
    warnings: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    seconds: float = 0.0
    cancelled: bool = False

    def __post_init__(self) -> None:
        """Every array has one row per used prompt."""
        n = len(self.used)
        shapes = {"clean": self.clean.shape, "corrupted": self.corrupted.shape, "counts": self.counts.shape}
        wanted = {"clean": (n,), "corrupted": (n,), "counts": (n, len(ROLES))}
        if shapes != wanted:
            raise ValueError(f"{n} prompts: arrays have shapes {shapes}, expected {wanted}")
        for kind, values in self.sums.items():
            if values.shape != (n, len(ROLES), self.n_layers):
                raise ValueError(f"{kind}: shape {values.shape}, expected {(n, len(ROLES), self.n_layers)}")

    # --- how much data
    # ------------------------------------------------------------------------------------------

    @property
    def n_prompts(self) -> int:
        """Prompts in the average."""
        return len(self.used)

    def prompts_per_role(self) -> Int[np.ndarray, "role"]:
        """Prompts that have a token in each role."""
        return (self.counts > 0).sum(axis=0)

    def tokens_per_role(self) -> Int[np.ndarray, "role"]:
        """Tokens in each role, over all prompts."""
        return self.counts.sum(axis=0)

    # --- numbers
    # ------------------------------------------------------------------------------------------------

    @property
    def total_effect(self) -> float:
        """ATE: mean of clean - corrupted over prompts; NaN without prompts."""
        return float((self.clean - self.corrupted).mean()) if self.used else float("nan")

    def total_effect_interval(self) -> tuple[float, float]:
        """95 % bootstrap band of `total_effect`; NaN with fewer than two prompts."""
        effect = (self.clean - self.corrupted)[:, None]
        low, high = percentile_band(ratio(self._weights() @ effect, self._weights().sum(1, keepdims=True)))
        return float(low[0]), float(high[0])

    def average(self, kind: Kind) -> Float[np.ndarray, "role layer"]:
        """AIE: mean of restored - corrupted; NaN for a role that no prompt has."""
        sums, counts = self._items(kind)
        return ratio(sums.sum(axis=0), counts.sum(axis=0)[:, None])

    def interval(self, kind: Kind) -> tuple[Float[np.ndarray, "role layer"], Float[np.ndarray, "role layer"]]:
        """95 % bootstrap band of `average` over prompts, paired with their own corrupted runs.

        Returns:
            (low, high); NaN with fewer than two prompts.
        """
        return percentile_band(self._resampled(kind))

    def share(self, kind: Kind) -> Float[np.ndarray, "role layer"]:
        """AIE / ATE: the share of the total effect that one restored token brings back."""
        return ratio(self.average(kind), np.array(self.total_effect))

    def share_interval(
        self, kind: Kind
    ) -> tuple[Float[np.ndarray, "role layer"], Float[np.ndarray, "role layer"]]:
        """95 % bootstrap band of `share`; both means are taken over the same resampled prompts."""
        weights = self._weights()
        total = ratio(weights @ (self.clean - self.corrupted)[:, None], weights.sum(1, keepdims=True))
        return percentile_band(ratio(self._resampled(kind), total[:, :, None]))

    def _items(self, kind: Kind) -> tuple[np.ndarray, np.ndarray]:
        """Numerators and denominators per prompt, by the pooling that was asked for."""
        if kind not in self.sums:
            raise InputError(
                f"This average has no kind {kind!r}", fix=f"Choose one of {', '.join(self.sums)}"
            )
        if self.inputs.pooling == "tokens":
            return self.sums[kind], self.counts
        return self.sums[kind] / np.maximum(self.counts, 1)[:, :, None], (self.counts > 0).astype(int)

    def _weights(self) -> np.ndarray:
        return bootstrap_weights(self.n_prompts, self.inputs.resamples, self.inputs.seed)

    def _resampled(self, kind: Kind) -> np.ndarray:
        """[resample, role, layer] averages of resampled prompts."""
        sums, counts = self._items(kind)
        weights = self._weights()
        top = weights @ sums.reshape(len(sums), len(ROLES) * self.n_layers)
        return ratio(top.reshape(-1, len(ROLES), self.n_layers), (weights @ counts)[:, :, None])

    # --- tables and files
    # ---------------------------------------------------------------------------------------

    @property
    def unit(self) -> str:
        """Unit of all effects."""
        return METRICS[self.inputs.metric].unit

    def to_frame(self) -> "pd.DataFrame":
        """Tidy table: one row per kind, role and layer, then the total effect.

        Columns: kind, role, layer, metric, value, low, high (95 % band), unit, share, prompts, tokens,
            pooling.
        """
        from mi_core.analyses.causal_trace_average_record import to_frame  # that module imports this one

        return to_frame(self)

    def to_json(self) -> str:
        """JSON text: schema "lantern/causal_trace_average", version, every field; no NaN."""
        from mi_core.analyses.causal_trace_average_record import to_json

        return to_json(self)

    @classmethod
    def from_json(cls, text: str | bytes) -> "CausalTraceAverageResult":
        """The inverse of `to_json`.

        Raises:
            InputError: not such a record, or damaged.
        """
        from mi_core.analyses.causal_trace_average_record import from_json

        return from_json(text)
