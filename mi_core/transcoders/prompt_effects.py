"""The linear effect of every active feature of a prompt on a score, from one backward pass.

    effect of feature s at token p = a_s[p] * sum over target layers m of  W_dec[s, m] . d score / d y_m[p]

y_m is the value at the site that the transcoder writes (the MLP's output). It is what the score would lose,
to first order, if the feature's contribution were taken off; everything after it answers (attention, norms,
later MLPs). It is no direct effect: those hold attention and norms fixed (`linear`).
Source: attribution patching, Nanda 2023; Syed et al. 2023 (arXiv 2310.10348).
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from mi_core.transcoders.encode import ActiveFeatures
from mi_core.transcoders.transcoder import CHUNK_BYTES, Transcoder


def feature_effects(
    transcoder: Transcoder, active: ActiveFeatures, slopes: Mapping[int, Float[Tensor, "pos d_model"]]
) -> Float[Tensor, " n"]:
    """The effect of every active feature, in the order of `active`.

    Args:
        transcoder: whose features they are.
        active: the features.
        slopes: target layer -> d score / d what is written there.

    Returns:
        float64 in the score's unit, on the transcoder's device (on the CPU where that has no float64).

    Raises:
        TranscoderError: kind "no_decoder", when only the encoders are here.
    """
    precise = torch.device("cpu") if transcoder.device.type == "mps" else transcoder.device
    effects = torch.zeros(len(active), dtype=torch.float64, device=precise)
    for layer in transcoder.layers:
        part = active.of_layer(layer)
        if part.start == part.stop:
            continue
        targets = transcoder.targets(layer)
        slope = torch.stack([slopes[target].to(precise, torch.float64) for target in targets])
        indices, inverse = active.feature[part].unique(return_inverse=True)
        dots = _dots(transcoder, layer, indices, slope)
        positions = active.position[part].to(precise)
        effects[part] = active.activation[part].to(precise).double() * dots[inverse.to(precise), positions]
    return effects


def _dots(
    transcoder: Transcoder, layer: int, indices: Tensor, slope: Float[Tensor, "target pos d_model"]
) -> Float[Tensor, "feature pos"]:
    """Decoder rows times slopes, summed over target layers; only some rows are in memory at once."""
    at_once = max(1, CHUNK_BYTES // (8 * transcoder.d_model * len(slope)))
    parts = [
        torch.einsum("ftd,tpd->fp", transcoder.rows(layer, some).to(slope), slope)
        for some in indices.split(at_once)
    ]
    return torch.cat(parts)
