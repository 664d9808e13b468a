"""Which feature's page of the corpus is read."""

from dataclasses import dataclass
from typing import Any

from mi_core.analyses.plain import inputs_from_dict, inputs_to_dict
from mi_core.errors import InputError
from mi_core.transcoders.names import parse_feature


@dataclass(frozen=True, slots=True)
class FeatureCorpusInputs:
    """What a corpus says about one feature.

    Attributes:
        feature: its name, such as L5F102.
        transcoder: "" = the one beside the model; else its name, folder or Hugging Face id.
        state: changes when the files do, so that nobody is shown what was in the old ones.
    """

    feature: str = "L0F0"
    transcoder: str = ""
    state: str = ""

    def __post_init__(self) -> None:
        """A name that can be read, written in one way."""
        if not all(isinstance(one, str) for one in (self.feature, self.transcoder, self.state)):
            raise InputError("The feature and the transcoder are texts")
        object.__setattr__(self, "feature", parse_feature(self.feature).text)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, one per field."""
        return inputs_to_dict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "FeatureCorpusInputs":
        """The inverse of `to_dict`.

        Raises:
            InputError: an unknown or missing field, or a value that is refused.
        """
        return inputs_from_dict(cls, values, "feature's corpus")
