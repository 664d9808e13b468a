"""What a user chooses for a direct logit attribution, and how heads and neurons are named in text."""

import re
from dataclasses import dataclass
from typing import Any, get_args

from mi_core.analyses.plain import check_choice, check_text, check_whole, inputs_from_dict, inputs_to_dict
from mi_core.errors import InputError
from mi_core.tokens import Bos

MAX_PROMPT_CHARACTERS = 100_000
MAX_TOP_NEURONS = 200
MAX_NAMED = 200
"""Most heads or neurons that can be asked for by name."""

_HEAD = re.compile(r"L(\d{1,5})H(\d{1,5})")
_NEURON = re.compile(r"L(\d{1,5})N(\d{1,8})")


@dataclass(frozen=True, slots=True)
class AttributionInputs:
    """What to attribute: the logit at the last position of a prompt.

    Attributes:
        prompt: ends just before its answer.
        control_prompt: a second prompt, attributed for the same tokens; any length; None = none.
        answer: text whose first token's logit is attributed; None = the prompt's top token.
        distractor: text whose first token's logit is subtracted; None = nothing is.
        split_heads: heads, such as "L9H6", whose contributions are split over source tokens.
        neurons: neurons that are listed by themselves whatever they contribute, such as "L3N102".
        top_neurons: how many neurons of each layer are listed besides, largest contributions first.
        bos: whether a beginning-of-sequence token is put first; "auto" = as the tokenizer does.
    """

    prompt: str
    control_prompt: str | None = None
    answer: str | None = None
    distractor: str | None = None
    split_heads: tuple[str, ...] = ()
    neurons: tuple[str, ...] = ()
    top_neurons: int = 10
    bos: Bos = "auto"

    def __post_init__(self) -> None:
        """Refuse what no model could make sense of; what depends on the model is checked when it is known."""
        for name in ("split_heads", "neurons"):
            if isinstance(getattr(self, name), list):  # hashable, whoever wrote [..] in a notebook
                object.__setattr__(self, name, tuple(getattr(self, name)))
        fix = "Type a sentence that ends before its answer"
        check_text("prompt", self.prompt, MAX_PROMPT_CHARACTERS, fix)
        for name, limit in (
            ("control_prompt", MAX_PROMPT_CHARACTERS),
            ("answer", 1000),
            ("distractor", 1000),
        ):
            if getattr(self, name) is not None:
                check_text(name.replace("_", " "), getattr(self, name), limit, "Leave it out to have none")
        check_choice("bos", self.bos, get_args(Bos))
        check_whole("number of top neurons", self.top_neurons, 0, MAX_TOP_NEURONS)
        _check_names("head", self.split_heads, parse_head)
        _check_names("neuron", self.neurons, parse_neuron)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, one per field."""
        return inputs_to_dict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "AttributionInputs":
        """The inverse of `to_dict`.

        Raises:
            InputError: an unknown or missing field, or a value that `AttributionInputs` refuses.
        """
        return inputs_from_dict(cls, values, "attribution")


def parse_head(text: str) -> tuple[int, int]:
    """(layer, head) of a name such as "L9H6".

    Raises:
        InputError: the text names no head.
    """
    return _parse(text, _HEAD, "head", "L9H6")


def parse_neuron(text: str) -> tuple[int, int]:
    """(layer, neuron) of a name such as "L3N102".

    Raises:
        InputError: the text names no neuron.
    """
    return _parse(text, _NEURON, "neuron", "L3N102")


def head_name(layer: int, head: int) -> str:
    """Name of a head, the inverse of `parse_head`."""
    return f"L{layer}H{head}"


def neuron_name(layer: int, neuron: int) -> str:
    """Name of a neuron, the inverse of `parse_neuron`."""
    return f"L{layer}N{neuron}"


def _parse(text: str, pattern: re.Pattern[str], what: str, example: str) -> tuple[int, int]:
    match = pattern.fullmatch(text)
    if match is None:
        raise InputError(f"{text[:40]!r} names no {what}", fix=f"Write it like {example}")
    return int(match[1]), int(match[2])


def _check_names(what: str, names: tuple[str, ...], parse: Any) -> None:
    places = [parse(name) for name in names]
    if len(set(places)) != len(places):
        raise InputError(f"A {what} was named twice")
    if len(places) > MAX_NAMED:
        raise InputError(f"{len(places)} {what}s were named", fix=f"Name at most {MAX_NAMED}")
