"""Which tokens a lens follows: the answer, what it is compared with, and the words that the user named."""

from collections.abc import Iterable
from typing import Any

from mi_core.analyses.logit_lens_result import LensWord, WordRole
from mi_core.answers import AnswerChoice, answer_choices, choose_answer
from mi_core.model.model import LoadedModel
from mi_core.tokens import TokenizedPrompt, visible_token


def lens_words(
    model: LoadedModel,
    prompt: TokenizedPrompt,
    answer: str | None,
    distractor: str | None,
    tracked: Iterable[str],
    top_token: int,
) -> tuple[tuple[LensWord, ...], tuple[str, ...]]:
    """The tokens to follow, the answer first, each once.

    Args:
        model: for its tokenizer.
        prompt: what they stand behind.
        answer: typed by the user; None = `top_token`.
        distractor: typed by the user, or None.
        tracked: words that the user named.
        top_token: the model's own top token at the end of the prompt.

    Returns:
        The words, and sentences about what a reader must know of them.

    Raises:
        InputError: a word is empty.
    """
    words, warnings = [_answer(model.tokenizer, prompt, answer, top_token)], []
    asked: list[tuple[WordRole, str]] = [("tracked", text) for text in tracked]
    if distractor is not None:
        asked.insert(0, ("distractor", distractor))
    for role, text in asked:
        choice = _single_token_form(model.tokenizer, prompt, text)
        word = _word(role, choice)
        same = next((other for other in words if other.id == word.id), None)
        if same is not None:
            if text.strip(" ") != same.text.strip(" "):
                warnings.append(f"{word.visible} is followed once: {text!r} and {same.text!r} begin with it.")
            continue
        words.append(word)
    several = [word for word in words if len(word.pieces) > 1]
    warnings += [
        f"{word.text!r} is {len(word.pieces)} tokens ({' '.join(word.pieces)}); only the first, "
        f"{word.visible}, is followed, and other words may begin with it."
        for word in several
    ]
    return tuple(words), tuple(warnings)


def _answer(tokenizer: Any, prompt: TokenizedPrompt, answer: str | None, top_token: int) -> LensWord:
    if answer is not None:
        return _word("answer", choose_answer(tokenizer, prompt, answer))
    shown = visible_token(tokenizer, top_token)
    return LensWord("answer", tokenizer.decode([top_token]), top_token, shown, (shown,), "model")


def _single_token_form(tokenizer: Any, prompt: TokenizedPrompt, text: str) -> AnswerChoice:
    """The form of a word that is one token, the usual form first; without one, the usual form."""
    choices = answer_choices(tokenizer, prompt, text)
    return next((choice for choice in choices if choice.single_token and choice.joint), choices[0])


def _word(role: WordRole, choice: AnswerChoice) -> LensWord:
    return LensWord(role, choice.text, choice.ids[0], choice.pieces[0], choice.pieces)
