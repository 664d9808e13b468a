"""The gains of a model's norms, measured on the modules, and how they go into the weights beside them.

    norm before a matrix:   W <- centre_rows(gain[:, None] * W)
    norm behind a matrix:   W <- centre_columns(W) * gain

Centring is LayerNorm's; RMS norms have none. The scale of a norm, one number per token, is no part of this.
Cost: a few calls of a norm module.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mi_core.engine import frozen_norm
from mi_core.model.model import LoadedModel


@dataclass(frozen=True, slots=True, eq=False)
class Gain:
    """The linear part of a norm at scale 1.

    Attributes:
        vector: [width] float64; Gemma's 1 + weight is already in it.
        centred: whether the mean is taken off first.
    """

    vector: Float[Tensor, "width"]
    centred: bool

    def before(self, matrix: Float[Tensor, "*head width n"]) -> Float[Tensor, "*head width n"]:
        """A matrix that reads the norm's output, as one that reads its input."""
        scaled = self.vector[:, None] * matrix
        return scaled - scaled.mean(-2, keepdim=True) if self.centred else scaled

    def after(self, matrix: Float[Tensor, "*head n width"]) -> Float[Tensor, "*head n width"]:
        """A matrix whose output enters the norm, as one that gives the norm's output."""
        centred = matrix - matrix.mean(-1, keepdim=True) if self.centred else matrix
        return centred * self.vector


def wide(tensor: Tensor) -> Tensor:
    """The tensor in float64, on its own device where that has float64."""
    device = "cpu" if tensor.device.type == "mps" else tensor.device
    return tensor.detach().to(device, torch.float64)


def gain_of(module: nn.Module, width: int, like: Tensor) -> Gain:
    """Measure a norm module.

    Args:
        module: the norm.
        width: length of the vectors that it takes.
        like: a tensor of the model's dtype and device.

    Raises:
        ModelError: it is no norm of the kind gain * x / scale + bias.
    """
    noise = torch.randn(4, width, generator=torch.Generator().manual_seed(0))
    measured = frozen_norm(module, noise.to(like.device, like.dtype))
    return Gain(wide(measured.gain), measured.centred)


def final_gain(model: LoadedModel) -> Gain:
    """The final norm's gain.

    Raises:
        SiteMissing: this model has no final norm that can be read.
    """
    model.structure.require("final_norm", None)
    module = model.structure.points["final_norm", None].module
    like = next(module.parameters(), next(model.hf.parameters()))
    with model.lock:
        return gain_of(module, model.dims.d_model, like)


def after_head_norm(
    module: nn.Module, weights: Float[Tensor, "head d_model d_head"], *, like: Tensor
) -> Float[Tensor, "head d_model d_head"]:
    """Weights of queries or keys with the gain of the norm that follows, per head or over all heads."""
    heads, _, d_head = weights.shape
    if norm_width(module, d_head) == d_head:
        return gain_of(module, d_head, like).after(weights)
    flat = weights.transpose(0, 1).flatten(1)
    folded = gain_of(module, heads * d_head, like).after(flat)
    return folded.unflatten(1, (heads, d_head)).transpose(0, 1)


def norm_width(module: nn.Module, d_head: int) -> int:
    """Length of the vectors that a norm of queries or keys takes: d_head, or all heads together."""
    parameter = next(module.parameters(), None)
    return d_head if parameter is None else parameter.numel()
