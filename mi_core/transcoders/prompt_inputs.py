"""What a user chooses for the features of a prompt."""

from dataclasses import dataclass
from typing import Any, get_args

from mi_core.analyses.plain import check_choice, check_text, check_whole, inputs_from_dict, inputs_to_dict
from mi_core.errors import InputError
from mi_core.tokens import Bos

MAX_PROMPT_CHARACTERS = 100_000
MAX_LISTED = 1_000_000
MAX_NAME = 1000
"""Longest name of a transcoder, in characters."""


@dataclass(frozen=True, slots=True)
class FeaturesOnPromptInputs:
    """Which features are active on a prompt.

    Attributes:
        prompt: any text; where effects are wanted, it ends just before its answer.
        transcoder: the bundled one (empty), a folder, or a Hugging Face id in the cache.
        show_bos: whether leading special tokens count too; hundreds of features answer to them.
        effects: whether every feature's linear effect on the target is computed (one backward pass).
        answer: text whose first token is the target; None = the prompt's top token. For effects only.
        distractor: text whose first token's logit is subtracted; None = the mean of all logits is.
        most: how many features at tokens are listed, the strongest first; counts are always of all.
        bos: whether a beginning-of-sequence token is put first; "auto" = as the tokenizer does.
    """

    prompt: str
    transcoder: str = ""
    show_bos: bool = False
    effects: bool = False
    answer: str | None = None
    distractor: str | None = None
    most: int = 100_000
    bos: Bos = "auto"

    def __post_init__(self) -> None:
        """Refuse what no model could make sense of; what depends on the model is checked when it is known."""
        check_text("prompt", self.prompt, MAX_PROMPT_CHARACTERS, "Type a sentence")
        check_transcoder(self.transcoder)
        for name in ("show_bos", "effects"):
            check_choice(name.replace("_", " "), getattr(self, name), (False, True))
        for name in ("answer", "distractor"):
            if getattr(self, name) is not None:
                check_text(name, getattr(self, name), 1000, "Leave it out to have none")
        check_whole("number of listed features", self.most, 1, MAX_LISTED)
        check_choice("bos", self.bos, get_args(Bos))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, one per field."""
        return inputs_to_dict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "FeaturesOnPromptInputs":
        """The inverse of `to_dict`.

        Raises:
            InputError: an unknown or missing field, or a value that is refused.
        """
        return inputs_from_dict(cls, values, "features of a prompt")


def check_transcoder(name: object) -> None:
    """Refuse what cannot be the name of a transcoder; the empty text is the bundled one.

    Raises:
        InputError: no text, or a very long one.
    """
    if not isinstance(name, str) or len(name) > MAX_NAME or "\0" in name:
        raise InputError("This cannot be the name of a transcoder", fix="Give a folder or a Hugging Face id")
