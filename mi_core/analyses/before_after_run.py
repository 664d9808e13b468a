"""Reading two runs of one prompt, without and with edits, at its last token."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mi_core.analyses.attribution_result import ReadToken
from mi_core.answers import AnswerChoice, answer_warnings
from mi_core.engine.run import context_limit
from mi_core.errors import InputError
from mi_core.metrics import kl_divergence, rank
from mi_core.model.model import LoadedModel
from mi_core.tokens import visible_token


def read_tokens(
    model: LoadedModel,
    logits: Float[Tensor, " d_vocab"],
    answer: AnswerChoice | None,
    distractor: AnswerChoice | None,
) -> tuple[ReadToken, ReadToken | None]:
    """The tokens that are followed: target, and distractor if there is one.

    Args:
        model: whose tokenizer names them.
        logits: of the baseline; its top token is the target where no answer was given.
        answer: what the user typed; its first token is followed.
        distractor: the same.

    Raises:
        InputError: both begin with the same token.
    """
    if answer is None:
        token = int(logits.argmax())
        text = model.tokenizer.decode([token])
        target = ReadToken(token, visible_token(model.tokenizer, token), text, "model")
    else:
        target = ReadToken(answer.ids[0], answer.pieces[0], answer.text, "user")
    if distractor is None:
        return target, None
    other = ReadToken(distractor.ids[0], distractor.pieces[0], distractor.text, "user")
    if other.id == target.id:
        raise InputError(
            f"The distractor {other.text!r} begins with the same token as the target {target.text!r}",
            why="their difference would be zero",
            fix="Choose another distractor",
        )
    return target, other


def read_warnings(answer: AnswerChoice | None, distractor: AnswerChoice | None) -> tuple[str, ...]:
    """What to know of the typed answers, such as that only a first token is followed."""
    if answer is not None:
        return answer_warnings(answer, distractor)
    if distractor is None or distractor.single_token:
        return ()
    return answer_warnings(distractor)[:1]


def ranks_of(logits: Float[Tensor, "run d_vocab"], read: Sequence[int]) -> Int[np.ndarray, "run read"]:
    """Ranks of some tokens; 1 = the top token."""
    return torch.stack([rank(logits, token) for token in read], dim=-1).numpy()


def numbers_of(
    model: LoadedModel,
    logits: Float[Tensor, "2 d_vocab"],
    answer: AnswerChoice | None,
    distractor: AnswerChoice | None,
) -> dict[str, Any]:
    """What both runs say of the followed tokens, by the fields that Results of two runs share.

    Args:
        model: whose tokenizer names the tokens.
        logits: of baseline and edited run.
        answer: see `read_tokens`.
        distractor: the same.

    Raises:
        InputError: both begin with the same token.
    """
    target, other = read_tokens(model, logits[0], answer, distractor)
    read = [target.id, *([] if other is None else [other.id])]
    return {
        "target": target,
        "distractor": other,
        "logits": logits[:, read].numpy(),
        "log_probabilities": logits.log_softmax(-1)[:, read].numpy(),
        "ranks": ranks_of(logits, read),
        "kl": float(kl_divergence(logits[0], logits[1])),
    }


def check_edited(logits: Float[Tensor, " d_vocab"], too_large: str) -> None:
    """Refuse an edited run that left the numbers that its format can say.

    Args:
        logits: of its last token.
        too_large: what the user gave that can be too large, as in "a value or factor".

    Raises:
        InputError: a logit is no number.
    """
    if logits.isnan().any() or (logits == torch.inf).any():
        raise InputError(
            "The edited run gives no numbers",
            why=f"{too_large} is too large for the model's number format",
            fix="Use smaller ones, or float32",
        )


def room(model: LoadedModel, n_tokens: int, steps: int) -> int:
    """How many of the steps fit behind a prompt."""
    limit = context_limit(model)
    return steps if not limit else max(0, min(steps, limit - n_tokens))
