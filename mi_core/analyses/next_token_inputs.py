"""What a user chooses for the next-token table; see `next_token_run`."""

from dataclasses import asdict, dataclass, fields
from typing import Any, get_args

from mi_core.errors import InputError
from mi_core.tokens import Bos

MAX_PROMPT_CHARACTERS = 100_000
MAX_TOP = 1000
MIN_TEMPERATURE, MAX_TEMPERATURE = 0.01, 100.0


@dataclass(frozen=True, slots=True)
class NextTokenInputs:
    """What to read.

    Attributes:
        prompt: the text.
        k: how many of the most probable tokens the table has.
        position: token position after which it looks; None = the last one.
        temperature: logits are divided by it in the table; 1 = the model's own distribution. Surprise is
            always at temperature 1.
        answer: text of a token that gets a row in any case; None = none.
        distractor: text of another one; None = none.
        bos: whether a beginning-of-sequence token is put first; "auto" = as the tokenizer does.
    """

    prompt: str
    k: int = 10
    position: int | None = None
    temperature: float = 1.0
    answer: str | None = None
    distractor: str | None = None
    bos: Bos = "auto"

    def __post_init__(self) -> None:
        """Refuse what no model could make sense of; positions are checked when the tokens are known."""
        if not isinstance(self.prompt, str) or not self.prompt:
            raise InputError("The prompt is empty", fix="Type a sentence")
        if len(self.prompt) > MAX_PROMPT_CHARACTERS:
            raise InputError(f"The prompt has more than {MAX_PROMPT_CHARACTERS:,} characters")
        if not 1 <= _whole("k", self.k) <= MAX_TOP:
            raise InputError(f"{self.k} tokens were asked for", fix=f"Give 1 to {MAX_TOP}; 10 is usual")
        if self.position is not None and _whole("position", self.position) < 0:
            raise InputError(f"The position is {self.position}", fix="Positions count from 0")
        if isinstance(self.temperature, bool) or not isinstance(self.temperature, (int, float)):
            raise InputError(f"The temperature is {self.temperature!r:.40}", fix="Give a number; 1 is usual")
        if not MIN_TEMPERATURE <= self.temperature <= MAX_TEMPERATURE:  # also refuses NaN
            raise InputError(
                f"The temperature is {self.temperature}",
                fix=f"Give a number from {MIN_TEMPERATURE} to {MAX_TEMPERATURE:g}; 1 is the model's own",
            )
        if self.bos not in get_args(Bos):
            raise InputError(f"bos is {self.bos!r:.40}", fix=f"Choose one of {', '.join(get_args(Bos))}")
        for name in ("answer", "distractor"):
            text = getattr(self, name)
            if text is not None and (not isinstance(text, str) or not text):
                raise InputError(f"The {name} is empty", fix="Leave it out")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, one per field."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "NextTokenInputs":
        """The inverse of `to_dict`.

        Raises:
            InputError: an unknown or missing field, or a value that `NextTokenInputs` refuses.
        """
        unknown = sorted(set(values) - {field.name for field in fields(cls)})
        if unknown or "prompt" not in values:
            problem = f"has unknown fields {unknown}" if unknown else "has no prompt"
            raise InputError(f"The description of the table {problem}")
        return cls(**values)


def _whole(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputError(f"{name} is {value!r:.40}", fix="Give a whole number")
    return value
