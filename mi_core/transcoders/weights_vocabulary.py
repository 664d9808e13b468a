"""Directions read through the vocabulary: the words at both ends, and the shape of the whole.

    written:   effect_t = (gain * centre(row)) . W_U[:, t]  -  mean over the vocabulary
    read:      W_E[t] . (reader's direction of the stream)

The final norm has scale 1 here: at a token where its scale is s, one unit of activation adds effect / s to
the logit. The mean over the vocabulary is taken off because softmax does not see it. Neither what later
layers make of the words nor softcaps are in it.
Sources: Dar et al. 2023 (arXiv 2209.02535); Lindsey et al. 2025 (the frozen norm).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mi_core.analyses.causal_trace_parts import Check
from mi_core.engine import readout
from mi_core.engine.readout import TOLERANCES
from mi_core.errors import LanternError
from mi_core.model.model import LoadedModel
from mi_core.tokens import visible_token

NO_TEXT = "⟨id {}⟩"


@dataclass(frozen=True, slots=True, eq=False)
class Ends:
    """The words at both ends of some directions.

    Attributes:
        ids: token ids; end 0 has the largest readings, end 1 the smallest, each from the outside in.
        values: their readings.
    """

    ids: Int[np.ndarray, "direction end token"]
    values: Float[np.ndarray, "direction end token"]


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """The shape of readings over the vocabulary.

    Attributes:
        mean: of every direction.
        deviation: standard deviation.
        skew: third standardised moment; above 0 = a few words are promoted much more than the rest.
        kurtosis: fourth standardised moment minus 3; 0 = as a normal distribution, large = few words.
    """

    mean: Float[np.ndarray, "direction"]
    deviation: Float[np.ndarray, "direction"]
    skew: Float[np.ndarray, "direction"]
    kurtosis: Float[np.ndarray, "direction"]


def ends_of(readings: Float[Tensor, "d_vocab direction"], count: int) -> Ends:
    """The words with the largest and the smallest readings."""
    count = min(count, len(readings))
    high, low = readings.topk(count, dim=0), readings.topk(count, dim=0, largest=False)
    ids = torch.stack([high.indices.T, low.indices.T], 1)
    values = torch.stack([high.values.T, low.values.T], 1)
    return Ends(ids.numpy().astype(np.int64), values.numpy())


def moments_of(readings: Float[Tensor, "d_vocab direction"]) -> Moments:
    """Mean, deviation, skew and kurtosis over the vocabulary; zeros for readings that are all equal."""
    mean = readings.mean(0)
    off = readings - mean
    deviation = off.square().mean(0).sqrt()
    flat = deviation <= 1e-12 * readings.abs().amax(0).clamp_min(1e-30)
    unit = torch.where(flat, torch.zeros_like(off), off / deviation.clamp_min(1e-300))
    skew, fourth = unit.pow(3).mean(0), unit.pow(4).mean(0)
    kurtosis = torch.where(flat, torch.zeros_like(fourth), fourth - 3)
    return Moments(mean.numpy(), deviation.numpy(), skew.numpy(), kurtosis.numpy())


def visible_of(model: LoadedModel) -> Callable[[int], str]:
    """Visible text of a token id; its number where the model has no tokenizer."""
    if model.tokenizer is None:
        return NO_TEXT.format
    return lambda token: visible_token(model.tokenizer, token)


def proved(
    model: LoadedModel,
    row: Float[Tensor, "d_model"],
    token_ids: list[int],
    effects: Float[Tensor, "token"],
) -> Check | None:
    """Compare effects at scale 1 with the model's own way from a residual vector to its logits.

    The row itself is taken for the residual vector; there the frozen map is proved by the engine, and must
    be the effects up to one positive factor (scale of the norm, logit scale).

    Args:
        model: the loaded model.
        row: what is written.
        token_ids: the tokens.
        effects: what was computed for them from the weights, before the mean is taken off.

    Returns:
        The check; None for a row of zeros, or where the engine cannot freeze this model's way to its logits.
    """
    length = float(row.norm())
    if not length > 0 or not float(effects.abs().max()) > 0:
        return None
    residual = (row * (model.dims.d_model**0.5 / length)).to(model.device, model.dtype)[None]
    try:
        way = readout(model, residual, token_ids)
    except LanternError:
        return None
    parts = way.parts(row[None].to(way.directions))[0].cpu()
    factor = float((parts @ effects) / (effects @ effects))
    off = float((parts - factor * effects).abs().max() / parts.abs().max().clamp_min(1e-300))
    return Check(
        "the model's own output gives the same words",
        factor > 0 and off <= 10 * TOLERANCES.get(model.dtype, 1e-1),
        f"With this row as the only residual vector, the model's logits are these effects times "
        f"{factor:.4g}, to {off:.1e} of the largest.",
    )
