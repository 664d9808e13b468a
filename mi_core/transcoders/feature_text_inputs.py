"""What a user chooses for one feature in a text of their own."""

from dataclasses import dataclass
from typing import Any, get_args

from mi_core.analyses.plain import check_choice, check_text, inputs_from_dict, inputs_to_dict
from mi_core.errors import InputError
from mi_core.tokens import Bos
from mi_core.transcoders.names import parse_feature

MAX_TEXT = 100_000


@dataclass(frozen=True, slots=True)
class FeatureTextInputs:
    """One feature at every token of a text.

    Attributes:
        text: the text.
        feature: its name, such as L5F102.
        transcoder: "" = the one beside the model; else its name, folder or Hugging Face id.
        bound: end of the colours, in units of activation; take the largest activation of the corpus, so that
            no text changes the meaning of a colour. 0 = that of the corpus if it is known, else of this text.
        show_bos: whether leading special tokens count.
        bos: whether a beginning-of-sequence token is put first.
    """

    text: str
    feature: str = "L0F0"
    transcoder: str = ""
    bound: float = 0.0
    show_bos: bool = False
    bos: Bos = "auto"

    def __post_init__(self) -> None:
        """Refuse what no model could make sense of."""
        check_text("text", self.text, MAX_TEXT, fix="Type a text")
        check_choice("bos", self.bos, get_args(Bos))
        if not isinstance(self.transcoder, str) or not isinstance(self.feature, str):
            raise InputError("The feature and the transcoder are texts")
        object.__setattr__(self, "feature", parse_feature(self.feature).text)
        if not 0 <= self.bound < 1e30:  # also refuses NaN
            raise InputError(f"The end of the colours is {self.bound}", fix="Give a number above 0")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, one per field."""
        return inputs_to_dict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "FeatureTextInputs":
        """The inverse of `to_dict`.

        Raises:
            InputError: an unknown or missing field, or a value that is refused.
        """
        return inputs_from_dict(cls, values, "feature's text")
