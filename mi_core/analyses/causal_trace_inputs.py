"""What a user chooses for a causal trace, and the words for kinds and metrics.

`CausalTraceInputs` is flat, hashable and JSON-able: it is the cache key, the link, the command line's
arguments and the first field of the result.
"""

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from mi_core.errors import InputError
from mi_core.tokens import Bos

Kind = Literal["state", "attn", "mlp", "state_attn_severed", "state_mlp_severed", "head"]
Direction = Literal["denoising", "noising"]
Noise = Literal["gaussian", "uniform"]
NoiseUnit = Literal["sigma", "absolute"]
WindowConvention = Literal["code", "paper"]

KINDS: tuple[Kind, ...] = get_args(Kind)

KIND_LABELS: dict[Kind, str] = {
    "state": "state",
    "attn": "attention",
    "mlp": "MLP",
    "state_attn_severed": "state, attention severed",
    "state_mlp_severed": "state, MLP severed",
    "head": "attention head",
}

MAX_SAMPLES = 1000
MAX_PROMPT_CHARACTERS = 100_000


@dataclass(frozen=True, slots=True)
class MetricInfo:
    """One number that can be read from a run.

    Attributes:
        name: key in `samples` and argument of `CausalTraceResult.grid`.
        label: for an axis or a column.
        unit: "probability", "nats", "logits", "share", "rank" or "share of samples".
        meaning: one sentence; says what 0 means where that matters.
        derived: computed from other metrics by `grid`, not stored per sample.
        needs_distractor: exists only when a distractor token was chosen.
    """

    name: str
    label: str
    unit: str
    meaning: str
    derived: bool = False
    needs_distractor: bool = False


METRICS: dict[str, MetricInfo] = {
    metric.name: metric
    for metric in (
        MetricInfo(
            "probability", "P(answer)", "probability", "Mean over samples of the answer's probability."
        ),
        MetricInfo(
            "log_probability", "log P(answer)", "nats", "Mean over samples of the natural log-probability."
        ),
        MetricInfo("logit", "answer logit", "logits", "Mean over samples of the answer's logit."),
        MetricInfo(
            "logit_difference",
            "logit difference",
            "logits",
            "Answer's logit minus the distractor's; above 0 the answer wins.",
            needs_distractor=True,
        ),
        MetricInfo(
            "recovered_probability",
            "recovered probability",
            "share",
            "(P - P corrupted) / (P clean - P corrupted): 0 = corrupted run, 1 = clean run. Not clipped.",
            derived=True,
        ),
        MetricInfo(
            "recovered_logit_difference",
            "recovered logit difference",
            "share",
            "The same share for the logit difference: 0 = corrupted run, 1 = clean run. Not clipped.",
            derived=True,
            needs_distractor=True,
        ),
        MetricInfo(
            "kl_recovery",
            "KL recovery",
            "share",
            "1 - KL(clean||patched) / KL(clean||corrupted), all tokens: 0 = corrupted run, 1 = clean run.",
            derived=True,
        ),
        MetricInfo(
            "kl", "KL(clean||patched)", "nats", "Divergence from the clean run's output; 0 = the same output."
        ),
        MetricInfo(
            "rank", "rank of the answer", "rank", "Mean rank of the answer's (first) token; 1 = top token."
        ),
        MetricInfo(
            "top1_flip",
            "top token changed",
            "share of samples",
            "Share of samples whose top token differs from that of the same sample with nothing patched.",
        ),
    )
}
STORED_METRICS: tuple[str, ...] = tuple(name for name, metric in METRICS.items() if not metric.derived)


