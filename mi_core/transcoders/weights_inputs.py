"""What a user chooses for one feature seen through the weights: its words, and its relations to others."""

from dataclasses import dataclass
from typing import Any

from mi_core.analyses.plain import check_whole, inputs_from_dict, inputs_to_dict
from mi_core.errors import InputError
from mi_core.transcoders.names import Feature, parse_feature

MAX_TOKENS, MAX_COUNT, MAX_NAME = 100, 50, 1000


@dataclass(frozen=True, slots=True)
class FeatureWeightsInputs:
    """One feature, and how many words of it.

    Attributes:
        feature: its name, `L5F102`.
        transcoder: "" = the one bundled with the model; else a folder or a Hugging Face id.
        tokens: words at each end of every list.
    """

    feature: str = "L0F0"
    transcoder: str = ""
    tokens: int = 10

    def __post_init__(self) -> None:
        """Refuse what no model could make sense of; write the feature's name in its one form."""
        object.__setattr__(self, "feature", feature_text(self.feature))
        check_transcoder(self.transcoder)
        check_whole("number of words", self.tokens, 1, MAX_TOKENS)

    @property
    def chosen(self) -> Feature:
        """The feature."""
        return parse_feature(self.feature)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, one per field."""
        return inputs_to_dict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "FeatureWeightsInputs":
        """The inverse of `to_dict`.

        Raises:
            InputError: an unknown field, or a value that is refused.
        """
        return inputs_from_dict(cls, values, "feature")


@dataclass(frozen=True, slots=True)
class FeatureNeighboursInputs:
    """One feature, and how many of its relatives.

    Attributes:
        feature: its name, `L5F102`.
        transcoder: "" = the one bundled with the model; else a folder or a Hugging Face id.
        count: features in every list.
    """

    feature: str = "L0F0"
    transcoder: str = ""
    count: int = 10

    def __post_init__(self) -> None:
        """Refuse what no model could make sense of; write the feature's name in its one form."""
        object.__setattr__(self, "feature", feature_text(self.feature))
        check_transcoder(self.transcoder)
        check_whole("number of features", self.count, 1, MAX_COUNT)

    @property
    def chosen(self) -> Feature:
        """The feature."""
        return parse_feature(self.feature)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, one per field."""
        return inputs_to_dict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "FeatureNeighboursInputs":
        """The inverse of `to_dict`.

        Raises:
            InputError: an unknown field, or a value that is refused.
        """
        return inputs_from_dict(cls, values, "feature's neighbours")


def feature_text(value: object) -> str:
    """A feature's name in its one form, `L5F102`.

    Raises:
        InputError: the text names no feature.
    """
    if not isinstance(value, str):
        raise InputError(f"The feature is {value!r:.40}", fix="Write layer and number, as in L5F102")
    return parse_feature(value).text


def check_transcoder(value: object) -> None:
    """Refuse what names no transcoder.

    Raises:
        InputError: not a text, or an endless one.
    """
    if not isinstance(value, str) or len(value) > MAX_NAME:
        raise InputError(
            f"The transcoder is {value!r:.40}", fix="Give a folder, a Hugging Face id, or nothing"
        )
