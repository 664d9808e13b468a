"""What a user chooses when attention is looked at, and the words for what is shown.

`AttentionInputs` is flat, hashable and JSON-able: cache key, link, options of the command line, first field
of the result.
"""

from dataclasses import dataclass
from typing import Any, Literal, get_args

from mi_core.analyses.plain import check_choice, check_text, check_whole, inputs_from_dict, inputs_to_dict
from mi_core.tokens import Bos

Show = Literal["weights", "value_weighted", "contribution"]
SHOWS: tuple[Show, ...] = get_args(Show)

WINDOW = 256
"""Tokens whose rows and columns are kept of a longer prompt."""

MAX_WINDOW = 1024
MAX_PROMPT_CHARACTERS = 100_000


@dataclass(frozen=True, slots=True)
class ShowInfo:
    """What the numbers of a pattern are.

    Attributes:
        label: for a menu.
        quantity: for an axis or a colour bar.
        unit: after it.
        meaning: one sentence; says what 0 means.
        signed: whether it can be negative.
    """

    label: str
    quantity: str
    unit: str
    meaning: str
    signed: bool = False


SHOW_INFO: dict[Show, ShowInfo] = {
    "weights": ShowInfo(
        "Weights",
        "attention weight",
        "share",
        "How a query divides its attention; every row sums to 1, and 0 means that the key is not read.",
    ),
    "value_weighted": ShowInfo(
        "Value-weighted",
        "size of what is moved",
        "norm",
        "Length of the vector that the head moves from the key to the query: weight times value times W_O; "
        "0 means that nothing is moved, whatever the weight.",
    ),
    "contribution": ShowInfo(
        "Contribution to target",
        "contribution to the target's logit",
        "logits",
        "What the head moves from the key to the query, read directly as the target's logit (or as the "
        "difference of two logits) there; 0 means no direct effect.",
        signed=True,
    ),
}


@dataclass(frozen=True, slots=True)
class HeadMetric:
    """One number per head.

    Attributes:
        name: as in the result's arrays.
        label: for a menu or a column.
        unit: its unit.
        meaning: one sentence; says which queries count.
        signed: whether it can be negative.
    """

    name: str
    label: str
    unit: str
    meaning: str
    signed: bool = False


HEAD_METRICS: tuple[HeadMetric, ...] = (
    HeadMetric(
        "entropy",
        "entropy",
        "nats",
        "How widely a query spreads its attention; 0 = on one key. Mean over queries.",
    ),
    HeadMetric(
        "distance",
        "distance",
        "tokens",
        "How far back a query reads on average; 0 = only itself. Mean over queries.",
    ),
    HeadMetric(
        "previous_token", "previous token", "share", "Attention to the token just before. Mean over queries."
    ),
    HeadMetric(
        "duplicate_token",
        "duplicate token",
        "share",
        "Attention to earlier copies of the query's token. Mean over the queries that have one.",
    ),
    HeadMetric(
        "induction",
        "induction",
        "share",
        "Attention to tokens that followed earlier copies of the query's token. Mean over the queries that "
        "have one.",
    ),
    HeadMetric(
        "first_token",
        "first token (BOS)",
        "share",
        "Attention to position 0: the BOS token, or the first word where the prompt has none. Mean over "
        "queries.",
    ),
    HeadMetric(
        "effect",
        "effect on target",
        "logits",
        "What the head's output at the last token adds directly to the target's logit, final norm's scale "
        "frozen; 0 = nothing.",
        signed=True,
    ),
)
"""The numbers by which heads are shaded, in the order of the result's `metrics`."""

METRIC_NAMES = tuple(metric.name for metric in HEAD_METRICS)


@dataclass(frozen=True, slots=True)
class AttentionInputs:
    """Which prompt to look at, and how.

    Attributes:
        prompt: the text, A.
        second_prompt: a text of equal length in tokens, B, to compare with; None = none.
        show: "weights" = the pattern; "value_weighted" = norm of weight times value times W_O;
            "contribution" = that vector read as the target's logit.
        answer: text of the target; None = the top token after A. A longer one counts by its first token.
        distractor: text that the target is compared with: its logit is subtracted; None = none.
        bos: whether a beginning-of-sequence token is put first; "auto" = as the tokenizer does.
        window: how many tokens of a longer prompt are kept as queries and keys.
        window_start: first of them; None = the last tokens of the prompt.
    """

    prompt: str
    second_prompt: str | None = None
    show: Show = "weights"
    answer: str | None = None
    distractor: str | None = None
    bos: Bos = "auto"
    window: int = WINDOW
    window_start: int | None = None

    def __post_init__(self) -> None:
        """Refuse what no model could make sense of."""
        check_choice("show", self.show, SHOWS)
        check_choice("bos", self.bos, get_args(Bos))
        check_text("prompt", self.prompt, MAX_PROMPT_CHARACTERS, fix="Type a text")
        for name in ("second_prompt", "answer", "distractor"):
            if getattr(self, name) is not None:
                shown = name.replace("_", " ")
                check_text(shown, getattr(self, name), MAX_PROMPT_CHARACTERS, fix="Leave it out")
        check_whole("window", self.window, 1, MAX_WINDOW)
        if self.window_start is not None:
            check_whole("window start", self.window_start, 0, 10_000_000)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, one per field."""
        return inputs_to_dict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "AttentionInputs":
        """The inverse of `to_dict`.

        Raises:
            InputError: an unknown or missing field, or a value that `AttentionInputs` refuses.
        """
        return inputs_from_dict(cls, values, "attention")
