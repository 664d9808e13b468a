"""What a user chooses for a logit lens, and the words for sites and statistics."""

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from mi_core.errors import InputError
from mi_core.tokens import Bos

LensSite = Literal["resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out"]
LensTarget = Literal["answer", "next token"]
Statistic = Literal["probability", "log_probability", "rank", "top_probability", "entropy", "kl"]

LENS_SITES: tuple[LensSite, ...] = get_args(LensSite)
STREAM_SITES: tuple[LensSite, ...] = ("resid_pre", "resid_mid", "resid_post")
STATISTICS: tuple[Statistic, ...] = get_args(Statistic)

MAX_TRACKED, MAX_TOP, MAX_PROMPT_CHARACTERS, MAX_WORD_CHARACTERS = 8, 50, 100_000, 1000


@dataclass(frozen=True, slots=True)
class StatisticInfo:
    """One number per cell of the lens.

    Attributes:
        label: for a menu.
        unit: "probability", "nats" or "rank".
        meaning: one sentence; says what the ends of its range mean.
        of_target: whether it is about the target token (else about the whole distribution).
    """

    label: str
    unit: str
    meaning: str
    of_target: bool = False


STATISTIC_INFO: dict[Statistic, StatisticInfo] = {
    "probability": StatisticInfo(
        "P(target)", "probability", "Probability of the target token; 1 = certain.", of_target=True
    ),
    "log_probability": StatisticInfo(
        "log P(target)", "nats", "Natural log-probability of the target token; 0 = certain.", of_target=True
    ),
    "rank": StatisticInfo(
        "rank of the target",
        "rank",
        "Place of the target among all tokens; 1 = top token. Ties count against it.",
        of_target=True,
    ),
    "top_probability": StatisticInfo(
        "P(top token)", "probability", "Probability of the token that is printed in the cell."
    ),
    "entropy": StatisticInfo(
        "entropy", "nats", "Uncertainty of the lens; 0 = certain, log(vocabulary size) = no idea."
    ),
    "kl": StatisticInfo(
        "KL(final || lens)",
        "nats",
        "How far the lens is from the model's final output at the same position; 0 = the same distribution.",
    ),
}

SITE_LABELS: dict[LensSite, str] = {
    "resid_pre": "stream before the block (resid_pre)",
    "resid_mid": "stream between attention and MLP (resid_mid)",
    "resid_post": "stream after the block (resid_post)",
    "attn_out": "attention output alone (attn_out)",
    "mlp_out": "MLP output alone (mlp_out)",
}


