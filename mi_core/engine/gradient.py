"""Values and gradients of a score at places inside the model: one forward and one backward pass.

    gradients[place] = d score / d value[place]

A zero is added at every place by an ordinary edit, and the score is differentiated by these zeros; so
whatever the engine can edit can be differentiated, and the forward pass is unchanged. Memory: the activations
of one pass, kept for the backward one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mi_core.engine.edits import Edit, normalise
from mi_core.engine.layout import dense_layout
from mi_core.engine.place import Place, Placed
from mi_core.engine.run import check_fired, check_tokens, forward, memory_errors
from mi_core.engine.session import Session
from mi_core.model.model import LoadedModel


@dataclass(frozen=True, eq=False, slots=True)
class Gradients:
    """What one forward and backward pass gave.

    Attributes:
        score: what was differentiated.
        logits: [row, pos, d_vocab].
        values: the value at every place after the edits, [row, pos, ...].
        gradients: d score / d value, of the same shapes.
    """

    score: float
    logits: Float[Tensor, "row pos d_vocab"]
    values: dict[Place, Tensor]
    gradients: dict[Place, Tensor]


def gradients(
    model: LoadedModel,
    tokens: Int[Tensor, "row pos"],
    score: Callable[[Float[Tensor, "row pos d_vocab"]], Float[Tensor, ""]],
    places: Sequence[Place],
    *,
    edits: Sequence[Edit] = (),
) -> Gradients:
    """Differentiate a score by the activations at some places.

    Args:
        model: the loaded model.
        tokens: token ids; rows do not see each other, so a sum over rows gives every row its own gradient.
        score: a scalar made of the logits.
        places: (site, layer) pairs; sites with a token axis.
        edits: the run that is differentiated, for example noise at `embed`.

    Raises:
        SiteMissing, EditError: a place or an edit does not fit the model.
        OutOfMemory: the device is too small to keep the pass.
    """
    n_rows, n_pos = check_tokens(model, tokens)
    for name, layer in places:
        model.structure.require(name, layer)
    fixed = [normalise(edit, model.structure, n_pos) for edit in edits]
    zeros = {
        place: torch.zeros(
            n_rows, *model.structure.shape(place[0], n_pos), dtype=model.dtype, requires_grad=True
        )
        for place in places
    }
    probes = [
        normalise(Edit(site, layer, "add", value=zero), model.structure, n_pos)
        for (site, layer), zero in zeros.items()
    ]
    placed = [Placed(edit, 0, n_rows) for edit in [*fixed, *probes]]
    session = Session(model, dense_layout(n_rows, n_pos), placed, places)
    with torch.inference_mode(False), torch.enable_grad(), memory_errors(model), session:
        logits = forward(session, tokens.clone())
        value = score(logits)
        found = torch.autograd.grad(value, list(zeros.values()), allow_unused=True)
    check_fired(session, fixed)
    values = {place: session.captured[place].detach().reshape(zero.shape) for place, zero in zeros.items()}
    return Gradients(
        float(value.detach()),
        logits.detach(),
        values,
        {
            place: torch.zeros_like(values[place]) if gradient is None else gradient.to(values[place].device)
            for place, gradient in zip(zeros, found, strict=True)
        },
    )
