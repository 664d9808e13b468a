"""What a user chooses for a logit lens, and the words for sites and statistics."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from mi_core.analyses.plain import check_choice, check_text, check_whole, inputs_from_dict, inputs_to_dict
from mi_core.errors import InputError
from mi_core.tokens import Bos

LensSite = Literal["resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out"]
LensTarget = Literal["answer", "next token"]
Statistic = Literal["probability", "log_probability", "rank", "top_probability", "entropy", "kl"]

LENS_SITES: tuple[LensSite, ...] = get_args(LensSite)
STREAM_SITES: tuple[LensSite, ...] = ("resid_pre", "resid_mid", "resid_post")
STATISTICS: tuple[Statistic, ...] = get_args(Statistic)

MAX_TRACKED, MAX_TOP, MAX_STRIDE = 8, 100, 1000
MAX_PROMPT_CHARACTERS, MAX_WORD_CHARACTERS = 100_000, 1000


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
        "Place of the target among all tokens; 1 = top token. Tied tokens share the best rank.",
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
        check_word("answer", self.answer)
        check_word("distractor", self.distractor)
        if self.lens != "":
            check_text("lens", self.lens, MAX_WORD_CHARACTERS, "Choose one from the list")
        for word in self.tracked:
            check_word("tracked word", "" if word is None else word)
        if len(self.tracked) > MAX_TRACKED:
            raise InputError(f"{len(self.tracked)} words are tracked", fix=f"Give at most {MAX_TRACKED}")
        check_whole("number of top tokens", self.k, 1, MAX_TOP)
        check_whole("stride", self.stride, 1, MAX_STRIDE)
        _check_positions(self.positions)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, one per field."""
        return inputs_to_dict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "LogitLensInputs":
        """The inverse of `to_dict`.

        Raises:
            InputError: an unknown or missing field, or a value that is refused.
        """
        return inputs_from_dict(cls, values, "lens")


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
    check_text("prompt", prompt, MAX_PROMPT_CHARACTERS, "Type a sentence that ends before its answer")


def check_word(name: str, value: object) -> None:
    """Refuse a word that is no text, blank, or endless; None is no word.

    Raises:
        InputError: it is.
    """
    if value is not None:
        text = value.strip(" ") and value if isinstance(value, str) else value
        check_text(name, text, MAX_WORD_CHARACTERS, "Type a word, or leave it out")


def _check_positions(positions: tuple[int, ...] | None) -> None:
    if positions is None:
        return
    for position in positions:
        check_whole("position", position, 0, MAX_PROMPT_CHARACTERS)
    if not positions or list(positions) != sorted(set(positions)):
        raise InputError(
            "The positions to read are not in order",
            why="each may be there once",
            fix="Leave them out to read all",
        )
