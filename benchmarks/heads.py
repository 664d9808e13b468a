"""Ablating every head of a model, one at a time, in four ways.

Every head's output (`z`, before W_O) is set to zero at all positions, one head per run; the grid
[layer, head] has the logit difference at the last position. Every way starts from token ids.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import numpy as np
import torch

from benchmarks.traces import Shape, bridge, difference

Heads = Callable[..., np.ndarray]


def least_flops(shape: Shape, n_positions: int) -> float:
    """Floating-point operations that the grid needs at least; see `benchmarks.traces.minimal_flops`.

    The baseline as there. A head of block l: attention output and MLP of block l at all positions, the blocks
    after it whole, and of the last block everybody's keys and values and the last query. A head of the last
    block: attention output and MLP of the last position.
    """
    d, last = shape.d_model, shape.n_layers - 1
    attention = sum(4.0 * d * (position + 1) for position in range(n_positions))
    block = n_positions * 24 * d * d + attention
    closing = n_positions * 4 * d * d + 20 * d * d + 4.0 * d * n_positions
    total = last * block + closing
    for layer in range(last):
        total += shape.n_heads * (n_positions * 18 * d * d + (last - layer - 1) * block + closing)
    total += shape.n_heads * 18 * d * d
    return total + 2.0 * d * shape.d_vocab * (shape.n_layers * shape.n_heads + 1)


def lantern(shape: Shape, device: str, dtype: torch.dtype, method: Literal["auto", "full"]) -> Heads:
    """Ours: `mi_core.engine.sweep` with `method` "auto" or "full"."""
    from mi_core.engine import Base, Edit, Variant, build_model, sweep

    model = build_model(shape.build(device, dtype))

    def heads(tokens: torch.Tensor, _other: torch.Tensor) -> np.ndarray:
        variants = [
            Variant((Edit("z", layer, "zero", heads=(head,)),))
            for layer in range(shape.n_layers)
            for head in range(shape.n_heads)
        ]
        out = sweep(
            model, Base(tokens), variants, method=method,
            read=lambda logits: {"difference": difference(logits[:, 0, -1])},
        )  # fmt: skip
        return out.values["difference"].reshape(shape.n_layers, shape.n_heads)

    return heads


def plain(shape: Shape, device: str, dtype: torch.dtype) -> Heads:
    """Plain transformers: a pass and a pre-hook on W_O per head; only the last position is unembedded."""
    model, width = shape.build(device, dtype), shape.d_model // shape.n_heads
    blocks: Any = model.transformer.h

    @torch.inference_mode()
    def heads(tokens: torch.Tensor, _other: torch.Tensor) -> np.ndarray:
        grid = np.zeros((shape.n_layers, shape.n_heads))
        for layer, block in enumerate(blocks):
            for head in range(shape.n_heads):

                def silence(_module, args, own=slice(head * width, (head + 1) * width)):
                    z = args[0].clone()
                    z[..., own] = 0
                    return (z,)

                handle = block.attn.c_proj.register_forward_pre_hook(silence)
                grid[layer, head] = difference(model(tokens, use_cache=False, logits_to_keep=1).logits[0, -1])
                handle.remove()
        return grid

    return heads


def transformer_lens(shape: Shape, device: str, dtype: torch.dtype) -> Heads:
    """transformer-lens: `run_with_hooks` on `hook_z`, a pass per head."""
    wrapped = bridge(shape, device, dtype)

    def silence(z: torch.Tensor, hook: Any, head: int) -> torch.Tensor:
        z[:, :, head] = 0
        return z

    @torch.inference_mode()
    def heads(tokens: torch.Tensor, _other: torch.Tensor) -> np.ndarray:
        grid = np.zeros((shape.n_layers, shape.n_heads))
        for layer in range(shape.n_layers):
            for head in range(shape.n_heads):
                hooks = [(f"blocks.{layer}.attn.hook_z", partial(silence, head=head))]
                grid[layer, head] = difference(wrapped.run_with_hooks(tokens, fwd_hooks=hooks)[0, -1])
        return grid

    return heads


WAYS: dict[str, Callable[..., Heads]] = {
    "lantern": partial(lantern, method="auto"),
    "lantern, full": partial(lantern, method="full"),
    "transformers": plain,
    "transformer-lens": transformer_lens,
}