@dataclass(frozen=True, slots=True)
class LogitLensInputs:
    """What to read.

    Attributes:
        prompt: the text that the model reads.
        site: the vectors that are read: the residual stream (resid_pre, resid_mid, resid_post), or what one
            component adds to it (attn_out, mlp_out).
        answer: text of the answer, of which the first token is followed; None = the model's own top token at
            the end of the prompt.
        distractor: text of a token to compare with, or None.
        target: whose probability and rank are read: "answer" = that of the answer at every position, or
            "next token" = of the token that really comes next (the answer at the last position).
        tracked: further words to follow over the layers.
        k: top tokens kept per cell.
        stride: every how many layers one is read; the last layer always is.
        positions: token positions to read; None = all.
        lens: "" = the plain logit lens; otherwise the name or folder of a tuned lens for this model.
        bos: whether a beginning-of-sequence token is put first; "auto" = as the tokenizer does.
    """

    prompt: str
    site: LensSite = "resid_post"
    answer: str | None = None
    distractor: str | None = None
    target: LensTarget = "answer"
    tracked: tuple[str, ...] = ()
    k: int = 10
    stride: int = 1
    positions: tuple[int, ...] | None = None
    lens: str = ""
    bos: Bos = "auto"

    def __post_init__(self) -> None:
        """Refuse what no model could make sense of; what depends on the model is checked when it is known."""
        for name in ("tracked", "positions"):
            if isinstance(getattr(self, name), list):  # hashable, whoever wrote [..] in a notebook
                object.__setattr__(self, name, tuple(getattr(self, name)))
        check_prompt(self.prompt)
        check_choice("site", self.site, LENS_SITES)
        check_choice("target", self.target, get_args(LensTarget))
        check_choice("bos", self.bos, get_args(Bos))
        for name in ("answer", "distractor"):
            if getattr(self, name) is not None:
                check_word(name, getattr(self, name))
        if not isinstance(self.lens, str) or len(self.lens) > MAX_WORD_CHARACTERS:
            raise InputError("The lens has no usable name", fix="Choose one from the list")
        for word in self.tracked:
            check_word("tracked word", word)
        if len(self.tracked) > MAX_TRACKED:
            raise InputError(f"{len(self.tracked)} words are tracked", fix=f"Give at most {MAX_TRACKED}")
        if not (is_whole(self.k) and 1 <= self.k <= MAX_TOP):
            raise InputError(f"The number of top tokens is {self.k}", fix=f"Give 1 to {MAX_TOP}")
        if not (is_whole(self.stride) and self.stride >= 1):
            raise InputError(f"The stride is {self.stride} layers", fix="Give a whole number from 1 on")
        _check_positions(self.positions)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, one per field."""
        return {
            name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "LogitLensInputs":
        """The inverse of `to_dict`.

        Raises:
            InputError: an unknown or missing field, or a value that is refused.
        """
        unknown = sorted(set(values) - {field.name for field in fields(cls)})
        if unknown or "prompt" not in values:
            problem = f"has unknown fields {unknown}" if unknown else "has no prompt"
            raise InputError(f"The lens' description {problem}")
        return cls(**values)


def lens_layers(n_layers: int, stride: int) -> tuple[int, ...]:
    """Every `stride`-th layer, counted so that the last one is among them."""
    return tuple(range((n_layers - 1) % stride, n_layers, stride))


def window(
    n_tokens: int, columns: int, first: int | None = None, around: int | None = None
) -> tuple[int, ...]:
    """The positions of a long prompt that are looked at together.

    Args:
        n_tokens: length of the prompt.
        columns: at most how many positions.
        first: where the window begins; None = so that it ends with the prompt.
        around: a position that must be inside; the window moves there if it is not.

    Returns:
        Consecutive positions; all of them when the prompt is short enough.
    """
    columns = max(1, min(columns, n_tokens))
    latest = n_tokens - columns
    start = latest if first is None else max(0, min(first, latest))
    if around is not None and 0 <= around < n_tokens and not start <= around < start + columns:
        start = max(0, min(around - columns // 2, latest))
    return tuple(range(start, start + columns))


def check_prompt(prompt: object) -> None:
    """Refuse a prompt that is no text, empty, or endless.

    Raises:
        InputError: it is.
    """
    if not isinstance(prompt, str) or not prompt:
        raise InputError("The prompt is empty", fix="Type a sentence that ends before its answer")
    if len(prompt) > MAX_PROMPT_CHARACTERS:
        raise InputError(f"The prompt has more than {MAX_PROMPT_CHARACTERS:,} characters")


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Refuse a value that is none of a few.

    Raises:
        InputError: it is not among them.
    """
    if value not in choices:
        raise InputError(f"{name} is {value!r}"[:200], fix=f"Choose one of {', '.join(choices)}")


def check_word(name: str, value: object) -> None:
    """Refuse a word that is no text, empty, or endless.

    Raises:
        InputError: it is.
    """
    if not isinstance(value, str) or not value.strip(" "):
        raise InputError(f"The {name} is empty", fix="Type a word, or leave it out")
    if len(value) > MAX_WORD_CHARACTERS:
        raise InputError(f"The {name} has more than {MAX_WORD_CHARACTERS:,} characters")


def is_whole(value: object) -> bool:
    """Whether a value is a whole number (True and False are not)."""
    return isinstance(value, int) and not isinstance(value, bool)


def _check_positions(positions: tuple[int, ...] | None) -> None:
    if positions is None:
        return
    whole = all(is_whole(position) and position >= 0 for position in positions)
    if not positions or not whole or list(positions) != sorted(set(positions)):
        raise InputError(
            "The positions to read are not in order",
            why="they are counted from 0, each once, ascending",
            fix="Leave them out to read all",
        )
