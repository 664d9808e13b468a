"""What a user chooses for an average of causal traces, and the six token roles."""

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from mi_core.analyses.cases import Case
from mi_core.analyses.causal_trace_inputs import CausalTraceInputs, Kind, Noise, NoiseUnit, WindowConvention
from mi_core.errors import InputError
from mi_core.tokens import Bos

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
        pooling: one item of the mean is a token ("tokens", as in ROME's program) or a prompt ("prompts").
        kinds: what is restored; heads have no token roles.
        window: layers patched together by the kinds "attn" and "mlp".
        window_convention: where an even window reaches further, see `CausalTraceInputs`.
        noise: distribution of the noise.
        noise_level: its strength, in `noise_unit`.
        noise_unit: "sigma" = standard deviations of the embeddings, or "absolute".
        sigma_of: "vocabulary" = all tokens; "subjects" = the subjects of these cases, as ROME measures it.
        samples: noise draws per prompt.
        seed: of the noise (the same stream for every prompt) and of the bootstrap.
        resamples: bootstrap resamples.
        bos: whether a beginning-of-sequence token is put before the prompts.
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
