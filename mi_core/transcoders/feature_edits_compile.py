"""Edits of features compiled to engine edits, at the places where the transcoder writes.

    delta_m[t] = sum over the edited features f at token t of (new_f - present_f) * W_dec_f,m
    edit:      y_m[t] -> y_m[t] + delta_m[t]        for every layer m that one of them writes to

`present_f` is what the encoder says once the edits of all earlier layers act: what is set to 3 is at 3 in the
run itself, whatever was done before it. With everything frozen no activation can answer to another one, so
it is the baseline's. Frozen attention is an edit too: the baseline's patterns are put in place.

Cost: one pass per source layer, after the first one, of the edits whose size depends on the activation (set,
scale, ablate), none for the others; only the decoder rows of the edited features are read.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mi_core.engine import Edit, observe
from mi_core.model.model import LoadedModel
from mi_core.transcoders.feature_edits import FeatureEdit
from mi_core.transcoders.feature_edits_place import Placed, place
from mi_core.transcoders.feature_edits_read import found_activations
from mi_core.transcoders.names import FeatureAt
from mi_core.transcoders.transcoder import Transcoder

Frozen = Literal["nothing", "attention", "everything"]
"""What keeps its baseline value: nothing; attention patterns; patterns, norm scales and MLP outputs."""


@dataclass(frozen=True, slots=True, eq=False)
class Compiled:
    """A list of edits of features, as the engine takes it.

    Attributes:
        edits: engine edits: frozen patterns first, then one edit per layer that is written to.
        placed: [n] the edited features at their tokens, by layer, then in the order of the list.
        present: [n] activation that each edit finds; NaN where it does not depend on it (add, suppress).
        size: [n] how many decoder rows are added: new - present.
        positions: [pos] the edited tokens, ascending.
        deltas: target layer -> [pos, d_model] float32, what is added there.
    """

    edits: tuple[Edit, ...]
    placed: tuple[Placed, ...]
    present: Float[np.ndarray, " n"]
    size: Float[np.ndarray, " n"]
    positions: tuple[int, ...]
    deltas: dict[int, Float[Tensor, "pos d_model"]]


def compile_feature_edits(
    model: LoadedModel,
    transcoder: Transcoder,
    token_ids: Sequence[int],
    edits: Sequence[FeatureEdit],
    *,
    frozen: Frozen = "nothing",
    show_bos: bool = False,
) -> Compiled:
    """What a list of edits writes on one prompt.

    Args:
        model: the loaded model.
        transcoder: of that model.
        token_ids: the prompt.
        edits: in any order; the result does not depend on it.
        frozen: what keeps its baseline value. With "everything" take `deltas` to `FrozenPass.push`: no engine
            edit holds a norm's scale.
        show_bos: whether "all tokens" are the leading special ones, too.

    Raises:
        InputError: an edit does not fit the transcoder, the prompt or another edit.
        TranscoderError: kind "no_decoder", when only the encoders are here.
        SiteMissing: the model does not have a site that is needed.
    """
    placed = place(model, transcoder, token_ids, edits, show_bos=show_bos)
    pinned = tuple(frozen_attention(model, token_ids)) if frozen == "attention" and placed else ()
    return compile_placed(model, transcoder, token_ids, placed, prior=pinned, answers=frozen != "everything")


def compile_placed(
    model: LoadedModel,
    transcoder: Transcoder,
    token_ids: Sequence[int],
    placed: Sequence[Placed],
    *,
    prior: Sequence[Edit] = (),
    answers: bool = True,
) -> Compiled:
    """What edited features at their tokens write.

    Args:
        model: the loaded model.
        transcoder: of that model.
        token_ids: the tokens, at least up to the last edited one.
        placed: see `place`.
        prior: engine edits that act already; they come first in the result.
        answers: whether an activation answers to the edits of earlier layers and to `prior`; else it is the
            baseline's.
    """
    placed = tuple(sorted(placed, key=lambda one: (one.at.layer, one.piece, one.at.position)))
    positions = tuple(sorted({one.at.position for one in placed}))
    present, size = np.full(len(placed), np.nan), np.zeros(len(placed))
    deltas: dict[int, Tensor] = {}
    by_layer: dict[int, list[int]] = defaultdict(list)
    for index, one in enumerate(placed):
        by_layer[one.at.layer].append(index)
    for layer, members in sorted(by_layer.items()):
        asking = [index for index in members if placed[index].edit.needs_present]
        if asking:
            acting = (*prior, *_edits(transcoder, positions, deltas)) if answers else ()
            at = [placed[index].at for index in asking]
            present[asking] = found_activations(model, transcoder, token_ids, layer, at, acting)
        for index in members:
            before = present[index] if placed[index].edit.needs_present else 0.0
            size[index] = placed[index].edit.new_activation(before) - before
        _write(transcoder, layer, [(placed[i].at, size[i]) for i in members], positions, deltas)
    return Compiled(
        (*prior, *_edits(transcoder, positions, deltas)), placed, present, size, positions, deltas
    )


def frozen_attention(model: LoadedModel, token_ids: Sequence[int]) -> list[Edit]:
    """Edits that put the baseline's attention patterns in place, in every layer that has one.

    Raises:
        SiteMissing: the model's patterns cannot be seen.
    """
    model.structure.require("pattern", 0)
    seen = observe(model, token_ids, ("pattern",))
    every = tuple(range(len(token_ids)))
    return [
        Edit("pattern", layer, "set", every, keys=every, value=seen["pattern", layer])
        for layer in model.structure.layers_of("pattern")
    ]


def _write(
    transcoder: Transcoder,
    layer: int,
    sizes: Sequence[tuple[FeatureAt, float]],
    positions: tuple[int, ...],
    deltas: dict[int, Tensor],
) -> None:
    """Adds what the edited features of one layer write; every decoder row is read once."""
    indices = sorted({at.index for at, _ in sizes})
    column_of = {index: column for column, index in enumerate(indices)}
    row_of = {position: row for row, position in enumerate(positions)}
    rows = transcoder.rows(layer, torch.tensor(indices, dtype=torch.long))
    weights = np.zeros((len(positions), len(indices)), np.float32)
    for at, size in sizes:
        weights[row_of[at.position], column_of[at.index]] += size
    factors = torch.from_numpy(weights).to(rows.device)
    for order, target in enumerate(transcoder.targets(layer)):
        written = factors @ rows[:, order]
        deltas[target] = deltas[target] + written if target in deltas else written


def _edits(transcoder: Transcoder, positions: tuple[int, ...], deltas: dict[int, Tensor]) -> tuple[Edit, ...]:
    site = transcoder.writes.site
    return tuple(
        Edit(site, target, "add", positions, value=delta) for target, delta in sorted(deltas.items())
    )
