"""Greedy continuations while features are edited.

Edits at tokens of the prompt stay as they were computed for the prompt: by causality nothing later can change
what they found. "All tokens" takes in every new token when it is read (`feature_edits_growing`). Frozen
attention covers the prompt only: there are no baseline patterns of what was not said.

Cost: one cached step per token, and with set, scale or ablate at all tokens a whole pass for each of their
source layers.
"""

from collections.abc import Callable, Sequence

from mi_core.engine import Edit, generate
from mi_core.errors import Cancelled
from mi_core.model.model import LoadedModel
from mi_core.transcoders.feature_edits import FeatureEdit
from mi_core.transcoders.feature_edits_compile import Compiled
from mi_core.transcoders.feature_edits_growing import GrowingFeatureEdits
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
    ids, growing = list(token_ids), [edit for edit in edits if edit.positions is None]
    if not growing:
        return _generated(model, ids, steps, compiled.edits, on_token)
    new = GrowingFeatureEdits(model, transcoder, growing, len(ids), prior=compiled.edits)
    return _generated(model, ids, steps, (), on_token, new)


def _generated(
    model: LoadedModel,
    token_ids: Sequence[int],
    steps: int,
    edits: Sequence[Edit],
    on_token: OnToken,
    growing: GrowingFeatureEdits | None = None,
) -> tuple[int, ...]:
    done = generate(
        model,
        token_ids,
        steps=steps,
        edits=edits,
        where="generated",  # edits of the prompt name their positions
        on_token=lambda count, _token: on_token(count),
        growing=growing,
    )
    if done.stopped == "cancelled":
        raise Cancelled
    return done.ids
