"""What a user chooses for a word search: the word, which side of the features, and how they are ranked."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

from mi_core.analyses.plain import (
    check_choice,
    check_text,
    check_whole,
    inputs_from_dict,
    inputs_to_dict,
)
from mi_core.transcoders.weights_inputs import check_transcoder

Side = Literal["writes", "reads"]
SIDES: tuple[Side, ...] = get_args(Side)
RankBy = Literal["deviations", "effect", "cosine"]
RANKS: tuple[RankBy, ...] = get_args(RankBy)
MAX_WORD, MAX_HITS = 100, 500


@dataclass(frozen=True, slots=True)
class WordSearchInputs:
    """A word, and what is asked about it.

    Attributes:
        word: the word; its forms with and without a space in front are both searched, where they are one
            token.
        side: "writes" = features that promote it, "reads" = features whose encoder answers to it.
        transcoder: "" = the one bundled with the model; else a folder or a Hugging Face id.
        rank_by: "deviations" = how far the word stands out among all words that the feature writes (reads),
            in standard deviations; "effect" = how much one unit of activation adds to its logit (how much it
            adds to the pre-activation); "cosine" = the angle alone.
        count: features to list.
    """

    word: str = "the"
    side: Side = "writes"
    transcoder: str = ""
    rank_by: RankBy = "deviations"
    count: int = 30

    def __post_init__(self) -> None:
        """Refuse what no model could make sense of."""
        check_text("word", self.word.strip(" ") if isinstance(self.word, str) else self.word, MAX_WORD,
                   fix="Type a word")  # fmt: skip
        check_choice("side", self.side, SIDES)
        check_transcoder(self.transcoder)
        check_choice("order", self.rank_by, RANKS)
        check_whole("number of features", self.count, 1, MAX_HITS)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, one per field."""
        return inputs_to_dict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "WordSearchInputs":
        """The inverse of `to_dict`.

        Raises:
            InputError: an unknown field, or a value that is refused.
        """
        return inputs_from_dict(cls, values, "word search")
