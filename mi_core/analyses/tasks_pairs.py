"""How a pair is made of two texts: single tokens found, roles placed by characters, everything proved."""

from collections.abc import Mapping, Sequence
from typing import Any

from mi_core.analyses.tasks import TaskPair
from mi_core.errors import InputError
from mi_core.tokens import Bos, TokenizedPrompt, tokenize


def fill(frame: str, words: Mapping[str, str]) -> tuple[str, dict[str, tuple[int, int]]]:
    """A frame with its marks replaced, and the characters [start, stop) of every word that was put in.

    Args:
        frame: text with marks such as "[A]".
        words: mark without brackets -> word. A mark that stands twice is told by "#2" behind its name.
    """
    text, spans, count = "", {}, dict.fromkeys(words, 0)
    rest = frame
    while rest:
        head, bracket, tail = rest.partition("[")
        text += head
        if not bracket:
            break
        mark, _, rest = tail.partition("]")
        count[mark] += 1
        key = mark if count[mark] == 1 else f"{mark}#{count[mark]}"
        spans[key] = (len(text), len(text) + len(words[mark]))
        text += words[mark]
    return text, spans


def single_position(prompt: TokenizedPrompt, span: tuple[int, int]) -> int | None:
    """The one token that covers these characters and no other letters; None where there is none."""
    covering = [t for t in prompt.tokens if t.start < span[1] and t.end > span[0]]
    if (
        len(covering) != 1
        or prompt.text[covering[0].start : covering[0].end].strip() != (prompt.text[slice(*span)])
    ):
        return None
    return covering[0].position


def answer_token(tokenizer: Any, prompt: TokenizedPrompt, answer: str, bos: Bos) -> int | None:
    """The single token that the answer is behind this prompt; None where it is not one."""
    whole = tokenize(tokenizer, prompt.text + answer, bos=bos).ids
    fits = len(whole) == len(prompt) + 1 and whole[:-1] == prompt.ids
    return whole[-1] if fits and whole[-1] != unknown_id(tokenizer) else None


def unknown_id(tokenizer: Any) -> int | None:
    """The token of unknown words, where it is not also an ordinary one (GPT-2's is its end of text)."""
    return tokenizer.unk_token_id


def single_words(tokenizer: Any, words: Sequence[str], before: str = "and") -> list[str]:
    """The words that are one token, and not the unknown one, behind another word."""
    alone = tokenize(tokenizer, before, bos="never").ids
    found = []
    for word in words:
        ids = tokenize(tokenizer, f"{before} {word}", bos="never").ids
        if len(ids) == len(alone) + 1 and ids[:-1] == alone and ids[-1] != unknown_id(tokenizer):
            found.append(word)
    return found


def make_pair(
    tokenizer: Any,
    frame: str,
    words: Mapping[str, str],
    other_words: Mapping[str, str],
    *,
    roles: Mapping[str, str],
    answer: str,
    wrong: str,
    template: str,
    bos: Bos,
) -> TaskPair | None:
    """A pair from one frame, or None where a word is not one token, an answer neither, or lengths differ.

    Args:
        tokenizer: of the model.
        frame: text with marks.
        words: mark -> word of the prompt.
        other_words: of the counterfactual.
        roles: role -> mark ("S", or "S#2" for the second time).
        answer: the right answer, with its leading space.
        wrong: the wrong one.
        template: name of the frame.
        bos: as in `tokenize`.
    """
    (text, spans), (other_text, other_spans) = fill(frame, words), fill(frame, other_words)
    prompt, other = (tokenize(tokenizer, one, bos=bos) for one in (text, other_text))
    places = {role: single_position(prompt, spans[mark]) for role, mark in roles.items()}
    other_places = {role: single_position(other, other_spans[mark]) for role, mark in roles.items()}
    answers = (answer_token(tokenizer, prompt, answer, bos), answer_token(tokenizer, prompt, wrong, bos))
    found = {role: place for role, place in places.items() if place is not None}
    unknown = unknown_id(tokenizer) in prompt.ids[prompt.bos :]
    if unknown or len(found) < len(roles) or places != other_places or len(prompt) != len(other):
        return None
    if answers[0] is None or answers[1] is None or answers[0] == answers[1]:
        return None
    return TaskPair(
        prompt=text,
        counterfactual=other_text,
        answer=answer,
        wrong=wrong,
        roles=(*found.items(), ("end", len(prompt) - 1)),
        template=template,
        ids=prompt.ids,
        counterfactual_ids=other.ids,
        answer_id=answers[0],
        wrong_id=answers[1],
    )


def too_few(what: str, why: str) -> InputError:
    """The task cannot be put to this model."""
    return InputError(what, why=why, fix="Choose another task, or upload pairs of your own")
