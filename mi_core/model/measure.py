"""Measurements of a resolved model that need no forward pass: noise unit and memory unit."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mi_core.model.structure import Structure


def values_per_token(structure: Structure) -> int:
    """Numbers alive per token while one block runs; the planner's memory unit."""
    dims = structure.dims
    return 6 * dims.d_model + 3 * dims.d_mlp + 3 * (dims.n_heads + 2 * dims.n_kv_heads) * dims.d_head


def embedding_sigma(hf: nn.Module, ids: Tensor | None = None) -> float:
    """Standard deviation of the token-embedding module's outputs, over all entries (unbiased).

    Measured on the module's output, so Gemma's sqrt(d_model) scale counts (ROME, arXiv 2202.05262, appendix
    B.1: noise has 3 times this deviation).

    Args:
        hf: the causal language model.
        ids: token ids to measure on; None for the whole vocabulary.

    Returns:
        Residual-stream units.
    """
    module = hf.get_input_embeddings()  # type: ignore[operator]  # transformers types this as a tensor or module
    weight: Float[Tensor, "d_vocab d_embed"] = module.weight
    device = weight.device if weight.device.type != "meta" else "cpu"
    chosen = torch.arange(weight.shape[0], device=device) if ids is None else ids.to(device).flatten()
    with torch.inference_mode():
        total, square, count = 0.0, 0.0, 0
        for part in chosen.split(8192):
            out = module(part).double()
            total, square, count = (
                total + float(out.sum()),
                square + float(out.square().sum()),
                count + out.numel(),
            )
    mean = total / count
    return float(max(0.0, (square - count * mean * mean) / max(1, count - 1)) ** 0.5)
