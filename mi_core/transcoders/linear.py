"""Hold a prompt's attention patterns and norm scales: `frozen_pass(model, token_ids) -> FrozenPass`.

Weights and norms are read from the model and proved on the prompt itself: what they give as attention output,
MLP input and logit must be the model's own, or the model is refused. The map is described in `linear_pass`.

Cost: the shared forward pass, one evaluation of every norm and of every attention layer.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from mi_core.engine import Observation, frozen_norm, observe, readout
from mi_core.errors import ModelError, TranscoderError
from mi_core.model.model import LoadedModel
from mi_core.transcoders.linear_parts import IDENTITY, Affine, frozen_attention, norm_between, relative
from mi_core.transcoders.linear_pass import FrozenPass, Pushed
from mi_core.transcoders.transcoder import Transcoder

__all__ = ["FrozenPass", "Pushed", "check_hooks", "frozen_pass"]

SITES = ("embed", "pattern", "v", "attn_out", "mlp_out", "resid_post")
READABLE = ("resid_mid", "mlp_in", "resid_pre")


def frozen_pass(
    model: LoadedModel, token_ids: Sequence[int], transcoder: Transcoder | None = None
) -> FrozenPass:
    """Hold a prompt's attention patterns and norm scales.

    Args:
        model: the loaded model.
        token_ids: the prompt.
        transcoder: whose encoders are to be read and whose skips stay linear; None = no features.

    Raises:
        SiteMissing: the model lacks a site that this needs, with the reason.
        ModelError: kind "unsupported": its attention, or the way to its logits, is not what its weights say.
        TranscoderError: kind "unsupported": the transcoder reads or writes elsewhere than at the MLPs.
    """
    if transcoder is not None:
        check_hooks(model, transcoder)
    sites = [*SITES, *({"mlp_in", transcoder.reads.site} if transcoder is not None else ())]
    seen = observe(model, token_ids, sites)
    dtype, device = torch.promote_types(model.dtype, torch.float32), model.device
    n_layers = model.dims.n_layers
    with model.lock, torch.inference_mode():  # norms are called: nobody else's hooks may be on them
        attention = tuple(frozen_attention(model, seen, layer, dtype) for layer in range(n_layers))
        norm = model.structure.points["final_norm", None].module
        last = seen["resid_post", n_layers - 1]
        final = Affine.of(frozen_norm(norm, last), dtype, device)
        made = FrozenPass(
            model=model,
            tokens=tuple(int(token) for token in token_ids),
            attention=attention,
            parallel=model.structure.parallel,
            embed=seen["embed", None].to(device, dtype),
            mlp_out=tuple(seen["mlp_out", layer].to(device, dtype) for layer in range(n_layers)),
            final=final,
            logit_factor=1.0,
            reads={} if transcoder is None else _reads(model, transcoder, seen, dtype),
            read_site="resid_pre" if _reads_before(model, transcoder) else "resid_mid",
            skips={} if transcoder is None else _skips(transcoder, dtype),
            dtype=dtype,
        )
        made.logit_factor = _logit_factor(made, last)
    return made


def check_hooks(model: LoadedModel, transcoder: Transcoder) -> None:
    """Refuse transcoders that do not stand for MLPs, or are of another width.

    Raises:
        TranscoderError: kind "unsupported" or "mismatch".
        SiteMissing: the model has no such site.
    """
    for hook, allowed in ((transcoder.reads, READABLE), (transcoder.writes, ("mlp_out",))):
        if hook.site not in allowed:
            raise TranscoderError(
                f"A transcoder that reads {transcoder.reads.text} and writes {transcoder.writes.text} has no "
                "attribution graph here",
                kind="unsupported",
                why="the graph replaces MLPs: from the stream in front of them to what they add",
            )
        model.structure.require(hook.site, 0)
    if transcoder.d_model != model.dims.d_model or max(transcoder.layers, default=0) >= model.dims.n_layers:
        raise TranscoderError(
            f"{transcoder.name} is not a transcoder of this model",
            kind="mismatch",
            why=f"it is {transcoder.d_model} wide for {transcoder.n_layers} layers, the model is "
            f"{model.dims.d_model} wide with {model.dims.n_layers}",
        )


def _reads_before(model: LoadedModel, transcoder: Transcoder | None) -> bool:
    """Whether encoders read the stream before the block: parallel blocks have no other."""
    return model.structure.parallel or (transcoder is not None and transcoder.reads.site == "resid_pre")


def _reads(
    model: LoadedModel, transcoder: Transcoder, seen: Observation, dtype: torch.dtype
) -> dict[int, Affine]:
    """The way from the stream to what the encoders see, proved on what the MLPs received."""
    hook, found = transcoder.reads, {}
    for layer in transcoder.layers:
        if hook.site != "mlp_in" and not hook.normalised:
            found[layer] = IDENTITY
            continue
        stream = seen["resid_pre" if model.structure.parallel else "resid_mid", layer]
        wanted = seen["mlp_in", layer]
        norm = norm_between(model.structure.blocks[layer], stream, wanted, lambda entered: entered)
        told = wide = IDENTITY
        if norm is not None:
            frozen = frozen_norm(norm, stream)
            wide = Affine.of(frozen, dtype, model.device)
            told = Affine.of(frozen, dtype, model.device, gain=False) if hook.normalised else wide
        found[layer] = told
        off = relative(wide.whole(stream.to(model.device, dtype)), wanted.to(model.device, dtype))
        if off > {torch.float64: 1e-4, torch.float32: 1e-3}.get(model.dtype, 0.2):
            raise ModelError(
                f"What the MLP of layer {layer} reads is no norm of the stream",
                kind="unsupported",
                why=f"the nearest norm of its block is {off:.1e} off",
            )
    return found


def _skips(transcoder: Transcoder, dtype: torch.dtype) -> dict[int, Tensor]:
    """The skip matrices M of read @ M, one per layer that has one."""
    unit = torch.eye(transcoder.d_model, device=transcoder.device)
    found = {layer: transcoder.skip(layer, unit) for layer in transcoder.layers}
    return {layer: matrix.to(dtype) for layer, matrix in found.items() if matrix is not None}


def _logit_factor(made: FrozenPass, last: Float[Tensor, "pos d_model"]) -> float:
    """What the family multiplies its logits with, from the map that `readout` proves on this very input."""
    token = [int(made.tokens[-1])]
    proved = readout(made.model, last[-1:], token).directions[0, :, 0].to(made.embed)
    own = made.logit_gradient(token, len(last) - 1)[0]
    return float((proved @ own) / (own @ own).clamp_min(1e-30))
