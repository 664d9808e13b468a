"""What a user chooses for the probe of one layer's features on a prompt."""

from dataclasses import dataclass
from typing import Any, get_args

from mi_core.analyses.plain import (
    check_choice,
    check_text,
    check_whole,
    fits,
    inputs_from_dict,
    inputs_to_dict,
)
from mi_core.errors import InputError
from mi_core.tokens import Bos
from mi_core.transcoders.prompt_inputs import MAX_PROMPT_CHARACTERS, check_transcoder

MAX_TOP = 100
MAX_STRENGTH = 1e6


@dataclass(frozen=True, slots=True)
class CltProbeInputs:
    """Which features of one layer are active at every token, and what injecting one of them there does.

    Attributes:
        prompt: any text.
        transcoder: the bundled one (empty), a folder, or a Hugging Face id in the cache.
        layer: whose features are read; None = the middle one of those that have features.
        feature: number of the feature that is injected; None = the strongest at the last token.
        strength: how many times its decoder rows are added.
        top: how many features are kept per token.
        bos: whether a beginning-of-sequence token is put first; "auto" = as the tokenizer does.
    """

    prompt: str
    transcoder: str = ""
    layer: int | None = None
    feature: int | None = None
    strength: float = 5.0
    top: int = 10
    bos: Bos = "auto"

    def __post_init__(self) -> None:
        """Refuse what no model could make sense of; what depends on the model is checked when it is known."""
        check_text("prompt", self.prompt, MAX_PROMPT_CHARACTERS, "Type a sentence")
        check_transcoder(self.transcoder)
        if self.layer is not None:
            check_whole("layer", self.layer, 0, 10_000)
        if self.feature is not None:
            check_whole("feature", self.feature, 0, 1_000_000_000)
        if not fits(self.strength, float) or abs(self.strength) > MAX_STRENGTH:
            raise InputError(
                f"The strength is {self.strength!r:.40}", fix=f"Give a number up to {MAX_STRENGTH:g}"
            )
        check_whole("number of features per token", self.top, 1, MAX_TOP)
        check_choice("bos", self.bos, get_args(Bos))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, one per field."""
        return inputs_to_dict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "CltProbeInputs":
        """The inverse of `to_dict`.

        Raises:
            InputError: an unknown or missing field, or a value that is refused.
        """
        return inputs_from_dict(cls, values, "feature probe")
