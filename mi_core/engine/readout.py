"""The way from a residual vector to logits as a linear map, with the norm's scale held as it is.

A norm is N(x) = gain * (x - mean(x)) / s(x) + bias (RMS norms take no mean). With s frozen at the value that
this input has, N is affine, and the logits before the softcap are sums of what each part of the residual
stream writes:

    logit_t = sum over parts of (gain * centre(part) / s) . W_U[:, t] + bias . W_U[:, t] + b_U[t]

Gain, bias, centring and s are measured on the module itself, so no family needs code of its own; and the
result is proved on the very input, or refused. Sources: Elhage et al. 2021 (direct logit attribution);
TransformerLens' `apply_ln_to_stack` freezes the scale in the same way.

Cost: a few calls of one norm module, and d_model numbers per token and position.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mi_core.engine.unembed import unembed
from mi_core.errors import InputError, ModelError
from mi_core.model.model import LoadedModel
from mi_core.model.structure import child

TOLERANCES = {torch.float64: 1e-6, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}
"""Largest error, relative to the largest value, that rounding in a model of this dtype explains. RMS norms of
transformers compute in float32 even inside a float64 model."""

_LARGE = 1e3  # makes the norm's epsilon vanish where gains are measured


@dataclass(frozen=True, eq=False, slots=True)
class FrozenNorm:
    """A norm with its scale held at what certain inputs gave.

    Attributes:
        gain: [d_model]; Gemma's 1 + weight is already in it.
        bias: [d_model]; zeros where the norm has none.
        centred: whether the mean over d_model is taken off first.
        scale: [token] what each input was divided by.
        error: largest difference to the module's own outputs, relative to the largest output.
    """

    gain: Float[Tensor, "d_model"]
    bias: Float[Tensor, "d_model"]
    centred: bool
    scale: Float[Tensor, "token"]
    error: float

    def linear(self, x: Float[Tensor, "... token d_model"]) -> Float[Tensor, "... token d_model"]:
        """The norm's linear part: parts that add up to its input give parts that add up to output - bias."""
        x = x.to(self.gain)
        return self.gain * (x - x.mean(-1, keepdim=True) if self.centred else x) / self.scale[:, None]

    def before(self, directions: Float[Tensor, "token d_model"]) -> Float[Tensor, "token d_model"]:
        """Directions that read in front of the norm what `directions` read behind it (its bias apart).

        linear(x) . direction = x . before(direction), because taking off the mean is symmetric.
        """
        gained = self.gain * directions.to(self.gain)
        return (gained - gained.mean(-1, keepdim=True) if self.centred else gained) / self.scale[:, None]


def frozen_norm(module: nn.Module, inputs: Float[Tensor, "token d_model"]) -> FrozenNorm:
    """A norm module as an affine map at the scale that it has for these inputs.

    Args:
        module: a LayerNorm, RMSNorm or anything that acts like one of them.
        inputs: what enters it, one vector per token.

    Returns:
        The map in float64 (on the CPU where the device has no float64); its `error` says how well it
        reproduces the module in the inputs' own number format.

    Raises:
        ModelError: kind "unsupported": the module is no norm of this kind.
    """
    with torch.inference_mode():
        outputs = module(inputs)
        device = torch.device("cpu") if inputs.device.type == "mps" else inputs.device
        x, precise = inputs.to(device).double(), _precise(module, device)
        gain, bias, centred = _measure(precise, x)
        y = precise(x).double() - bias
        whole = gain * (x - x.mean(-1, keepdim=True) if centred else x)
        # Least squares for y = whole / scale; a token that is zero everywhere keeps scale 1.
        scale = (whole * whole).sum(-1) / (whole * y).sum(-1)
        scale = torch.where(torch.isfinite(scale), scale, torch.ones_like(scale))
        own = outputs.to(device).double()
        off = (whole / scale[:, None] + bias - own).abs().max() / own.abs().max().clamp_min(1e-30)
    frozen = FrozenNorm(gain, bias, centred, scale, float(off))
    if not frozen.error <= TOLERANCES.get(inputs.dtype, 1e-1):
        raise ModelError(
            f"{type(module).__name__} is not a norm that can be frozen",
            kind="unsupported",
            why=f"as gain * x / scale + bias it is {frozen.error:.1e} off",
        )
    return frozen


def _precise(module: nn.Module, device: torch.device) -> nn.Module:
    """A copy that computes in float64: in bfloat16 a measured gain would be up to 0.4 % off."""
    if any(tensor.device.type == "meta" for tensor in module.parameters()):
        raise ModelError(
            "A norm of this model cannot be read",
            kind="unsupported",
            why="its weights are not in memory",
            fix="Load without offloading",
        )
    return copy.deepcopy(module).to(device, torch.float64)


def _measure(module: nn.Module, like: Tensor) -> tuple[Tensor, Tensor, bool]:
    """Gain and bias of a norm in float64, and whether it centres: from its answers to known inputs."""
    width = like.shape[-1]
    wave = torch.ones(width, dtype=torch.float64, device=like.device)
    wave[1::2] = -1.0
    if width % 2:
        wave[-1] = 0.0
    known = wave / wave.square().mean().sqrt()  # what an RMS norm of gain 1 makes of it
    rows = torch.stack([torch.zeros_like(wave), _LARGE * wave, _LARGE * wave.roll(1), _LARGE * (wave + 1)])
    bias, first, second, shifted = module(rows).double()
    gain = (first - bias) * torch.where(known == 0, 0, 1 / known)
    if width % 2:
        gain[-1] = (second - bias)[-1] / known.roll(1)[-1]
    off = (shifted - bias - gain * known).abs().max()
    return gain, bias, bool(off <= 1e-2 * (gain * known).abs().max().clamp_min(1e-30))


