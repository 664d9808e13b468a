"""Greedy continuations while features are edited.

Edits at tokens of the prompt stay as they were computed for the prompt: by causality nothing later can change
what they found. "All tokens" takes in every new token when it is read: add and suppress push the same there,
set, scale and ablate are compiled anew for it, after a look at what the encoder says of it. Frozen attention
covers the prompt only: there are no baseline patterns of what was not said.

Cost: one cached step per token; with set, scale or ablate at all tokens instead 1 + (source layers of such
edits) whole passes per token.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from mi_core.analyses.before_after_run import check_edited
from mi_core.engine import Edit, generate, run
from mi_core.engine.generate import end_tokens
from mi_core.errors import Cancelled
from mi_core.model.model import LoadedModel
from mi_core.transcoders.feature_edits import FeatureEdit
from mi_core.transcoders.feature_edits_compile import Compiled, Placed, compile_placed
from mi_core.transcoders.transcoder import Transcoder

OnToken = Callable[[int], None]


def continue_plainly(
    model: LoadedModel, token_ids: Sequence[int], steps: int, on_token: OnToken
) -> tuple[int, ...]:
    """The baseline's continuation.

    Raises:
        Cancelled: by `on_token`.
    """
    return _generated(model, token_ids, steps, (), on_token)


def continue_edited(
    model: LoadedModel,
    transcoder: Transcoder,
    token_ids: Sequence[int],
    edits: Sequence[FeatureEdit],
    compiled: Compiled,
    steps: int,
    on_token: OnToken,
) -> tuple[int, ...]:
    """The continuation under a list of edits.

    Args:
        model: the loaded model.
        transcoder: of that model.
        token_ids: the prompt.
        edits: the list.
        compiled: the same list, compiled for the prompt.
        steps: at most so many tokens.
        on_token: told how many tokens are there; may raise `Cancelled`.
    """
    growing = [(piece, edit) for piece, edit in enumerate(edits) if edit.positions is None]
    if any(edit.needs_present for _, edit in growing):
        return _step_by_step(model, transcoder, token_ids, growing, compiled, steps, on_token)
    return _generated(
        model, token_ids, steps, (*compiled.edits, *_constant(model, transcoder, growing)), on_token
    )


def _generated(
    model: LoadedModel, token_ids: Sequence[int], steps: int, edits: Sequence[Edit], on_token: OnToken
) -> tuple[int, ...]:
    # "generated": edits without positions act on new tokens; those of the prompt name their positions.
    done = generate(
        model,
        token_ids,
        steps=steps,
        edits=edits,
        where="generated",
        on_token=lambda count, _token: on_token(count),
    )
    if done.stopped == "cancelled":
        raise Cancelled
    return done.ids


def _constant(
    model: LoadedModel, transcoder: Transcoder, growing: Sequence[tuple[int, FeatureEdit]]
) -> tuple[Edit, ...]:
    """What add and suppress write at every new token."""
    placed = [Placed(piece, edit.feature.at(0), edit) for piece, edit in growing]
    if not placed:
        return ()
    # None of them depends on the model's activations, so there is nothing to run and any token will do.
    return tuple(
        replace(edit, positions=None) for edit in compile_placed(model, transcoder, (), placed).edits
    )


def _step_by_step(
    model: LoadedModel,
    transcoder: Transcoder,
    token_ids: Sequence[int],
    growing: Sequence[tuple[int, FeatureEdit]],
    compiled: Compiled,
    steps: int,
    on_token: OnToken,
) -> tuple[int, ...]:
    ids, acting, said = list(token_ids), compiled.edits, []
    ends = set(end_tokens(model))
    for step in range(steps):
        logits = run(model, torch.tensor([ids], dtype=torch.long), edits=acting, last=1).logits[0, -1]
        check_edited(logits, "a value")
        said.append(int(logits.argmax()))
        on_token(len(said))
        if said[-1] in ends or step == steps - 1:
            break
        ids.append(said[-1])
        new = [Placed(piece, edit.feature.at(len(ids) - 1), edit) for piece, edit in growing]
        acting = compile_placed(model, transcoder, ids, new, prior=acting).edits
    return tuple(said)
