"""What a user chooses for recurrent feedback, and the bundled couplets; see `recurrent_feedback_run`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from mi_core.analyses.generation_inputs import MAX_PROMPT_CHARACTERS, check_number
from mi_core.analyses.plain import check_choice, check_text, check_whole, inputs_from_dict, inputs_to_dict
from mi_core.errors import InputError
from mi_core.tokens import Bos

FeedbackMode = Literal["prefill", "sustained"]

MAX_DEPTH, MAX_STEPS, MAX_RHYMES, MAX_STRENGTH = 16, 200, 50, 1e6


@dataclass(frozen=True, slots=True)
class Couplet:
    """A first line, and the words that could end the second.

    Attributes:
        line: the first line, up to where the second begins.
        target: the word whose probability is read.
        rhymes: words that rhyme, the target usually among them.
    """

    line: str
    target: str
    rhymes: tuple[str, ...]


COUPLETS = (
    Couplet("The lantern burned all through the night,\n", "light", ("light", "bright", "sight", "white")),
    Couplet("We walked along the shore all day,\n", "away", ("away", "way", "bay", "gray", "stay", "say")),
    Couplet("A robin sang high in the tree,\n", "free", ("free", "me", "see", "sea", "three", "be")),
    Couplet("The garden waited for the rain,\n", "again", ("again", "plain", "lane", "train", "pain")),
    Couplet("The ferry left beneath the moon,\n", "soon", ("soon", "noon", "tune", "June")),
    Couplet("The path was paved with heavy stone,\n", "alone", ("alone", "bone", "own", "known", "grown")),
    Couplet(
        "She wrote a letter to the king,\n", "sing", ("sing", "ring", "spring", "bring", "thing", "wing")
    ),
    Couplet("The baker rose before the sun,\n", "done", ("done", "run", "one", "won", "begun", "none")),
)
"""Our own."""


@dataclass(frozen=True, slots=True)
class RecurrentFeedbackInputs:
    """Which layers are repeated, and on which lines.

    Attributes:
        line: first line of a couplet of your own; "" = the bundled couplets.
        target: a word whose probability after the line is read; needed with a line.
        rhymes: words that count as rhymes; they also give the direction of the feedback.
        start: first layer of the repeated block; None = the middle layer.
        end: one past its last layer; None = the layer after `start`.
        depth: how many times the block runs; 1 = once, as in the model.
        strength: length of the rhyme direction that is added to the block's input; 0 = no feedback, the
            block's output is its next input.
        mode: where feedback is added: "prefill" = at the prompt's last token; "sustained" = at every
            generated token too.
        steps: tokens of the second line at most.
        k: most probable next tokens that are kept.
        bos: whether a beginning-of-sequence token is put first; "auto" = as the tokenizer does.
    """

    line: str = ""
    target: str = ""
    rhymes: tuple[str, ...] = ()
    start: int | None = None
    end: int | None = None
    depth: int = 2
    strength: float = 0.0
    mode: FeedbackMode = "prefill"
    steps: int = 12
    k: int = 5
    bos: Bos = "auto"

    def __post_init__(self) -> None:
        """Refuse what no model could make sense of; layers are checked when the model is known."""
        if isinstance(self.rhymes, list):  # hashable, whoever wrote [..] in a notebook
            object.__setattr__(self, "rhymes", tuple(self.rhymes))
        for name, text in (
            ("line", self.line),
            ("target", self.target),
            *(("rhyme", r) for r in self.rhymes),
        ):
            check_text(name, text or " ", MAX_PROMPT_CHARACTERS)
        if bool(self.line) != bool(self.target and self.rhymes) or (self.target and not self.line):
            raise InputError(
                "A couplet of your own is incomplete",
                fix="Give a line, a target and at least one rhyme, or none of them",
            )
        if len(self.rhymes) > MAX_RHYMES:
            raise InputError(f"{len(self.rhymes)} rhymes are given", fix=f"Give at most {MAX_RHYMES}")
        for name in ("start", "end"):
            if getattr(self, name) is not None:
                check_whole(f"{name} layer", getattr(self, name), 0, 10_000)
        check_whole("depth", self.depth, 1, MAX_DEPTH)
        check_number("strength", self.strength, -MAX_STRENGTH, MAX_STRENGTH)
        check_choice("mode", self.mode, get_args(FeedbackMode))
        check_whole("number of steps", self.steps, 1, MAX_STEPS)
        check_whole("number of top tokens", self.k, 1, 100)
        check_choice("bos", self.bos, get_args(Bos))

    @property
    def couplets(self) -> tuple[Couplet, ...]:
        """The lines that are continued."""
        return (Couplet(self.line, self.target, self.rhymes),) if self.line else COUPLETS

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, one per field."""
        return inputs_to_dict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "RecurrentFeedbackInputs":
        """The inverse of `to_dict`.

        Raises:
            InputError: an unknown or missing field, or a value that is refused.
        """
        return inputs_from_dict(cls, values, "recurrent feedback")
