"""Causal traces averaged over a prompt set: six token roles x layer (ROME, arXiv 2202.05262, figure 2).

    AIE[role, layer] = mean of (restored - corrupted) over the role's tokens          ATE = mean of (clean -
    corrupted)

Differences are taken per prompt between runs with the same noise, then averaged; nothing is clipped. A token
that plays two roles (a one-token subject is first and last; the only token after the subject is first after
and last) counts in both; a role that a prompt has no token for does not count for it. `pooling` says what one
item of the mean is: "tokens", as in ROME's program (a subject with four middle tokens counts four times), or
"prompts" (each prompt's mean over its tokens counts once). Bands are percentile bootstraps over prompts.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from jaxtyping import Float, Int

from mi_core.analyses.cases import Case
from mi_core.analyses.causal_trace_inputs import (
    METRICS,
    CausalTraceInputs,
    Kind,
    Noise,
    NoiseUnit,
    WindowConvention,
)
from mi_core.analyses.causal_trace_result import Check
from mi_core.analyses.shares import bootstrap_weights, percentile_band, ratio
from mi_core.errors import InputError
from mi_core.provenance import Provenance
from mi_core.tokens import Bos

if TYPE_CHECKING:
    import pandas as pd

Role = Literal[
    "first subject token",
    "middle subject tokens",
    "last subject token",
    "first token after",
    "further tokens",
    "last token",
]
ROLES: tuple[Role, ...] = get_args(Role)
Pooling = Literal["tokens", "prompts"]
AverageMetric = Literal["probability", "log_probability", "logit"]
MAX_CASES = 5000


def token_roles(n_prompt: int, subject: tuple[int, int]) -> tuple[tuple[int, ...], ...]:
    """Positions that play each of `ROLES`, empty where a prompt has none.

    Args:
        n_prompt: tokens of the prompt.
        subject: token span [start, end).
    """
    start, end = subject
    last = n_prompt - 1
    return (
        (start,),
        tuple(range(start + 1, end - 1)),
        (end - 1,),
        (end,) if end <= last else (),
        tuple(range(end + 1, last)),
        (last,),
    )


@dataclass(frozen=True, slots=True)
class CausalTraceAverageInputs:
    """What to average.

    Attributes:
        cases: the prompts; those that the model does not get right are left out and listed.
        corruption: "noise" on the subject, or "tokens": each case's corrupted prompt.
        metric: what is averaged.
        pooling: what one item of the mean is, see the module docstring.
        kinds: as in `CausalTraceInputs`, without "head".
        window: as there.
        window_convention: as there.
        noise: as there.
        noise_level: as there.
        noise_unit: as there.
        sigma_of: "vocabulary" = all tokens; "subjects" = the subjects of these cases, as ROME measures it.
        samples: noise draws per prompt.
        seed: of the noise (the same stream for every prompt) and of the bootstrap.
        resamples: bootstrap resamples.
        bos: as there.
        set_name: what to call the set of prompts.
    """

    cases: tuple[Case, ...]
    corruption: Literal["noise", "tokens"] = "noise"
    metric: AverageMetric = "probability"
    pooling: Pooling = "tokens"
    kinds: tuple[Kind, ...] = ("state", "attn", "mlp")
    window: int = 1
    window_convention: WindowConvention = "code"
    noise: Noise = "gaussian"
    noise_level: float = 3.0
    noise_unit: NoiseUnit = "sigma"
    sigma_of: Literal["vocabulary", "subjects"] = "vocabulary"
    samples: int = 10
    seed: int = 0
    resamples: int = 2000
    bos: Bos = "auto"
    set_name: str = "prompts"

    def __post_init__(self) -> None:
        """Refuse what no model could make sense of."""
        if not 1 <= len(self.cases) <= MAX_CASES:
            raise InputError(f"The set has {len(self.cases)} prompts", fix=f"Give 1 to {MAX_CASES:,}")
        for name, choices in (
            ("corruption", ("noise", "tokens")),
            ("metric", get_args(AverageMetric)),
            ("pooling", get_args(Pooling)),
            ("sigma_of", ("vocabulary", "subjects")),
        ):
            if getattr(self, name) not in choices:
                raise InputError(
                    f"{name} is {getattr(self, name)!r}", fix=f"Choose one of {', '.join(choices)}"
                )
        for name in ("window", "samples", "seed", "resamples"):
            if not isinstance(getattr(self, name), int):
                raise InputError(f"{name} is {getattr(self, name)!r}", fix="Give a whole number")
        if "head" in self.kinds:
            raise InputError("Heads have no token roles", fix="Choose among the other kinds")
        if not 100 <= self.resamples <= 100_000:
            raise InputError(f"The number of resamples is {self.resamples}", fix="Give 100 to 100,000")
        self.trace_inputs(self.cases[0], (0, 1))  # checks what both have in common

    def trace_inputs(self, case: Case, subject: tuple[int, int] | None) -> CausalTraceInputs:
        """The trace of one case."""
        subjects = tuple(sorted({one.subject for one in self.cases if one.subject}))
        return CausalTraceInputs(
            prompt=case.prompt,
            corrupted_prompt=case.corrupted_prompt if self.corruption == "tokens" else None,
            subject=subject,
            noise=self.noise,
            noise_level=self.noise_level,
            noise_unit=self.noise_unit,
            sigma_subjects=subjects if self.sigma_of == "subjects" else (),
            samples=self.samples,
            seed=self.seed,
            kinds=self.kinds,
            window=self.window,
            window_convention=self.window_convention,
            answer=case.answer,
            bos=self.bos,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, one per field."""
        plain = {
            name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()
        }
        return {**plain, "cases": [case.to_dict() for case in self.cases]}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "CausalTraceAverageInputs":
        """The inverse of `to_dict`.

        Raises:
            InputError: an unknown field or a value that is refused.
        """
        unknown = sorted(set(values) - {field.name for field in fields(cls)})
        if unknown or not isinstance(values.get("cases"), list):
            problem = f"has unknown fields {unknown}" if unknown else "has no list of cases"
            raise InputError(f"The description of the average {problem}")
        try:
            cases = tuple(Case(**case) for case in values["cases"])
            return cls(
                **{**values, "cases": cases, "kinds": tuple(values.get("kinds", ("state", "attn", "mlp")))}
            )
        except TypeError as error:
            raise InputError("The description of the average is damaged", why=str(error)) from error


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
