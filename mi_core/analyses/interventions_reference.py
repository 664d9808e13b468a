"""Prompts that means are taken over, by name, and prompt B: what `mean` and `resample` put in place.

The sets are bundled, so that the same name always means the same prompts; they are shown with every result.
"""

from typing import TYPE_CHECKING

from mi_core.analyses.interventions_compile import Reference
from mi_core.errors import InputError
from mi_core.tokens import Bos, tokenize

if TYPE_CHECKING:
    from mi_core.model.model import LoadedModel

REFERENCES: dict[str, tuple[str, ...]] = {
    "general": (
        "The weather in the mountains changed quickly that afternoon, and",
        "She opened the old wooden box and found",
        "According to the report, most of the money was spent on",
        "He walked to the station because the car",
        "In the middle of the night the dog began to",
        "The committee will meet again next week to discuss",
        "A new study suggests that people who sleep less",
        "My grandmother used to tell us stories about",
        "To make the soup, first cut the onions and",
        "The river flows through three countries before it reaches",
        "When the music stopped, everyone in the room",
        "They moved to a smaller town in order to",
        "Most birds leave the north in autumn, but some",
        "The teacher wrote a long number on the board and",
        "It was the first time that the team had won",
        "Nobody knew why the lights in the house were",
    ),
    "facts": (
        "The capital of Norway is",
        "The Great Wall is located in the country of",
        "Water is made of hydrogen and",
        "The author of Hamlet is William",
        "The largest planet in the solar system is",
        "The currency of Japan is the",
        "The Statue of Liberty is located in the city of",
        "The opposite of hot is",
        "The chemical symbol of gold is",
        "Mozart was born in the city of",
        "The language spoken in Brazil is",
        "The Amazon River is on the continent of",
    ),
}
"""Name -> prompts; at least `MIN_REFERENCE` each."""


def reference_of(
    model: "LoadedModel",
    name: str,
    *,
    second_prompt: str | None = None,
    prompts: tuple[str, ...] = (),
    bos: Bos = "auto",
) -> Reference:
    """The reference for a model: prompts as tokens.

    Args:
        model: the loaded model.
        name: one of `REFERENCES`; not used if `prompts` are given.
        second_prompt: prompt B, for resample; None = none.
        prompts: reference prompts of one's own.
        bos: as for the prompt itself.

    Raises:
        InputError: an unknown name, or a prompt that cannot be tokenised.
    """
    if not prompts and name not in REFERENCES:
        raise InputError(
            f"There is no reference set {name!r:.60}", fix=f"Choose one of {', '.join(REFERENCES)}"
        )
    texts = prompts or REFERENCES[name]
    second = None if second_prompt is None else tokenize(model.tokenizer, second_prompt, bos=bos).ids
    return Reference(tuple(tokenize(model.tokenizer, text, bos=bos).ids for text in texts), second)
