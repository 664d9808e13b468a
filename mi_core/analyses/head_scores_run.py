"""Kinds of attention heads, found on repeated random tokens: scores with their spread over sequences.

Random tokens carry no meaning, so what a head does on them is its habit, not the text's. The scores and the
sequences are defined in `head_scores_sequences`; a head is called by every score whose mean reaches the
threshold, and by none otherwise: a label is a threshold, not a discovery.

Cost: one forward pass over `samples` rows of 1 + 2 * length tokens; patterns are reduced to their scores
inside the pass, so nothing of size query * key is kept, and no captured value is changed.
"""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.causal_trace_result import Step
from mi_core.analyses.head_scores_inputs import HeadScoresInputs
from mi_core.analyses.head_scores_result import HeadScoresResult
from mi_core.analyses.head_scores_sequences import pattern_scores, repeated_tokens, usable_tokens
from mi_core.engine import run
from mi_core.engine.place import Place
from mi_core.errors import InputError
from mi_core.model.model import LoadedModel
from mi_core.provenance import Provenance

ROWS_AT_ONCE = 8
ROW_TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5, torch.float16: 5e-3, torch.bfloat16: 4e-2}


def head_scores(
    model: LoadedModel, inputs: HeadScoresInputs, *, on_step: Callable[[Step], None] | None = None
) -> HeadScoresResult:
    """Score every head on repeated random tokens.

    Args:
        model: the loaded model.
        inputs: how to test.
        on_step: told after each batch of sequences; may raise Cancelled, which passes.

    Raises:
        SiteMissing: this model's attention cannot be looked into.
        InputError: too few ordinary tokens, or a context too short for two copies of two tokens.
    """
    started = time.perf_counter()
    model.structure.require("pattern", 0)
    bos = None if model.tokenizer is None else model.tokenizer.bos_token_id
    usable = usable_tokens(model.tokenizer, model.dims.d_vocab)
    length, warnings = _length(model, inputs.length, bos, usable)
    seeds = [inputs.seed + index for index in range(inputs.samples)]
    rows = [repeated_tokens(usable, bos, length, seed) for seed in seeds]
    scores, row_errors = [], []
    for first in range(0, len(rows), ROWS_AT_ONCE):
        batch, error = _scores(model, rows[first : first + ROWS_AT_ONCE], length)
        scores.append(batch)
        row_errors.append(error)
        if on_step is not None:
            done = min(first + ROWS_AT_ONCE, len(rows))
            on_step(Step(done, len(rows), None, None, "sequences"))
    return HeadScoresResult(
        inputs=inputs,
        provenance=Provenance.of(model, seed=inputs.seed),
        length=length,
        bos=bos is not None,
        samples=np.concatenate(scores, axis=1),
        warnings=warnings,
        checks=(_rows_check(max(row_errors), model.dtype),),
        seconds=time.perf_counter() - started,
    )


def head_scores_seconds(model: LoadedModel, inputs: HeadScoresInputs) -> float | None:
    """How long a test will take, in seconds; None while the model's speed is unknown."""
    if not model.token_layers_per_second:
        return None
    tokens = inputs.samples * (1 + 2 * inputs.length)
    return tokens * model.dims.n_layers / model.token_layers_per_second


def _scores(model: LoadedModel, rows: Sequence[Sequence[int]], length: int) -> tuple[np.ndarray, float]:
    """[score, row, layer, head], and how far rows of attention are from summing to 1."""

    def keep(place: Place, pattern: Tensor) -> tuple[Tensor, Tensor]:
        total = pattern.sum(-1, dtype=torch.promote_types(pattern.dtype, torch.float32))
        return pattern_scores(pattern, length), (total - 1).abs().max().cpu()

    tokens = torch.tensor([list(row) for row in rows], dtype=torch.long)
    done: Any = run(model, tokens, capture=["pattern"], last=1, reduce=keep)
    layers = [done["pattern", layer] for layer in range(model.dims.n_layers)]
    return (
        torch.stack([scores for scores, _ in layers], dim=2).numpy(),
        max(float(error) for _, error in layers),
    )


def _length(
    model: LoadedModel, wanted: int, bos: int | None, usable: np.ndarray
) -> tuple[int, tuple[str, ...]]:
    """Tokens per copy that fit the model, and what has to be said about it."""
    config: Any = model.hf.config
    context = getattr(getattr(config, "text_config", None) or config, "max_position_embeddings", None)
    room = math.inf if not context else (context - (bos is not None)) // 2
    length = int(min(wanted, room, len(usable)))
    if length < 2:
        raise InputError(
            "Two copies of two tokens do not fit this model", why=f"it reads at most {context} tokens"
        )
    said = []
    if length < wanted:
        why = f"it reads at most {context} tokens" if room < len(usable) else "its vocabulary has no more"
        said.append(f"A copy has {length} tokens, not the {wanted} asked for: {why}.")
    if bos is None:
        said.append("This tokenizer has no BOS token: the first random token stands at position 0 instead.")
    return length, tuple(said)


def _rows_check(error: float, dtype: torch.dtype) -> Check:
    return Check(
        "rows of attention sum to 1",
        error <= ROW_TOLERANCE[dtype],
        f"Over all sequences, layers, heads and queries they are at most {error:.1e} away from it.",
    )
