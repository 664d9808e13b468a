"""What attention moves, not only where it looks: value-weighted norms, and contributions to a logit.

With A the pattern of head h, v_k the values (of the head's key/value group) and W_O the head's rows of the
output projection:

    value-weighted      || A[q, k] v_k W_O ||  =  A[q, k] || v_k W_O ||
    contribution        A[q, k] (v_k W_O) . d_q

d_q is the direction in which the stream at query q is read as the target's logit, with the final norm's scale
frozen at q (`mi_core.engine.readout`). Families that norm the attention's output once more (sandwich norms)
have that norm frozen into d_q too; the value-weighted norm is taken before it. The output bias belongs to no
head. Over keys the contributions add up to the head's direct contribution (Elhage et al. 2021); the norm is
Kobayashi et al. 2020's.

Cost per layer: two products of size head * query * key * d_head; no [query, key, d_model] ever exists.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from mi_core.engine import frozen_norm, post_norm
from mi_core.errors import SiteMissing
from mi_core.model.model import LoadedModel
from mi_core.model.weights import weight


def moved_norms(
    values: Float[Tensor, "key kv_head d_head"], w_o: Float[Tensor, "head d_head d_model"]
) -> Float[Tensor, "head key"]:
    """Length of v_k W_O for every head and key, in at least float32."""
    precise = torch.promote_types(values.dtype, torch.float32)
    own = by_head(values.to(precise), w_o.shape[0])
    # Head by head: [head, key, d_model] of a long prompt would be a gigabyte.
    return torch.stack([(own[:, head] @ w_o[head].to(precise)).norm(dim=-1) for head in range(len(w_o))])


def by_head(values: Float[Tensor, "key kv_head d_head"], n_heads: int) -> Float[Tensor, "key head d_head"]:
    """Give every head the values of its group."""
    return values.repeat_interleave(n_heads // values.shape[1], 1)


def contributions(
    pattern: Float[Tensor, "head query key"],
    values: Float[Tensor, "key kv_head d_head"],
    directions: Float[Tensor, "head query d_head"],
) -> Float[Tensor, "head query key"]:
    """What each key adds to the logit at each query, float64.

    Args:
        pattern: attention weights.
        values: of the same keys.
        directions: from `head_directions`.
    """
    own = by_head(values.double(), pattern.shape[0])
    return pattern.double() * torch.einsum("hqd,khd->hqk", directions, own)


def head_directions(
    model: LoadedModel,
    layer: int,
    z: Float[Tensor, "query head d_head"],
    directions: Float[Tensor, "query d_model"],
) -> Float[Tensor, "head query d_head"]:
    """The directions that read a logit out of a layer's heads before W_O, float64.

    Args:
        model: the loaded model.
        layer: layer index.
        z: the heads' outputs at these queries; a sandwich norm is frozen at what they add up to.
        directions: the way from the stream at each query to the logit (`Readout.directions` of one token).

    Raises:
        ModelError: the layer's own norm after attention cannot be frozen, or weights are not in memory.
    """
    w_o = weight(model.structure, "W_O", layer)
    read = directions.to(w_o.device).double()
    norm = post_norm(model, "attn", layer)
    if norm is not None:
        written = torch.einsum("qhd,hdm->qm", z.to(w_o.dtype), w_o) + _output_bias(model, layer)
        read = frozen_norm(norm, written).before(read)
    return torch.einsum("hdm,qm->hqd", w_o.double(), read)


def _output_bias(model: LoadedModel, layer: int) -> Tensor | float:
    try:
        return weight(model.structure, "b_O", layer)
    except SiteMissing:
        return 0.0


def head_contributions(
    z: Float[Tensor, "query head d_head"], directions: Float[Tensor, "head query d_head"]
) -> Float[Tensor, "head query"]:
    """What each head's whole output adds to the logit, float64: the sum that `contributions` must have."""
    return torch.einsum("qhd,hqd->hq", z.double(), directions)
