"""Pairs that somebody wrote, as a task of this tokenizer; the first one that does not fit is named."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mi_core.analyses.tasks import Task, TaskPair
from mi_core.analyses.tasks_pairs import answer_token
from mi_core.errors import InputError
from mi_core.tokens import Bos, TokenizedPrompt, find_spans, tokenize

if TYPE_CHECKING:
    from mi_core.analyses.task_inputs import PairText


def uploaded_task(tokenizer: Any, texts: "Sequence[PairText]", *, bos: Bos = "auto") -> Task:
    """A task of written pairs.

    Raises:
        InputError: a pair whose prompts differ in length, whose answers are not single tokens, or whose role
            is not one token at the same place in both prompts; named by its number.
    """
    pairs = tuple(_pair(tokenizer, number, text, bos) for number, text in enumerate(texts, start=1))
    return Task("pairs", pairs, f"{len(pairs)} uploaded pairs.")


def _pair(tokenizer: Any, number: int, text: "PairText", bos: Bos) -> TaskPair:
    prompt, other = (tokenize(tokenizer, one, bos=bos) for one in (text.prompt, text.counterfactual))
    if len(prompt) != len(other):
        raise InputError(
            f"Pair {number}: prompt and counterfactual have different numbers of tokens",
            why=f"{len(prompt)} and {len(other)}: {text.prompt[:80]!r}",
            fix="Choose words of equally many tokens",
        )
    ids = [_answer(tokenizer, number, prompt, one, bos) for one in (text.answer, text.wrong)]
    if ids[0] == ids[1]:
        raise InputError(f"Pair {number}: the right and the wrong answer are the same token")
    roles = [(name, _role(number, prompt, name, word)) for name, word in text.roles if name != "end"]
    return TaskPair(
        prompt=text.prompt,
        counterfactual=text.counterfactual,
        answer=_spaced(prompt, text.answer),
        wrong=_spaced(prompt, text.wrong),
        roles=(*roles, ("end", len(prompt) - 1)),
        template="uploaded",
        ids=prompt.ids,
        counterfactual_ids=other.ids,
        answer_id=ids[0],
        wrong_id=ids[1],
    )


def _spaced(prompt: TokenizedPrompt, answer: str) -> str:
    """The answer as it stands behind the prompt: with a space before a word, unless one is there."""
    return answer if prompt.text[-1].isspace() or not answer[0].isalnum() else f" {answer}"


def _answer(tokenizer: Any, number: int, prompt: TokenizedPrompt, answer: str, bos: Bos) -> int:
    for form in dict.fromkeys((_spaced(prompt, answer), answer)):
        found = answer_token(tokenizer, prompt, form, bos)
        if found is not None:
            return found
    raise InputError(
        f"Pair {number}: {answer[:60]!r} is not one token behind its prompt",
        fix="Choose answers that are single tokens of this model",
    )


def _role(number: int, prompt: TokenizedPrompt, name: str, word: str) -> int:
    """The one token of a word; "word#2" means its second time."""
    text, _, count = word.partition("#")
    place = int(count) - 1 if count.isdecimal() and len(count) < 4 else 0
    spans = find_spans(prompt, text)
    if not 0 <= place < len(spans) or spans[place][1] - spans[place][0] != 1:
        raise InputError(
            f"Pair {number}: the role {name[:40]!r} is not one token of its prompt",
            why=f"its word is {word[:60]!r}",
        )
    return spans[place][0]
