"""What a user chooses for a knock-out."""

import re
from dataclasses import dataclass
from typing import Any, Literal, get_args

from mi_core.analyses.attribution_inputs import MAX_PROMPT_CHARACTERS, parse_head
from mi_core.analyses.plain import check_choice, check_text, check_whole, inputs_from_dict, inputs_to_dict
from mi_core.errors import InputError
from mi_core.tokens import Bos

ReferenceName = Literal["general", "facts"]
MAX_LIST_CHARACTERS = 20_000
MAX_PINNED = 6
MAX_CONTINUATION = 200
MAX_TOP = 100
MIN_OWN_REFERENCE = 8
_LIST = re.compile(r"[A-Za-z0-9@:+.=,\s-]*")


@dataclass(frozen=True, slots=True)
class KnockoutInputs:
    """A prompt and what is done to the model while it reads it.

    Attributes:
        prompt: ends just before its answer.
        interventions: the list as text, such as "L1H2:zero,e14-2@L1H2" (see `interventions_grammar`).
        answer: text whose first token is followed; None = the baseline's top token.
        distractor: text whose first token is compared with it; None = nothing is.
        second_prompt: prompt B, which resample takes its values from; as many tokens as the prompt.
        reference: name of the bundled prompts that means are taken over.
        reference_prompts: prompts of one's own for that, at least 8; () = the bundled ones.
        pinned_heads: heads, such as "L9H6", whose attention is shown before and after.
        continuation: tokens of the greedy continuation, before and after; 0 = none.
        top: how many of the tokens whose probability changes most are listed.
        bos: whether a beginning-of-sequence token is put first; "auto" = as the tokenizer does.
    """

    prompt: str
    interventions: str = ""
    answer: str | None = None
    distractor: str | None = None
    second_prompt: str | None = None
    reference: ReferenceName = "general"
    reference_prompts: tuple[str, ...] = ()
    pinned_heads: tuple[str, ...] = ()
    continuation: int = 20
    top: int = 10
    bos: Bos = "auto"

    def __post_init__(self) -> None:
        """Refuse what no model could make sense of; the list itself is read when the model is known."""
        for name in ("reference_prompts", "pinned_heads"):
            if isinstance(getattr(self, name), list):  # hashable, whoever wrote [..] in a notebook
                object.__setattr__(self, name, tuple(getattr(self, name)))
        fix = "Type a sentence that ends before its answer"
        check_text("prompt", self.prompt, MAX_PROMPT_CHARACTERS, fix)
        for name, limit in (
            ("second_prompt", MAX_PROMPT_CHARACTERS), ("answer", 1000), ("distractor", 1000),
        ):  # fmt: skip
            if getattr(self, name) is not None:
                check_text(name.replace("_", " "), getattr(self, name), limit, "Leave it out to have none")
        check_choice("bos", self.bos, get_args(Bos))
        check_choice("reference", self.reference, get_args(ReferenceName))
        check_whole("number of continued tokens", self.continuation, 0, MAX_CONTINUATION)
        check_whole("number of changed tokens", self.top, 1, MAX_TOP)
        _check_list(self.interventions)
        _check_reference(self.reference_prompts)
        _check_pinned(self.pinned_heads)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, one per field."""
        return inputs_to_dict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "KnockoutInputs":
        """The inverse of `to_dict`.

        Raises:
            InputError: an unknown or missing field, or a value that `KnockoutInputs` refuses.
        """
        return inputs_from_dict(cls, values, "knock-out")


def _check_list(text: str) -> None:
    if len(text) > MAX_LIST_CHARACTERS:
        raise InputError(f"The list of interventions has more than {MAX_LIST_CHARACTERS:,} characters")
    if not _LIST.fullmatch(text):
        bad = next(character for character in text if not _LIST.fullmatch(character))
        raise InputError(
            f"The list of interventions has the character {bad!r}",
            fix="Write for example L1H2:zero,e14-2@L1H2",
        )


def _check_reference(prompts: tuple[str, ...]) -> None:
    if prompts and len(prompts) < MIN_OWN_REFERENCE:
        raise InputError(
            f"There are {len(prompts)} reference prompts",
            why="a mean over so few says little",
            fix=f"Give at least {MIN_OWN_REFERENCE}, or none to use the bundled ones",
        )
    if len(prompts) > 200:
        raise InputError(f"There are {len(prompts)} reference prompts", fix="Give at most 200")
    for prompt in prompts:
        check_text("reference prompt", prompt, 2000, "Remove it")


def _check_pinned(names: tuple[str, ...]) -> None:
    if len(set(map(parse_head, names))) < len(names):
        raise InputError("A head is pinned twice")
    if len(names) > MAX_PINNED:
        raise InputError(f"{len(names)} heads are pinned", fix=f"Pin at most {MAX_PINNED}")
