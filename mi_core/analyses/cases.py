"""Prompt sets in text: what averages run over and prompt files are read into."""

from collections import defaultdict
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from mi_core.errors import InputError

MAX_CASE_CHARACTERS = 10_000


@dataclass(frozen=True, slots=True)
class Case:
    """A prompt with its subject and its right answer.

    Attributes:
        prompt: ends where the answer begins.
        subject: text in the prompt that the question is about; "" = the tokens in which the two prompts
            differ.
        answer: what a model that knows the fact says next.
        corrupted_prompt: the same question about something else, or None.
        corrupted_answer: its right answer, or None.
        name: identifies the case in its file.
        relation: what kind of fact it is, "" if unknown.
    """

    prompt: str
    subject: str
    answer: str
    corrupted_prompt: str | None = None
    corrupted_answer: str | None = None
    name: str = ""
    relation: str = ""

    def __post_init__(self) -> None:
        """Texts are texts, there is a prompt and an answer, and nothing is absurdly long."""
        for field, value in self.to_dict().items():
            optional = field in ("corrupted_prompt", "corrupted_answer")
            if not isinstance(value, str) and not (optional and value is None):
                raise InputError(
                    f"The {field.replace('_', ' ')} is not text", why=f"it is {str(value)[:80]!r}"
                )
            if isinstance(value, str) and len(value) > MAX_CASE_CHARACTERS:
                raise InputError(
                    f"The {field.replace('_', ' ')} has more than {MAX_CASE_CHARACTERS:,} characters"
                )
        for field in ("prompt", "answer"):
            if not getattr(self, field).strip():
                raise InputError(f"The {field} is empty")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, one per field."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class PromptSet:
    """Named cases.

    Attributes:
        name: what to call it in a caption.
        cases: in the order of their file.
        note: where it comes from, a clause.
    """

    name: str
    cases: tuple[Case, ...]
    note: str = ""

    def __post_init__(self) -> None:
        """A set holds something."""
        if not self.cases:
            raise InputError(f"The prompt set {self.name!r} is empty")

    @property
    def relations(self) -> tuple[str, ...]:
        """The kinds of facts in it, in order of appearance."""
        return tuple(dict.fromkeys(case.relation for case in self.cases))

    @property
    def has_pairs(self) -> bool:
        """Whether every case has a corrupted prompt."""
        return all(case.corrupted_prompt is not None for case in self.cases)

    def only(self, relations: tuple[str, ...]) -> "PromptSet":
        """The cases of some relations.

        Raises:
            InputError: there are none.
        """
        return replace(self, cases=tuple(case for case in self.cases if case.relation in relations))

    def sample(self, count: int, seed: int = 0) -> "PromptSet":
        """At most `count` cases in the file's order, drawn so that relations are as even as can be.

        Args:
            count: how many; a set that has no more is returned whole.
            seed: of the draw.
        """
        if count >= len(self.cases):
            return self
        random = np.random.default_rng(seed)
        shuffled: dict[str, list[int]] = defaultdict(list)
        for index in random.permutation(len(self.cases)).tolist():
            shuffled[self.cases[index].relation].append(index)
        rounds = max(len(indices) for indices in shuffled.values())
        dealt = [ix[turn] for turn in range(rounds) for ix in shuffled.values() if turn < len(ix)]
        return replace(self, cases=tuple(self.cases[index] for index in sorted(dealt[:count])))
