"""What a user chooses for an intervention on features."""

import re
from dataclasses import dataclass
from typing import Any, Literal, get_args

from mi_core.analyses.attribution_inputs import MAX_PROMPT_CHARACTERS
from mi_core.analyses.plain import check_choice, check_text, check_whole, inputs_from_dict, inputs_to_dict
from mi_core.errors import InputError
from mi_core.tokens import Bos

FrozenName = Literal["nothing", "attention", "everything"]
MAX_LIST_CHARACTERS = 20_000
MAX_CONTINUATION = 50
MAX_TOP = 50
MAX_FEATURES = 200
_LIST = re.compile(r"[A-Za-z0-9@:+.=,/\s-]*")


@dataclass(frozen=True, slots=True)
class InjectInputs:
    """A prompt and what is done to features while the model reads it.

    Attributes:
        prompt: ends just before its answer.
        edits: the list as text, such as "L5F102@7:set=3,L3F7@all:ablate" (see `feature_edits`).
        transcoder: whose features; "" = the one that belongs to the model.
        frozen: what keeps its baseline value: "nothing" (what would really happen), "attention" (the
            patterns), or "everything" (patterns, norm scales, MLP outputs: direct effects only).
        answer: text whose first token is followed; None = the baseline's top token.
        distractor: text whose first token is compared with it; None = nothing is.
        continuation: tokens of the greedy continuation, before and after; 0 = none.
        top: how many of the most probable tokens are listed, of each run.
        features: how many of the other features that change most are listed; 0 = none are computed.
        show_bos: whether leading special tokens count, too.
        bos: whether a beginning-of-sequence token is put first; "auto" = as the tokenizer does.
    """

    prompt: str
    edits: str = ""
    transcoder: str = ""
    frozen: FrozenName = "nothing"
    answer: str | None = None
    distractor: str | None = None
    continuation: int = 10
    top: int = 5
    features: int = 20
    show_bos: bool = False
    bos: Bos = "auto"

    def __post_init__(self) -> None:
        """Refuse what no model could make sense of; the list itself is read when the model is known."""
        check_text(
            "prompt", self.prompt, MAX_PROMPT_CHARACTERS, "Type a sentence that ends before its answer"
        )
        for name in ("answer", "distractor"):
            if getattr(self, name) is not None:
                check_text(name, getattr(self, name), 1000, "Leave it out to have none")
        check_choice("bos", self.bos, get_args(Bos))
        check_choice("frozen", self.frozen, get_args(FrozenName))
        check_whole("number of continued tokens", self.continuation, 0, MAX_CONTINUATION)
        check_whole("number of top tokens", self.top, 1, MAX_TOP)
        check_whole("number of other features", self.features, 0, MAX_FEATURES)
        if len(self.transcoder) > 1000:
            raise InputError("The transcoder's name has more than 1,000 characters")
        check_edit_list(self.edits)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, one per field."""
        return inputs_to_dict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "InjectInputs":
        """The inverse of `to_dict`.

        Raises:
            InputError: an unknown or missing field, or a value that `InjectInputs` refuses.
        """
        return inputs_from_dict(cls, values, "intervention on features")


def check_edit_list(text: str) -> None:
    """Refuse a text that could never be a list of edits.

    Raises:
        InputError: too long, or a character that no edit has.
    """
    if len(text) > MAX_LIST_CHARACTERS:
        raise InputError(f"The list of edits has more than {MAX_LIST_CHARACTERS:,} characters")
    bad = next((character for character in text if not _LIST.fullmatch(character)), None)
    if bad is not None:
        raise InputError(
            f"The list of edits has the character {bad!r}",
            fix="Write for example L5F102@7:set=3,L3F7@all:ablate",
        )
