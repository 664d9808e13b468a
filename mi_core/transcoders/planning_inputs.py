"""What a user chooses for the planning-in-poems experiment, and for attention routing under an injection."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, get_args

from mi_core.analyses.generation_inputs import check_number
from mi_core.analyses.plain import check_choice, check_text, check_whole, inputs_from_dict, inputs_to_dict
from mi_core.errors import InputError
from mi_core.tokens import Bos
from mi_core.transcoders.names import Feature, parse_features

STRENGTHS = (0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0)
ROUTING_STRENGTHS = (2.0, 4.0, 6.0, 8.0, 10.0, 12.0, 14.0, 16.0, 18.0, 20.0)
MAX_STRENGTH = 1e6
MAX_STRENGTHS = 100
MAX_CONTROLS = 100
MAX_PROMPT_CHARACTERS = 100_000
MAX_LIST_CHARACTERS = 10_000


@dataclass(frozen=True, slots=True)
class PlanningInputs:
    """Features pushed down and up at one token at a time.

    Attributes:
        prompt: ends just before the word that is read.
        inject: features that are pushed up, such as "L14F13043".
        suppress: features that are pushed down, likewise; their push is -strength times what they write,
            whether or not they are active.
        answer: text whose first token is read; None = the prompt's top token.
        distractor: the word that is pushed away; its probability is read too. None = none.
        strength: how many times the features' decoder rows are added, for lines, controls and ratios.
        strengths: the grid, ascending; `strength` is added to it.
        positions: tokens that are tried, one at a time; empty = all of them.
        controls: how many random features, and how many random rotations of the edit.
        seed: of the draws.
        transcoder: "" = the one bundled with the model; else a folder or a Hugging Face id.
        bos: whether a beginning-of-sequence token is put first; "auto" = as the tokenizer does.
    """

    prompt: str
    inject: str = ""
    suppress: str = ""
    answer: str | None = None
    distractor: str | None = None
    strength: float = 10.0
    strengths: tuple[float, ...] = STRENGTHS
    positions: tuple[int, ...] = ()
    controls: int = 10
    seed: int = 0
    transcoder: str = ""
    bos: Bos = "auto"

    def __post_init__(self) -> None:
        """Refuse what no model could make sense of; what depends on the model is checked when it is known."""
        for name in ("strengths", "positions"):  # hashable, whoever wrote [..] in a notebook
            object.__setattr__(self, name, tuple(getattr(self, name)))
        check_features(self)
        if self.strength == 0:
            raise InputError("The strength is 0", why="nothing would be changed", fix="Give another number")
        for position in self.positions:
            check_whole("position", position, 0, 1_000_000)
        if any(after <= before for before, after in pairwise(self.positions)):
            raise InputError("The positions do not ascend", fix="Give each once, the smallest first")

    @property
    def doses(self) -> tuple[float, ...]:
        """All strengths that are run, ascending."""
        return tuple(sorted({*map(float, self.strengths), float(self.strength)}))

    @property
    def weights(self) -> dict[Feature, float]:
        """Feature -> 1 or -1."""
        return {
            **dict.fromkeys(parse_features(self.suppress), -1.0),
            **dict.fromkeys(parse_features(self.inject), 1.0),
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, one per field."""
        return inputs_to_dict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "PlanningInputs":
        """The inverse of `to_dict`.

        Raises:
            InputError: an unknown or missing field, or a value that `PlanningInputs` refuses.
        """
        return inputs_from_dict(cls, values, "planning experiment")


@dataclass(frozen=True, slots=True)
class FeatureRoutingInputs:
    """Features pushed at one token, and who looks there.

    Attributes:
        prompt: the text.
        inject: features that are pushed up, such as "L14F13043".
        suppress: features that are pushed down, likewise.
        position: the token at which they are pushed, and to which attention is read; negative from the end.
        query: the token that looks; None = the last one.
        strength: how many times the features' decoder rows are added.
        strengths: of the sweep, ascending.
        controls: how many random rotations of the edit.
        seed: of the draws.
        transcoder: "" = the one bundled with the model; else a folder or a Hugging Face id.
        bos: whether a beginning-of-sequence token is put first; "auto" = as the tokenizer does.
    """

    prompt: str
    inject: str = ""
    suppress: str = ""
    position: int = -2
    query: int | None = None
    strength: float = 10.0
    strengths: tuple[float, ...] = ROUTING_STRENGTHS
    controls: int = 10
    seed: int = 0
    transcoder: str = ""
    bos: Bos = "auto"

    def __post_init__(self) -> None:
        """Refuse what no model could make sense of; what depends on the model is checked when it is known."""
        object.__setattr__(self, "strengths", tuple(self.strengths))  # hashable, as above
        check_features(self)
        check_whole("position", self.position, -1_000_000, 1_000_000)
        if self.query is not None:
            check_whole("query", self.query, 0, 1_000_000)

    @property
    def weights(self) -> dict[Feature, float]:
        """Feature -> 1 or -1."""
        return {
            **dict.fromkeys(parse_features(self.suppress), -1.0),
            **dict.fromkeys(parse_features(self.inject), 1.0),
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, one per field."""
        return inputs_to_dict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "FeatureRoutingInputs":
        """The inverse of `to_dict`.

        Raises:
            InputError: an unknown or missing field, or a value that `FeatureRoutingInputs` refuses.
        """
        return inputs_from_dict(cls, values, "routing under an injection")


def check_features(inputs: Any) -> None:
    """Refuse prompts, feature lists and strengths that no model could use.

    Raises:
        InputError: naming the field.
    """
    check_text("prompt", inputs.prompt, MAX_PROMPT_CHARACTERS, "Type a text that ends before its next word")
    for name in ("answer", "distractor"):
        if getattr(inputs, name, None) is not None:
            check_text(name, getattr(inputs, name), 1000, "Leave it out to have none")
    for name in ("inject", "suppress", "transcoder"):
        check_text(name, getattr(inputs, name) or " ", MAX_LIST_CHARACTERS)
    up, down = parse_features(inputs.inject), parse_features(inputs.suppress)
    if not up and not down:
        fix = "Give features to inject or to suppress, such as L5F102"
        raise InputError("No feature is chosen", fix=fix)
    both = sorted(set(up) & set(down))
    if both:
        raise InputError(f"{both[0].text} is injected and suppressed", why="the two would cancel")
    check_number("strength", inputs.strength, -MAX_STRENGTH, MAX_STRENGTH)
    for strength in inputs.strengths:
        check_number("strength", strength, -MAX_STRENGTH, MAX_STRENGTH)
    if len(inputs.strengths) > MAX_STRENGTHS:
        raise InputError(f"There are {len(inputs.strengths)} strengths", fix=f"Give at most {MAX_STRENGTHS}")
    if any(after <= before for before, after in pairwise(inputs.strengths)):
        raise InputError("The strengths do not ascend", fix="Give each once, the smallest first")
    check_whole("number of random controls", inputs.controls, 0, MAX_CONTROLS)
    check_whole("seed", inputs.seed, 0, 2**63 - 1)
    check_choice("bos", inputs.bos, get_args(Bos))
