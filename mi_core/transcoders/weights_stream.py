"""How what a feature writes reaches what other features read, through the residual stream.

A transcoder's rows live in the space of its hooks. What is written at `mlp_out` or `attn_out` is added to the
stream; what is read at `resid_mid` is the stream itself, at `mlp_in` the stream behind a norm. So a direction
w of that reader is the direction

    gain * w                    (for LayerNorm with its mean taken off)

of the stream, at scale 1 of the norm. Within a block the order is resid_pre, attn_out, resid_mid (and the
MLP's input), mlp_out, resid_post: what is written is in what is read later, and not before.
Cost: one forward pass over a few tokens where a norm stands in front of the reader, otherwise nothing.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mi_core.analyses.circuit_gains import Gain, gain_of
from mi_core.engine import observe
from mi_core.errors import ModelError
from mi_core.model.model import LoadedModel
from mi_core.transcoders.transcoder import Transcoder

_ORDER = {"resid_pre": 0, "attn_out": 1, "resid_mid": 2, "mlp_in": 2, "mlp_out": 3, "resid_post": 4}
_STREAM = ("resid_pre", "resid_mid", "mlp_in", "resid_post")
_PROBE = 6  # tokens on which the norm in front of the MLP is found


def reads_stream(transcoder: Transcoder) -> bool:
    """Whether the features read the stream, and not only what one module wrote."""
    return transcoder.reads.site in _STREAM


def sees(transcoder: Transcoder, written: int, reading: int) -> bool:
    """Whether what is written at layer `written` is part of what features of layer `reading` read."""
    if not reads_stream(transcoder):
        return False
    after = (reading, _ORDER[transcoder.reads.site])
    return after > (written, _ORDER.get(transcoder.writes.site, 4))


def reader_gain(model: LoadedModel, transcoder: Transcoder, layer: int) -> Gain | None:
    """The norm between the stream and the features of a layer, at scale 1; None where there is none.

    Raises:
        ModelError: kind "unsupported": the norm was not found.
        SiteMissing: the model does not have the site that the transcoder reads.
    """
    hook = transcoder.reads
    if hook.site != "mlp_in" and not hook.normalised:
        return None
    norm = _mlp_norm(model, layer)
    if norm is None or not hook.normalised:
        return norm
    return Gain(torch.ones_like(norm.vector), norm.centred)


def as_read(gain: Gain | None, stream: Float[Tensor, "n d_model"]) -> Float[Tensor, "n d_model"]:
    """Directions of the stream as the features of a layer see them: behind the norm at scale 1."""
    return stream if gain is None else gain.after(stream.to(gain.vector)).to(stream)


def _mlp_norm(model: LoadedModel, layer: int) -> Gain | None:
    """The norm that makes the MLP's input of the stream; None when that is the stream itself."""
    stream_site = "resid_pre" if "resid_mid" in model.structure.missing else "resid_mid"
    seen = observe(model, [n % model.dims.d_vocab for n in range(3, 3 + _PROBE)], (stream_site, "mlp_in"))
    stream, entering = seen[stream_site, layer], seen["mlp_in", layer]
    if torch.equal(stream, entering):
        return None
    with model.lock:
        for module in model.structure.blocks[layer].children():
            if _is_norm(module) and torch.allclose(module(stream), entering, rtol=1e-2, atol=1e-3):
                return gain_of(module, model.dims.d_model, stream)
    raise ModelError(
        f"The norm in front of the MLP of layer {layer} was not found",
        kind="unsupported",
        why="no norm of the block gives the MLP's input from the stream",
    )


def _is_norm(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    return isinstance(weight, Tensor) and weight.dim() == 1 and not list(module.children())
