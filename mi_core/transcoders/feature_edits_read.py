"""What the encoders see and say while edits act: the activations that an edit finds."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mi_core.engine import Edit, Run, run
from mi_core.model.model import LoadedModel
from mi_core.transcoders.encode import encode_layer, read_values, without_gain
from mi_core.transcoders.names import FeatureAt
from mi_core.transcoders.transcoder import Transcoder

TOKENS_AT_ONCE = 256


def found_activations(
    model: LoadedModel,
    transcoder: Transcoder,
    token_ids: Sequence[int],
    layer: int,
    at: Sequence[FeatureAt],
    edits: Sequence[Edit] = (),
) -> Float[np.ndarray, " n"]:
    """Activations of features of one layer at some tokens while edits act; the encoder's own, at any token.

    Args:
        model: the loaded model.
        transcoder: of that model.
        token_ids: the prompt.
        layer: source layer of all of them.
        at: features and tokens.
        edits: engine edits; () = the baseline.
    """
    if edits:
        read = read_with_edits(model, transcoder, token_ids, (layer,), edits)[layer]
    else:
        read = read_values(model, transcoder, token_ids)[transcoder.layers.index(layer)]
    return activations_at(transcoder, layer, read, at)


def activations_at(
    transcoder: Transcoder, layer: int, read: Float[Tensor, "pos d_model"], at: Sequence[FeatureAt]
) -> Float[np.ndarray, " n"]:
    """What the encoder of a layer says of some of its features at some tokens.

    Args:
        transcoder: whose encoder.
        layer: source layer of all of them.
        read: what the encoder sees.
        at: features and tokens.
    """
    positions = sorted({one.position for one in at})
    values: dict[FeatureAt, float] = {}
    for start in range(0, len(positions), TOKENS_AT_ONCE):
        part = positions[start : start + TOKENS_AT_ONCE]
        dense = encode_layer(transcoder, layer, read[part])
        row_of = {position: row for row, position in enumerate(part)}
        values |= {one: float(dense[row_of[one.position], one.index]) for one in at if one.position in row_of}
    return np.array([values[one] for one in at])


def read_with_edits(
    model: LoadedModel,
    transcoder: Transcoder,
    token_ids: Sequence[int],
    layers: Sequence[int],
    edits: Sequence[Edit],
) -> dict[int, Float[Tensor, "pos d_model"]]:
    """What the encoders of some layers see while edits act: before the edits at that very place, float32."""
    site = transcoder.reads.site
    wanted = (site, "mlp_in") if transcoder.reads.normalised else (site,)
    done = run(
        model,
        torch.tensor([list(token_ids)], dtype=torch.long),
        capture=[(name, layer) for name in wanted for layer in layers],
        edits=edits,
        before_edits=True,
        last=1,
    )
    return {layer: read_of(model, transcoder, done, layer) for layer in layers}


def read_of(
    model: LoadedModel, transcoder: Transcoder, done: Run, layer: int
) -> Float[Tensor, "pos d_model"]:
    """What the encoder of a layer sees, from a pass that captured its site (and `mlp_in`, see `Hook`)."""
    value = done[transcoder.reads.site, layer][0]
    if transcoder.reads.normalised:
        value = without_gain(model, layer, value, done["mlp_in", layer][0])
    return value.to(transcoder.device, torch.float32)