def post_norm(model: LoadedModel, kind: str, layer: int) -> nn.Module | None:
    """The norm between a module's output and the stream (sandwich families); None where there is none.

    Args:
        model: the loaded model.
        kind: "attn" or "mlp".
        layer: layer index.
    """
    family = model.structure.family
    write, own = {
        "attn": (family.attention_write, family.attention),
        "mlp": (family.mlp_write, family.mlp),
    }[kind]
    last = family.output_projection if kind == "attn" else family.mlp_down
    return None if write in (own, last) else child(model.structure.blocks[layer], write)


@dataclass(frozen=True, eq=False, slots=True)
class Readout:
    """The linear map from the last residual to the logits of a few tokens, before the softcap.

    Attributes:
        directions: [pos, d_model, token] float64; `parts(x)` is their product with x.
        bias: [token] what the final norm's and the unembedding's biases add.
        logits: [pos, token] the logits before the softcap, from the map.
        softcap: c of c * tanh(logit / c), or None.
        error: largest |softcap(logits) - the model's own logits|, relative to the largest |logit| (at
            least 1).
    """

    directions: Float[Tensor, "pos d_model token"]
    bias: Float[Tensor, "token"]
    logits: Float[Tensor, "pos token"]
    softcap: float | None
    error: float

    def parts(self, x: Float[Tensor, "... pos d_model"]) -> Float[Tensor, "... pos token"]:
        """What parts of the residual stream add to the logits (before the softcap), float64."""
        return torch.einsum("...pd,pdt->...pt", x.to(self.directions), self.directions)

    def capped(self, logits: Tensor) -> Tensor:
        """Logits after the softcap, as the model returns them."""
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)


def readout(
    model: LoadedModel, final_residual: Float[Tensor, "pos d_model"], token_ids: Sequence[int]
) -> Readout:
    """The frozen map at these residual vectors, proved on them.

    Args:
        model: the loaded model.
        final_residual: `resid_post` of the last layer, at the positions that are read.
        token_ids: the logits that are wanted.

    Raises:
        InputError: a token id outside the vocabulary.
        ModelError: kind "unsupported": the map does not give the model's own logits.
        SiteMissing: this model has no final norm that can be read.
    """
    model.structure.require("final_norm", None)
    if not all(0 <= token < model.dims.d_vocab for token in token_ids):
        raise InputError(f"The vocabulary has token ids 0 to {model.dims.d_vocab - 1}")
    norm = model.structure.points["final_norm", None].module
    frozen = frozen_norm(norm, final_residual)
    columns, constant = (part.to(frozen.gain) for part in _unembedding(model, token_ids))
    gained = frozen.gain[:, None] * columns
    if frozen.centred:
        gained = gained - gained.mean(0, keepdim=True)
    directions = gained / frozen.scale[:, None, None]
    bias = frozen.bias @ columns + constant
    logits = torch.einsum("pd,pdt->pt", final_residual.to(directions), directions) + bias
    softcap = _text_config(model, "final_logit_softcapping")
    unproved = Readout(directions, bias, logits, softcap, float("nan"))
    own = unembed(model, final_residual)[:, list(token_ids)].to(logits)
    error = float((unproved.capped(logits) - own).abs().max() / own.abs().max().clamp_min(1.0))
    if not error <= 10 * TOLERANCES.get(model.dtype, 1e-1):
        raise ModelError(
            "The way to this model's logits is not linear at a frozen scale",
            kind="unsupported",
            why=f"norm and unembedding give logits that are {error:.1e} off the model's own",
        )
    return Readout(directions, bias, logits, softcap, error)


def _unembedding(model: LoadedModel, token_ids: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Columns of W_U [d_model, token] and b_U [token] with the family's logit scale; float64, CPU."""
    head = model.hf.get_output_embeddings()
    if head.weight.shape[1] != model.dims.d_model:
        raise ModelError(
            "Logits cannot be attributed in this model",
            kind="unsupported",
            why=f"its unembedding reads {head.weight.shape[1]} numbers, the stream has {model.dims.d_model}",
        )
    index = torch.tensor(list(token_ids), device=head.weight.device)
    bias = getattr(head, "bias", None)
    rows = head.weight[index].cpu().double()
    constant = torch.zeros(len(index), dtype=torch.float64) if bias is None else bias[index].cpu().double()
    # Cohere multiplies its logits, Granite divides them.
    scale = (_text_config(model, "logit_scale") or 1.0) / (_text_config(model, "logits_scaling") or 1.0)
    return scale * rows.T, scale * constant


def _text_config(model: LoadedModel, name: str) -> float | None:
    """A number of the configuration; of its language part in a multimodal model."""
    config = model.hf.config
    value = getattr(getattr(config, "text_config", None) or config, name, None)
    return None if value is None else float(value)