@dataclass(frozen=True, slots=True)
class CausalTraceInputs:
    """What to trace.

    Attributes:
        prompt: the clean prompt.
        corrupted_prompt: a second prompt of equal length in tokens; None = add noise to `subject` instead.
        subject: token span [start, end) that is noised, counted in the tokens that are shown (BOS included).
            With a corrupted prompt it only names the subject's rows, and None means the span from the first
            to the last differing token.
        noise: distribution of the noise on the subject's embeddings.
        noise_level: standard deviation (gaussian) or half width (uniform) in `noise_unit`.
        noise_unit: "sigma" = multiples of the standard deviation of embedding outputs; "absolute" = embedding
            units.
        sigma_subjects: texts whose embedding outputs define sigma, as ROME does with its known subjects;
            empty = the whole vocabulary.
        samples: noise draws.
        seed: of numpy's RandomState; 1 gives ROME's very numbers.
        direction: "denoising" patches clean values into the corrupted run, "noising" corrupted ones into the
            clean run.
        kinds: what is patched.
        window: number of layers patched together, for "attn" and "mlp".
        window_convention: for even windows, "code" = [l - w/2, l + w/2 - 1] as ROME's program, "paper" = one
            layer later.
        head_position: position at which "head" is patched; None = all positions.
        answer: text of the answer; None = the clean run's top token.
        distractor: text of the token that the answer is compared with; None = with a corrupted prompt that
            run's top token, if it is not the answer; otherwise none.
        bos: whether a beginning-of-sequence token is put first; "auto" = as the tokenizer does.
        positions: rows to trace; None = all tokens of the prompt.
    """

    prompt: str
    corrupted_prompt: str | None = None
    subject: tuple[int, int] | None = None
    noise: Noise = "gaussian"
    noise_level: float = 3.0
    noise_unit: NoiseUnit = "sigma"
    sigma_subjects: tuple[str, ...] = ()
    samples: int = 10
    seed: int = 0
    direction: Direction = "denoising"
    kinds: tuple[Kind, ...] = ("state", "attn", "mlp")
    window: int = 1
    window_convention: WindowConvention = "code"
    head_position: int | None = None
    answer: str | None = None
    distractor: str | None = None
    bos: Bos = "auto"
    positions: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        """Refuse what no model could make sense of; what depends on the model is checked when it is known."""
        for name in ("subject", "sigma_subjects", "kinds", "positions"):
            if isinstance(getattr(self, name), list):  # hashable, whoever wrote [..] in a notebook
                object.__setattr__(self, name, tuple(getattr(self, name)))
        for name, type_name in (
            ("noise", Noise),
            ("noise_unit", NoiseUnit),
            ("direction", Direction),
            ("window_convention", WindowConvention),
            ("bos", Bos),
        ):
            _check_choice(name, getattr(self, name), get_args(type_name))
        _check_kinds(self.kinds)
        _check_texts(self)
        _check_noise(self)
        if self.window < 1:
            raise InputError(f"The window is {self.window} layers", fix="Give 1 or more")
        _check_span(self.subject)

    @property
    def corruption(self) -> Literal["noise", "tokens"]:
        """Whether the corrupted run differs by noise or by tokens."""
        return "noise" if self.corrupted_prompt is None else "tokens"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, one per field."""
        return {
            name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "CausalTraceInputs":
        """The inverse of `to_dict`.

        Raises:
            InputError: an unknown or missing field, or a value that `CausalTraceInputs` refuses.
        """
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown or "prompt" not in values:
            problem = f"has unknown fields {unknown}" if unknown else "has no prompt"
            raise InputError(f"The trace's description {problem}")
        plain: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in values.items()}
        for name, value in plain.items():
            if not _fits(name, value):
                raise InputError(f"The trace's {name.replace('_', ' ')} cannot be {str(value)[:80]!r}")
        return cls(**plain)


_TEXTS = ("prompt", "noise", "noise_unit", "direction", "window_convention", "bos")
_OPTIONAL = ("corrupted_prompt", "subject", "head_position", "answer", "distractor", "positions")


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _fits(name: str, value: object) -> bool:
    """Whether a value from a file has the type of its field."""
    if value is None:
        return name in _OPTIONAL
    if name in _TEXTS or name in ("corrupted_prompt", "answer", "distractor"):
        return isinstance(value, str)
    if name == "noise_level":
        return _is_whole(value) or isinstance(value, float)
    if name in ("kinds", "sigma_subjects"):
        return isinstance(value, tuple) and all(isinstance(one, str) for one in value)
    if name in ("subject", "positions"):
        return isinstance(value, tuple) and all(_is_whole(one) for one in value)
    return _is_whole(value)


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InputError(f"{name} is {value!r}", fix=f"Choose one of {', '.join(choices)}")


def _check_kinds(kinds: tuple[str, ...]) -> None:
    if not kinds:
        raise InputError("No kind of restoration was chosen", fix=f"Choose some of {', '.join(KINDS)}")
    for kind in kinds:
        _check_choice("kind", kind, KINDS)
    if len(set(kinds)) != len(kinds):
        raise InputError("A kind of restoration was chosen twice")


def _check_texts(inputs: CausalTraceInputs) -> None:
    for name in ("prompt", "corrupted_prompt"):
        text = getattr(inputs, name)
        if text is None and name == "corrupted_prompt":
            continue
        if not isinstance(text, str) or not text:
            raise InputError(
                f"The {name.replace('_', ' ')} is empty", fix="Type a sentence that ends before its answer"
            )
        if len(text) > MAX_PROMPT_CHARACTERS:
            raise InputError(
                f"The {name.replace('_', ' ')} has more than {MAX_PROMPT_CHARACTERS:,} characters"
            )
    for name in ("answer", "distractor"):
        text = getattr(inputs, name)
        if text is not None and (not isinstance(text, str) or not text):
            raise InputError(f"The {name} is empty", fix="Leave it out to use the default")


def _check_noise(inputs: CausalTraceInputs) -> None:
    if not 0 <= inputs.noise_level < 1e6:  # also refuses NaN
        raise InputError(
            f"The noise level is {inputs.noise_level}", fix="Give a number from 0 to a million; 3 is usual"
        )
    if not 1 <= inputs.samples <= MAX_SAMPLES:
        raise InputError(
            f"The number of samples is {inputs.samples}", fix=f"Give 1 to {MAX_SAMPLES}; 10 is usual"
        )
    if not 0 <= inputs.seed < 2**32:
        raise InputError(f"The seed is {inputs.seed}", fix="Give a whole number from 0 to 4294967295")


def _check_span(span: tuple[int, int] | None) -> None:
    if span is not None and not (len(span) == 2 and 0 <= span[0] < span[1]):
        raise InputError(f"The subject's token span is {span}", fix="Give (start, end) with 0 <= start < end")
