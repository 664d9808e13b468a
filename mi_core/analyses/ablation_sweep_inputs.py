"""What a user chooses for a sweep of ablations, and for the joint effect of a list of them."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

from mi_core.analyses.attribution_inputs import parse_head
from mi_core.analyses.causal_trace_inputs import METRICS, MetricInfo
from mi_core.analyses.plain import check_choice, check_text, inputs_from_dict, inputs_to_dict
from mi_core.errors import InputError
from mi_core.tokens import Bos

What = Literal["heads", "modules", "edges", "keys"]
Mode = Literal["auto", "zero", "mean", "resample", "cut"]
Positions = Literal["all", "last"]

MAX_PROMPT_CHARACTERS = 100_000
MAX_LIST_CHARACTERS = 20_000
MAX_HEADS = 200

EFFECT_METRICS: dict[str, MetricInfo] = {
    **{
        name: METRICS[name]
        for name in ("probability", "log_probability", "logit", "logit_difference")
    },
    "kl": MetricInfo("kl", "KL(baseline || edited)", "nats", "How far the whole prediction moved; 0 = not."),
    "rank": MetricInfo("rank", "rank of the answer", "rank", "1 = the model's top token."),
    "top1_flip": MetricInfo("top1_flip", "top token changed", "changed", "1 = another token is on top now."),
}  # fmt: skip
"""What is read at the last position of every run, in the order of the arrays' first axis."""


@dataclass(frozen=True, slots=True)
class AblationSweepInputs:
    """Which parts are taken out, one at a time.

    Attributes:
        prompt: ends just before its answer.
        what: "heads" = every head of every layer; "modules" = attention and MLP of every layer; "edges" =
            every edge from the last token to a key, in all heads of a layer or in each of the chosen heads;
            "keys" = nobody reads a key any more, from a layer on.
        mode: what stands in place of a head or module: "zero", "mean" over reference prompts, "resample" =
            its value in the second prompt; edges and keys are "cut" before the softmax. "auto" = zero or cut.
        answer: text whose first token is read; None = the prompt's top token.
        distractor: text whose first token's logit is compared with the answer's; None = none.
        second_prompt: of as many tokens; what "resample" takes its values from.
        reference: which of `interventions.REFERENCES` "mean" averages over.
        interventions: a list that holds in all runs, the baseline included, such as "L1H2:zero, L4mlp:mean".
        positions: "all", or "last": heads and modules are replaced at the last token only.
        heads: for edges: these heads, such as "L9H6", one at a time, instead of all heads of a layer.
        bos: whether a beginning-of-sequence token is put first; "auto" = as the tokenizer does.
    """

    prompt: str
    what: What = "heads"
    mode: Mode = "auto"
    answer: str | None = None
    distractor: str | None = None
    second_prompt: str | None = None
    reference: str = "general"
    interventions: str = ""
    positions: Positions = "all"
    heads: tuple[str, ...] = ()
    bos: Bos = "auto"

    def __post_init__(self) -> None:
        """Refuse what no model could make sense of; what depends on the model is checked when it is known."""
        if isinstance(self.heads, list):  # hashable, whoever wrote [..] in a notebook
            object.__setattr__(self, "heads", tuple(self.heads))
        check_asked(self)
        check_choice("what", self.what, get_args(What))
        check_choice("mode", self.mode, get_args(Mode))
        check_choice("positions", self.positions, get_args(Positions))
        allowed = ("auto", "cut") if self.what in ("edges", "keys") else ("auto", "zero", "mean", "resample")
        if self.mode not in allowed:
            fix = f"Choose one of {', '.join(allowed)}"
            raise InputError(f"The mode {self.mode!r} does not go with {self.what}", fix=fix)
        if self.mode == "resample" and self.second_prompt is None:
            raise InputError("Resampling needs a second prompt", fix="Give one with as many tokens")
        if self.heads and self.what != "edges":
            raise InputError("Heads are chosen for edges only", why=f"this is a sweep of {self.what}")
        if len(self.heads) > MAX_HEADS or len(set(map(parse_head, self.heads))) < len(self.heads):
            raise InputError("A head was named twice, or too many were", fix=f"Name at most {MAX_HEADS}")

    @property
    def how(self) -> Literal["zero", "mean", "resample", "cut"]:
        """The mode, "auto" resolved."""
        if self.mode != "auto":
            return self.mode
        return "cut" if self.what in ("edges", "keys") else "zero"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, one per field."""
        return inputs_to_dict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "AblationSweepInputs":
        """The inverse of `to_dict`.

        Raises:
            InputError: an unknown or missing field, or a value that `AblationSweepInputs` refuses.
        """
        return inputs_from_dict(cls, values, "ablation sweep")


@dataclass(frozen=True, slots=True)
class JointAblationInputs:
    """A list of interventions, each by itself and all together.

    Attributes:
        prompt: ends just before its answer.
        interventions: the list, such as "L1H2:zero, e14-2@L1H2".
        answer: text whose first token is read; None = the prompt's top token.
        distractor: text whose first token's logit is compared with the answer's; None = none.
        second_prompt: of as many tokens; what "resample" takes its values from.
        reference: which of `interventions.REFERENCES` "mean" averages over.
        bos: whether a beginning-of-sequence token is put first; "auto" = as the tokenizer does.
    """

    prompt: str
    interventions: str
    answer: str | None = None
    distractor: str | None = None
    second_prompt: str | None = None
    reference: str = "general"
    bos: Bos = "auto"

    def __post_init__(self) -> None:
        """Refuse what no model could make sense of."""
        check_asked(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, one per field."""
        return inputs_to_dict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "JointAblationInputs":
        """The inverse of `to_dict`.

        Raises:
            InputError: an unknown or missing field, or a value that `JointAblationInputs` refuses.
        """
        return inputs_from_dict(cls, values, "joint ablation")


def check_asked(inputs: Any) -> None:
    """Refuse prompts, answers and lists that are no texts or endless.

    Raises:
        InputError: naming the field.
    """
    check_text("prompt", inputs.prompt, MAX_PROMPT_CHARACTERS, "Type a sentence that ends before its answer")
    limits = {"answer": 1000, "distractor": 1000, "second_prompt": MAX_PROMPT_CHARACTERS}
    for name, limit in limits.items():
        if getattr(inputs, name, None) is not None:
            check_text(name.replace("_", " "), getattr(inputs, name), limit, "Leave it out to have none")
    listed = getattr(inputs, "interventions", "")
    if not isinstance(listed, str) or len(listed) > MAX_LIST_CHARACTERS:
        raise InputError(f"The list of interventions has more than {MAX_LIST_CHARACTERS:,} characters")
    check_choice("bos", inputs.bos, get_args(Bos))
