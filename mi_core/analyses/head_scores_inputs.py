"""What a user chooses when heads are tested on repeated random tokens, and the words for the scores."""

from dataclasses import dataclass
from typing import Any

from mi_core.analyses.plain import check_whole, fits, inputs_from_dict, inputs_to_dict
from mi_core.errors import InputError

MAX_LENGTH, MAX_SAMPLES = 500, 100


@dataclass(frozen=True, slots=True)
class Score:
    """One kind of head that repeated random tokens tell.

    Attributes:
        name: as in the result's arrays.
        label: for a menu or a column.
        head: what a head with a high score is called.
        meaning: one sentence.
    """

    name: str
    label: str
    head: str
    meaning: str


SCORES: tuple[Score, ...] = (
    Score("previous_token", "previous token", "previous-token head", "Attention to the token just before."),
    Score(
        "induction",
        "induction",
        "induction head",
        "In the second copy, attention to the token that followed the first copy of the query's token.",
    ),
    Score(
        "duplicate_token",
        "duplicate token",
        "duplicate-token head",
        "In the second copy, attention to the first copy of the query's token.",
    ),
    Score("current_token", "current token", "current-token head", "Attention to the query itself."),
    Score(
        "first_token",
        "first token (BOS)",
        "resting head",
        "Attention to position 0: a head that has nothing to do usually rests there.",
    ),
)
"""In the order of the result's arrays. All are shares of attention, means over queries."""

SCORE_NAMES = tuple(score.name for score in SCORES)


@dataclass(frozen=True, slots=True)
class HeadScoresInputs:
    """How heads are tested.

    Attributes:
        length: random tokens in one copy; the model reads two copies, behind a BOS token if it has one. Less
            where the model's context is too short.
        samples: how many random sequences.
        seed: of the first sequence; the others take the seeds that follow.
        threshold: mean score from which a head is called by the score's name.
    """

    length: int = 50
    samples: int = 4
    seed: int = 0
    threshold: float = 0.4

    def __post_init__(self) -> None:
        """Refuse what cannot be sampled."""
        check_whole("length", self.length, 2, MAX_LENGTH)
        check_whole("number of samples", self.samples, 1, MAX_SAMPLES)
        check_whole("seed", self.seed, 0, 2**32 - 1)
        if not fits(self.threshold, float) or not 0 < self.threshold <= 1:
            raise InputError(f"The threshold is {self.threshold!r:.40}", fix="Give a share above 0, up to 1")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, one per field."""
        return inputs_to_dict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "HeadScoresInputs":
        """The inverse of `to_dict`.

        Raises:
            InputError: an unknown field, or a value that `HeadScoresInputs` refuses.
        """
        return inputs_from_dict(cls, values, "head scores")
