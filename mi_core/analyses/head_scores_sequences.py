"""Repeated random tokens, and what a pattern over them says about a head.

A sequence is BOS + R + R (no BOS where the tokenizer has none), R being random tokens without repetition.
With b = 1 or 0 tokens in front and L tokens in R, query q and pattern A:

    previous_token   mean of A[q, q - 1]         induction        mean of A[q, q - L + 1], q in the second R
    current_token    mean of A[q, q]             duplicate_token  mean of A[q, q - L],     q in the second R
    first_token      mean of A[q, 0]

Position 0 is nobody's query, and it counts as a key for `first_token` alone: heads rest there whether it is a
BOS token or not, and a resting head would else look like a previous-token head. Source: Olsson et al. 2022.
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mi_core.analyses.head_scores_inputs import SCORE_NAMES
from mi_core.errors import InputError
from mi_core.visible import EMPTY, visible_token


def pattern_scores(
    pattern: Float[Tensor, "row head query key"], length: int
) -> Float[Tensor, "score row head"]:
    """The scores of a layer's heads, in the order of `SCORE_NAMES`.

    Args:
        pattern: over sequences that end in twice the same `length` tokens.
        length: tokens in one copy.
    """
    size = pattern.shape[-1]
    second = slice(max(size - length, length + 1), size)  # its first copy must not be position 0
    diagonals = {
        "previous_token": _diagonal(pattern, 1)[..., 1:],  # the first entry reads position 0
        "induction": _diagonal(pattern, length - 1)[..., second.start - length + 1 :],
        "duplicate_token": _diagonal(pattern, length)[..., second.start - length :],
        "current_token": _diagonal(pattern, 0)[..., 1:],
        "first_token": pattern[..., 1:, 0],
    }
    return torch.stack([diagonals[name].cpu().double().mean(-1) for name in SCORE_NAMES])


def _diagonal(pattern: Tensor, back: int) -> Float[Tensor, "row head place"]:
    """A[q, q - back] for q from `back` on."""
    return pattern.diagonal(-back, -2, -1)


def usable_tokens(tokenizer: Any, d_vocab: int) -> Int[np.ndarray, " token"]:
    """Ids that may stand in a random sequence: no special or added tokens, nothing that is only white space.

    Args:
        tokenizer: the model's; None = every id of the vocabulary.
        d_vocab: size of the model's vocabulary.

    Raises:
        InputError: there are hardly any.
    """
    if tokenizer is None:
        return np.arange(d_vocab)
    ids = range(min(d_vocab, len(tokenizer)))
    odd = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    found = [token_id for token_id in ids if token_id not in odd and _has_letters(tokenizer, token_id)]
    if len(found) < 4:
        raise InputError("This tokenizer has too few ordinary tokens to make random sequences of")
    return np.array(found)


def _has_letters(tokenizer: Any, token_id: int) -> bool:
    """Whether a token shows something besides spaces, line breaks and parts of characters."""
    shown = visible_token(tokenizer, token_id)
    return shown != EMPTY and bool(shown.strip("·↵⇥")) and "⟨" not in shown


def repeated_tokens(usable: Int[np.ndarray, " token"], bos: int | None, length: int, seed: int) -> list[int]:
    """BOS and twice the same random tokens.

    Args:
        usable: ids to draw from, without repetition.
        bos: id of the token in front, or None.
        length: tokens in one copy.
        seed: of numpy's generator.
    """
    drawn = np.random.default_rng(seed).choice(usable, length, replace=False).tolist()
    return [*([] if bos is None else [bos]), *drawn, *drawn]
