"""What a user chooses for a text that is continued with and without edits; see `generation_run`."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from mi_core.analyses.plain import check_choice, check_text, check_whole, inputs_from_dict, inputs_to_dict
from mi_core.errors import InputError
from mi_core.tokens import Bos

Where = Literal["prompt", "generated", "all"]  # as in the engine, whose modules load torch
WHERES: tuple[Where, ...] = get_args(Where)

MAX_PROMPT_CHARACTERS = 100_000
MAX_STEPS, MAX_SEEDS, MAX_SEED = 1000, 12, 2**32 - 1
MAX_COEFFICIENT = 1e6
MAX_LINES = 200


@dataclass(frozen=True, slots=True)
class GenerationInputs:
    """What to continue, and what is done to the model meanwhile.

    Attributes:
        prompt: the text that is continued.
        interventions: list of interventions as text, such as "L1H2:zero, c2@all"; "" = none.
        plus: steering: a text, or several, one per line; their last tokens' mean state is where to go; "" =
            no steering.
        minus: likewise, where to come from.
        layer: the stream after this layer is steered, with the difference of `plus` and `minus` there; None
            = the middle layer.
        coefficient: how many times the difference is added; negative steers the other way.
        where: the tokens on which edits without positions act: those of the prompt, the generated ones, or
            all. Interventions at named tokens of the prompt act there, always.
        reference: name of the prompts over which interventions take means.
        second_prompt: prompt B, for interventions that resample; as many tokens as the prompt.
        steps: how many tokens to add at most.
        temperature: logits are divided by it before a token is drawn; 0 = greedy.
        top_p: draw from the fewest likeliest tokens that together have this probability.
        seeds: one pair of continuations for each; greedy decoding has no use for more than one.
        stop_at_end: whether an end-of-text token ends a continuation.
        bos: whether a beginning-of-sequence token is put first; "auto" = as the tokenizer does.
    """

    prompt: str
    interventions: str = ""
    plus: str = ""
    minus: str = ""
    layer: int | None = None
    coefficient: float = 2.0
    where: Where = "all"
    reference: str = "general"
    second_prompt: str = ""
    steps: int = 20
    temperature: float = 0.0
    top_p: float = 1.0
    seeds: tuple[int, ...] = (0,)
    stop_at_end: bool = True
    bos: Bos = "auto"

    def __post_init__(self) -> None:
        """Refuse what no model could make sense of; what depends on the model is checked when it is known."""
        if isinstance(self.seeds, list):  # hashable, whoever wrote [..] in a notebook
            object.__setattr__(self, "seeds", tuple(self.seeds))
        check_text("prompt", self.prompt, MAX_PROMPT_CHARACTERS, "Type the beginning of a text")
        for name in ("interventions", "plus", "minus", "second_prompt"):
            check_text(name.replace("_", " "), getattr(self, name) or " ", MAX_PROMPT_CHARACTERS)
        if bool(self.plus) != bool(self.minus):
            raise InputError(
                "Steering needs two texts", why="one is empty", fix="Give both, or neither for no steering"
            )
        for name in ("plus", "minus"):
            if getattr(self, name) and not 1 <= len(steering_lines(getattr(self, name))) <= MAX_LINES:
                raise InputError(f"The steering text {name} has no line or more than {MAX_LINES}")
        if self.layer is not None:
            check_whole("layer", self.layer, 0, 10_000)
        check_number("coefficient", self.coefficient, -MAX_COEFFICIENT, MAX_COEFFICIENT)
        check_number("temperature", self.temperature, 0.0, 100.0)
        check_number("top_p", self.top_p, 1e-6, 1.0)
        check_text("reference", self.reference, 200)
        check_choice("where", self.where, WHERES)
        check_choice("bos", self.bos, get_args(Bos))
        check_whole("number of steps", self.steps, 1, MAX_STEPS)
        for seed in self.seeds:
            check_whole("seed", seed, 0, MAX_SEED)
        if not 1 <= len(self.seeds) <= MAX_SEEDS or len(set(self.seeds)) < len(self.seeds):
            raise InputError(
                f"The seeds are {list(self.seeds)!r:.60}", fix=f"Give 1 to {MAX_SEEDS} different ones"
            )

    @property
    def used_seeds(self) -> tuple[int, ...]:
        """Greedy decoding draws nothing: one pair of continuations is all there is."""
        return self.seeds if self.temperature > 0 else self.seeds[:1]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, one per field."""
        return inputs_to_dict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "GenerationInputs":
        """The inverse of `to_dict`.

        Raises:
            InputError: an unknown or missing field, or a value that is refused.
        """
        return inputs_from_dict(cls, values, "generation")


def steering_lines(text: str) -> tuple[str, ...]:
    """The texts of `plus` or `minus`: lines that are not blank."""
    return tuple(line for line in text.splitlines() if line.strip())


def check_number(name: str, value: object, low: float, high: float) -> None:
    """Refuse what is no finite number between two bounds (inclusive).

    Raises:
        InputError: naming the bounds.
    """
    number = float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan
    if not low <= number <= high:  # also refuses NaN
        raise InputError(f"The {name} is {value!r:.40}", fix=f"Give a number from {low:g} to {high:g}")
