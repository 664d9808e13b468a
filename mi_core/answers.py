"""Answers: which tokens a word becomes after a prompt, and how probable they are together.

    log P(answer | prompt) = sum over i of log P(answer[i] | prompt, answer[:i])

One forward pass over prompt and answer gives all terms (teacher forcing). "Paris" and " Paris" are different
tokens, and a word alone is tokenised otherwise than behind a prompt, so both forms are offered as they stand
behind this prompt, and the chosen tokens are always shown.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mi_core.errors import InputError
from mi_core.tokens import TokenizedPrompt
from mi_core.visible import visible_token

if TYPE_CHECKING:
    from mi_core.engine import Edit
    from mi_core.model.model import LoadedModel

MAX_ANSWER_CHARACTERS = 1000

# After one of these a word starts without a space of its own.
_OPENERS = frozenset("([{\"'`</\\_-#@$\u201c\u2018\u00ab")


@dataclass(frozen=True, slots=True)
class AnswerChoice:
    """One way to write an answer behind a prompt.

    Attributes:
        text: the characters that follow the prompt.
        ids: their token ids.
        pieces: what to show for each token, for example (`·San`, `·Francisco`).
        leading_space: whether the text begins with a space.
        single_token: whether one token holds all of it.
        joint: whether prompt and answer together are tokenised as the prompt's tokens and then these. If not,
            the tokenizer would merge across the boundary, and the ids are simply put behind the prompt's.
    """

    text: str
    ids: tuple[int, ...]
    pieces: tuple[str, ...]
    leading_space: bool
    single_token: bool
    joint: bool = True


def answer_choices(tokenizer: Any, prompt: TokenizedPrompt, answer: str) -> tuple[AnswerChoice, ...]:
    """Both ways to write an answer behind a prompt, the usual one first.

    Args:
        tokenizer: fast Hugging Face tokenizer.
        prompt: what comes before.
        answer: what the user typed. A space that it begins with is taken as meant: that form comes first.

    Returns:
        The form with a leading space and the form without, without doubles.

    Raises:
        InputError: the answer is empty or endless.
    """
    word = answer.lstrip(" ")
    if not word:
        raise InputError(
            "The answer is empty", fix="Type a word, or leave it out to use the model's own top token"
        )
    if len(answer) > MAX_ANSWER_CHARACTERS:
        raise InputError(
            f"The answer has {len(answer):,} characters", fix=f"Give at most {MAX_ANSWER_CHARACTERS:,}"
        )
    last = prompt.text[-1]
    spaced = answer.startswith(" ") or not (last.isspace() or last in _OPENERS or not word[0].isalnum())
    forms = (" " + word, word) if spaced else (word, " " + word)
    choices: list[AnswerChoice] = []
    for form in forms:
        choice = _choice(tokenizer, prompt, form)
        if choice.ids not in [other.ids for other in choices]:
            choices.append(choice)
    return tuple(choices)


def choose_answer(tokenizer: Any, prompt: TokenizedPrompt, answer: str) -> AnswerChoice:
    """The usual way to write an answer behind a prompt: the first of `answer_choices`."""
    return answer_choices(tokenizer, prompt, answer)[0]


def _choice(tokenizer: Any, prompt: TokenizedPrompt, form: str) -> AnswerChoice:
    whole = _ids(tokenizer, prompt.text + form, special=False)
    head = prompt.ids[prompt.bos :]
    joint = whole[: len(head)] == head and len(whole) > len(head)
    ids = whole[len(head) :] if joint else _alone(tokenizer, form)
    pieces = tuple(visible_token(tokenizer, token_id) for token_id in ids)
    return AnswerChoice(form, ids, pieces, form.startswith(" "), len(ids) == 1, joint)


def _ids(tokenizer: Any, text: str, *, special: bool) -> tuple[int, ...]:
    return tuple(
        tokenizer(text, add_special_tokens=special, return_attention_mask=False, verbose=False)["input_ids"]
    )


def _alone(tokenizer: Any, form: str) -> tuple[int, ...]:
    """The ids of a text as a continuation: behind an anchor, as many tokenizers put a space before a text."""
    unknown = getattr(tokenizer, "unk_token_id", None)
    for anchor in (".", "a", "\n"):
        before, both = (_ids(tokenizer, text, special=False) for text in (anchor, anchor + form))
        # An anchor outside the vocabulary would hide that it merged with the text behind it.
        if both[: len(before)] == before and len(both) > len(before) and unknown not in before:
            return both[len(before) :]
    return _ids(tokenizer, form, special=False)


def answer_warnings(answer: AnswerChoice, distractor: AnswerChoice | None = None) -> tuple[str, ...]:
    """What a reader of the numbers has to know about the tokens, one sentence each."""
    warnings = []
    for name, choice in (("answer", answer), ("distractor", distractor)):
        if choice is not None and not choice.single_token:
            warnings.append(
                f"The {name} is {len(choice.ids)} tokens ({' '.join(choice.pieces)}); "
                f"what reads one token reads {choice.pieces[0]}, which other words may share."
            )
        if choice is not None and not choice.joint:
            warnings.append(
                f"Behind this prompt the tokenizer would merge the {name} with the prompt's end; "
                f"{' '.join(choice.pieces)} is put there as it is."
            )
    if distractor is not None and distractor.ids == answer.ids:
        warnings.append("Answer and distractor are the same tokens: their difference is zero.")
    elif distractor is not None and distractor.ids[0] == answer.ids[0]:
        warnings.append(
            f"Answer and distractor begin with the same token {answer.pieces[0]}: "
            "the difference of their first tokens is zero."
        )
    return tuple(warnings)


@dataclass(frozen=True, slots=True)
class AnswerScore:
    """How probable an answer is behind a prompt.

    Attributes:
        log_probability: of all its tokens together, in nats.
        per_token: log-probability of each token given those before it, in nats.
        first_rank: rank of the first token among all, 1 = the model's top token.
    """

    log_probability: float
    per_token: tuple[float, ...]
    first_rank: int


def score_answer(
    model: "LoadedModel", prompt: TokenizedPrompt, answer: AnswerChoice, *, edits: "Sequence[Edit]" = ()
) -> AnswerScore:
    """Probability of an answer behind a prompt, all tokens in one forward pass.

    Args:
        model: the loaded model.
        prompt: what comes before.
        answer: its tokens.
        edits: applied to the pass; positions count from the start of the prompt.

    Returns:
        Natural-log probabilities.

    Cost: one forward pass over prompt and answer.
    Identity: equals the product of the probabilities found by running the prompt once per answer token.
    """
    import torch

    from mi_core.engine import run

    tokens = torch.tensor([[*prompt.ids, *answer.ids[:-1]]])
    logits = run(model, tokens, edits=edits, last=len(answer.ids)).logits[0]
    wanted = torch.tensor(answer.ids, device=logits.device)[:, None]
    numbers = logits.double().log_softmax(-1)
    per_token = numbers.gather(-1, wanted)[:, 0]
    rank = 1 + int((logits[0] > logits[0, wanted[0]]).sum())
    return AnswerScore(float(per_token.sum()), tuple(per_token.tolist()), rank)
