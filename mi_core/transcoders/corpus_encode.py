"""Activations of all features at the tokens of a batch of rows, layer by layer.

The same numbers as `encode.active_features` gives for one prompt; here many rows go through the model at once
and nothing is remembered. Cost: one forward pass, then 2 tokens x features x d_model operations per layer.
"""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from mi_core.engine import run
from mi_core.model.model import LoadedModel
from mi_core.transcoders.corpus_text import Row
from mi_core.transcoders.encode import encode_layer, without_gain
from mi_core.transcoders.transcoder import Transcoder

BATCH_TOKENS = 1024
_DENSE_BYTES = 256_000_000


def tokens_at_once(transcoder: Transcoder) -> int:
    """Tokens per batch, so that the activations of a layer stay below 256 MB."""
    widest = max(transcoder.n_features.values(), default=1)
    return max(1, min(BATCH_TOKENS, _DENSE_BYTES // (4 * widest)))


def layer_activations(
    model: LoadedModel, transcoder: Transcoder, batch: Sequence[Row]
) -> Iterator[tuple[int, Float[Tensor, "token feature"]]]:
    """(layer, activations at the counted tokens of all rows, one row after another), dense.

    Args:
        model: the loaded model.
        transcoder: of that model.
        batch: rows of equal length and equal first counted position.

    Raises:
        SiteMissing: the model does not have the site that the transcoder reads.
    """
    hook, first = transcoder.reads, batch[0].first
    sites = (hook.site, "mlp_in") if hook.normalised else (hook.site,)
    places = [(site, layer) for layer in transcoder.layers for site in sites]
    seen = run(model, torch.tensor([row.ids for row in batch]), capture=places, last=1)
    with torch.inference_mode():
        for layer in transcoder.layers:
            value = seen[hook.site, layer]
            if hook.normalised:
                flat = without_gain(model, layer, value.flatten(0, 1), seen["mlp_in", layer].flatten(0, 1))
                value = flat.view(value.shape)
            read = value[:, first:].flatten(0, 1).to(transcoder.device, torch.float32)
            yield layer, encode_layer(transcoder, layer, read)
