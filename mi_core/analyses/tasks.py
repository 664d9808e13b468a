"""Tasks: prompt pairs with a right and a wrong answer, drawn for the tokenizer that will read them.

    ioi_task             "When Mary and John went to the store, John gave a drink to" -> Mary, not John
    greater_than_task    "The war lasted from the year 1732 to the year 17" -> a later year
    induction_task       random tokens said twice: what followed the last token the first time
    subject_verb_task    "The keys to the cabinet" -> are, not is

Every pair has a counterfactual of the same length and with the same roles at the same positions, in which
what decides the answer is gone (IOI: three other names, "ABC"; induction: no repetition) or turned round
(greater-than: the year 01; subject-verb: the other number). Sources: Wang et al. 2022 (arXiv 2211.00593),
Hanna et al. 2023 (arXiv 2305.00586), Olsson et al. 2022, Linzen et al. 2016. A task is the same for the same
tokenizer, n and seed. Words that are not one token each are left out, and positions are found in the tokens,
never assumed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from mi_core.errors import InputError
from mi_core.tokens import Bos

TaskName = Literal["ioi", "greater-than", "induction", "subject-verb", "pairs"]
NameOrder = Literal["both", "ABBA", "BABA"]
Roles = tuple[tuple[str, int], ...]

TASK_LABELS: dict[str, str] = {
    "ioi": "indirect objects (IOI)",
    "greater-than": "greater than (years)",
    "induction": "induction (repeated tokens)",
    "subject-verb": "subject and verb",
    "pairs": "uploaded pairs",
}
MAX_PROMPTS = 1000


@dataclass(frozen=True, slots=True)
class TaskPair:
    """A prompt, its counterfactual, and the two answers that are compared.

    Attributes:
        prompt: what the model reads.
        counterfactual: the same with other names, years or tokens; equally many tokens.
        answer: the right answer as text, with its leading space.
        wrong: the wrong answer.
        roles: (name, token position) of what matters, the same in both prompts; "end" is the last token.
        template: which frame it was made from; prompts of one template can be averaged by position.
        ids: tokens of `prompt`, a beginning-of-sequence token included.
        counterfactual_ids: tokens of `counterfactual`.
        answer_id: the answer's single token.
        wrong_id: the wrong answer's single token.
    """

    prompt: str
    counterfactual: str
    answer: str
    wrong: str
    roles: Roles
    template: str
    ids: tuple[int, ...]
    counterfactual_ids: tuple[int, ...]
    answer_id: int
    wrong_id: int

    def __post_init__(self) -> None:
        """What every experiment relies on."""
        if len(self.ids) != len(self.counterfactual_ids):
            raise InputError(
                "A prompt and its counterfactual have different numbers of tokens",
                why=f"{len(self.ids)} and {len(self.counterfactual_ids)}: {self.prompt!r:.80}",
            )
        if self.answer_id == self.wrong_id:
            raise InputError(
                "The right and the wrong answer are the same token", why=f"in {self.prompt!r:.80}"
            )
        bad = [name for name, place in self.roles if not 0 <= place < len(self.ids)]
        if bad:
            raise InputError(f"The role {bad[0]!r:.40} lies outside its prompt", why=f"{self.prompt!r:.80}")

    def position(self, role: str) -> int:
        """Where a role stands.

        Raises:
            InputError: the pair has no such role.
        """
        for name, place in self.roles:
            if name == role:
                return place
        raise InputError(f"This task has no role {role!r:.40}")


@dataclass(frozen=True, slots=True)
class Task:
    """Prompt pairs.

    Attributes:
        name: one of `TaskName`.
        pairs: in the order in which they were drawn.
        note: how they were made, for the caption.
    """

    name: str
    pairs: tuple[TaskPair, ...]
    note: str = ""

    def __post_init__(self) -> None:
        """An empty set says nothing, and roles must mean the same in every prompt."""
        if not self.pairs:
            raise InputError("The task has no prompts")
        if any(pair.position("end") != len(pair.ids) - 1 for pair in self.pairs):
            raise InputError("The role 'end' must be the last token of its prompt")

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def role_names(self) -> tuple[str, ...]:
        """Roles that every prompt has, in the order of the first; "end" is left out."""
        shared = set.intersection(*({name for name, _ in pair.roles} for pair in self.pairs))
        return tuple(name for name, _ in self.pairs[0].roles if name in shared and name != "end")

    @property
    def templates(self) -> tuple[str, ...]:
        """Names of the templates, in order of appearance."""
        return tuple(dict.fromkeys(pair.template for pair in self.pairs))

    def groups(self) -> tuple[tuple[int, ...], ...]:
        """Places of the pairs that can run side by side: one template, one length, roles at one place."""
        found: dict[tuple[Any, ...], list[int]] = {}
        for index, pair in enumerate(self.pairs):
            found.setdefault((pair.template, len(pair.ids), pair.roles), []).append(index)
        return tuple(tuple(group) for group in found.values())


def ioi_task(
    tokenizer: Any, n: int = 64, seed: int = 0, *, templates: NameOrder = "both", bos: Bos = "auto"
) -> Task:
    """Indirect objects: two names, one of them again, and the other one must come next.

    Args:
        tokenizer: of the model; only names that are one token in it are used.
        n: prompts.
        seed: of the draw.
        templates: "ABBA" = the object's name comes first, "BABA" = the subject's, "both" = half and half.
        bos: whether a beginning-of-sequence token stands in front.

    Raises:
        InputError: fewer than five names are single tokens, or the frames' words are not in the vocabulary.
    """
    from mi_core.analyses.tasks_ioi import draw_ioi

    _check(n, seed)
    if templates not in get_args(NameOrder):
        raise InputError(f"templates is {templates!r:.40}", fix="Choose both, ABBA or BABA")
    return draw_ioi(tokenizer, n, seed, templates, bos)


def greater_than_task(tokenizer: Any, n: int = 64, seed: int = 0, *, bos: Bos = "auto") -> Task:
    """Years: something that began in 17YY ended in 17.. : a later year than YY.

    Raises:
        InputError: the tokenizer does not split years into two tokens of two digits.
    """
    from mi_core.analyses.tasks_words import draw_greater_than

    _check(n, seed)
    return draw_greater_than(tokenizer, n, seed, bos)


def induction_task(
    tokenizer: Any, n: int = 64, seed: int = 0, *, length: int = 12, bos: Bos = "auto"
) -> Task:
    """Random tokens said twice, cut inside the second copy: what came next the first time comes again.

    Args:
        tokenizer: of the model.
        n: prompts.
        seed: of the draw.
        length: tokens in the first copy.
        bos: whether a beginning-of-sequence token stands in front.

    Raises:
        InputError: hardly any ordinary tokens.
    """
    from mi_core.analyses.tasks_induction import draw_induction

    _check(n, seed)
    return draw_induction(tokenizer, n, seed, length, bos)


def subject_verb_task(tokenizer: Any, n: int = 64, seed: int = 0, *, bos: Bos = "auto") -> Task:
    """A verb must agree with its subject and not with the nearer noun (the attractor).

    Raises:
        InputError: too few nouns whose singular and plural are one token each.
    """
    from mi_core.analyses.tasks_words import draw_subject_verb

    _check(n, seed)
    return draw_subject_verb(tokenizer, n, seed, bos)


GENERATORS: dict[str, Callable[..., Task]] = {
    "ioi": ioi_task,
    "greater-than": greater_than_task,
    "induction": induction_task,
    "subject-verb": subject_verb_task,
}


def _check(n: int, seed: int) -> None:
    for what, value, low, high in (("number of prompts", n, 1, MAX_PROMPTS), ("seed", seed, 0, 2**32 - 1)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not low <= value <= high:
            raise InputError(
                f"The {what} is {value!r:.40}", fix=f"Give a whole number from {low} to {high:,}"
            )
