"""The attention function that all loaded models use, and how it finds the pass that it belongs to.

One function is registered with transformers' attention interface *and* with its mask interface; registered in
only one of the two, a model silently loses its causal mask. The function computes exactly softmax(softcap(q
k^T * scaling) + mask) v. It takes torch's fused kernel unless a softcap, an edit or a capture needs the
scores or the pattern.

The current pass is thread-local: a model called outside a pass, or by another thread, gets plain attention.
"""

import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from mi_core.engine.session import Session

NAME = "lantern"
"""Name under which the function is registered; `hf.set_attn_implementation(NAME)` selects it."""

_active = threading.local()


def current() -> "Session | None":
    """The pass that this thread is running, if any."""
    return getattr(_active, "session", None)


def set_current(session: "Session | None") -> None:
    """Make a pass the current one of this thread (None: no pass)."""
    _active.session = session


def register() -> None:
    """Register the function with both of transformers' interfaces; harmless when repeated."""
    from transformers import AttentionInterface
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface

    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, ALL_MASK_ATTENTION_FUNCTIONS["eager"])


@dataclass(frozen=True, eq=False, slots=True)
class Call:
    """How one layer's attention is to be computed.

    Attributes:
        mask: additive mask that broadcasts to [row, head, query, key], or None; sliding windows are in it.
        scale: factor on q k^T.
        softcap: c in c * tanh(scores / c), before the mask; None for none.
    """

    mask: Tensor | None
    scale: float
    softcap: float | None = None

    def queries_from(self, first: int, device: torch.device) -> "Call":
        """The same for queries from position `first` on."""
        return self if self.mask is None else replace(self, mask=self.mask[:, :, first:].to(device))


def attention(
    module: nn.Module,
    query: Float[Tensor, "row head query d_head"],
    key: Float[Tensor, "row kv_head key d_head"],
    value: Float[Tensor, "row kv_head key d_head"],
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_unused: Any,
) -> tuple[Float[Tensor, "row query head d_head"], None]:
    """Attention as transformers calls it.

    Raises:
        NotImplementedError: attention sinks (`s_aux`), which this function does not compute.
    """
    if s_aux is not None:
        raise NotImplementedError("attention sinks are not supported")
    scale = query.shape[-1] ** -0.5 if scaling is None else float(scaling)
    call = Call(attention_mask, scale, softcap)
    session = current()
    if session is None:
        return plain(query, key, value, call).transpose(1, 2).contiguous(), None
    return session.attend(module, query, key, value, call), None


def repeat_heads(
    tensor: Float[Tensor, "row kv_head key d_head"], n_heads: int
) -> Float[Tensor, "row head key d_head"]:
    """Give every query head its key/value head (grouped-query attention)."""
    groups = n_heads // tensor.shape[1]
    return tensor if groups == 1 else tensor.repeat_interleave(groups, 1)


def plain(
    query: Tensor, key: Tensor, value: Tensor, call: Call, *, fused: bool = True
) -> Float[Tensor, "row head query d_head"]:
    """Attention that nobody looks into."""
    key, value = repeat_heads(key, query.shape[1]), repeat_heads(value, query.shape[1])
    if call.softcap is None and fused:
        return functional.scaled_dot_product_attention(
            query, key, value, attn_mask=call.mask, scale=call.scale
        )
    return softmax(scores(query, key, call)) @ value


def scores(query: Tensor, key: Tensor, call: Call) -> Float[Tensor, "row head query key"]:
    """Scores after softcap and mask. `key` has as many heads as `query`."""
    result = query @ key.transpose(2, 3) * call.scale
    if call.softcap is not None:
        result = call.softcap * torch.tanh(result / call.softcap)
    return result if call.mask is None else result + call.mask


def softmax(square: Float[Tensor, "row head query key"]) -> Float[Tensor, "row head query key"]:
    """Softmax over keys in at least float32, as the families' own eager attention does."""
    precise = torch.promote_types(square.dtype, torch.float32)
    return square.to(precise).softmax(-1).to(square.dtype)


def cut(
    square: Float[Tensor, "row head query key"], mask: Tensor | None
) -> Float[Tensor, "row head query key"]:
    """Softmax of scores with edges at -inf: a row that lost every allowed key gives zeros, not NaN.

    A model's mask adds the lowest finite number, not -inf; left so, the weight of a fully cut row would go
    to forbidden keys.
    """
    if mask is not None:
        square = square.masked_fill(mask < torch.finfo(mask.dtype).min / 2, -torch.inf)
    return torch.nan_to_num(softmax(square), nan=0.0)
