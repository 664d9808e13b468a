"""What a helix reads and takes: the pieces of text, their character counts, and the size of the sums."""

from typing import Any

import numpy as np

from mi_core.analyses.character_helix_inputs import CharacterHelixInputs
from mi_core.analyses.character_helix_lines import Piece, pieces
from mi_core.analyses.character_helix_result import HelixCost
from mi_core.errors import InputError
from mi_core.model.progress import format_bytes
from mi_core.model.structure import Dims

MAX_STATE_BYTES = 4_000_000_000


def character_helix_cost(
    tokenizer: Any,
    dims: Dims,
    inputs: CharacterHelixInputs,
    *,
    context: int | None = None,
    speed: float | None = None,
) -> HelixCost:
    """What a helix will take: the texts are wrapped and tokenized, no model runs.

    Args:
        tokenizer: of the model.
        dims: its sizes.
        inputs: the question.
        context: longest prompt that the model reads, in tokens.
        speed: measured token-layers per second.

    Raises:
        InputError: no token has a count, or the sums would not fit.
    """
    made, left_out = helix_pieces(tokenizer, inputs, context)
    tokens = sum(len(piece.ids) for piece in made)
    return HelixCost(
        passages=len({piece.passage for piece in made}),
        left_out=left_out,
        tokens=tokens,
        passes=len(made),
        state_bytes=state_bytes(dims, inputs),
        seconds=tokens * dims.n_layers / speed if speed else None,
    )


def helix_pieces(
    tokenizer: Any, inputs: CharacterHelixInputs, context: int | None
) -> tuple[list[Piece], int]:
    """The wrapped texts in pieces that the model can read, and how many stretches the limit left out.

    Raises:
        InputError: too few tokens per character count.
    """
    made, left_out = pieces(
        tokenizer,
        inputs.texts,
        widths=inputs.widths,
        limit=inputs.chunk_tokens if context is None else min(inputs.chunk_tokens, context),
        max_tokens=inputs.max_tokens,
        bos=inputs.bos,
    )
    n = count_histogram(made, inputs.max_count)
    if (n >= inputs.n_min).sum() < 3:
        raise InputError(
            f"Fewer than 3 character counts have {inputs.n_min} tokens",
            why=f"the wrapped texts have {int(n.sum()):,} tokens that count",
            fix="Give more text, or fewer tokens per count",
        )
    return made, left_out


def count_histogram(made: list[Piece], max_count: int) -> np.ndarray:
    """Tokens per character count, 0 to `max_count`."""
    every = np.concatenate([np.array(piece.counts) for piece in made])
    return np.bincount(every[(every >= 0) & (every <= max_count)], minlength=max_count + 1)


def state_bytes(dims: Dims, inputs: CharacterHelixInputs) -> int:
    """Memory of the sums.

    Raises:
        InputError: more than `MAX_STATE_BYTES`.
    """
    size = 16 * dims.n_layers * (inputs.max_count + 1) * dims.d_model
    if size > MAX_STATE_BYTES:
        raise InputError(
            f"The sums would take {format_bytes(size)}",
            why=f"{dims.n_layers} layers, {inputs.max_count + 1} counts, {dims.d_model:,} dimensions",
            fix="Lower the largest character count",
        )
    return size


def shuffled_counts(made: list[Piece], max_count: int, seed: int) -> list[np.ndarray]:
    """The counts of all pieces, dealt out anew among the tokens that count up to `max_count`."""
    every = np.concatenate([np.array(piece.counts) for piece in made])
    there = (every >= 0) & (every <= max_count)
    dealt = every.copy()
    dealt[there] = np.random.default_rng(seed).permutation(every[there])
    return np.split(dealt, np.cumsum([len(piece.counts) for piece in made])[:-1])
