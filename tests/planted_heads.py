"""A tiny gpt2 with layers whose heads do nothing until a test writes their weights; norms only centre there.

Other layers stay random, and a cleared layer needs at least one head that writes: the probe switches off
what has no effect in some layer.
"""

from typing import Any

import numpy as np
import torch

from mi_core.engine import build_model
from mi_core.model.model import LoadedModel
from tests.tiny import hf_model
from tests.words import word_tokenizer

D_MODEL, D_HEAD = 32, 8


def blank(*layers: int) -> Any:
    """The Hugging Face model; in these layers no attention weights, no biases, gains of 1."""
    hf = hf_model("gpt2")
    for block in (hf.transformer.h[layer] for layer in layers):
        for module in (block.attn.c_attn, block.attn.c_proj):
            module.weight.data.zero_()
            module.bias.data.zero_()
        block.ln_1.weight.data.fill_(1.0)
        block.ln_1.bias.data.zero_()
    hf.transformer.ln_f.weight.data.fill_(1.0)
    return hf


def plant(hf: Any, layer: int, head: int, **weights: np.ndarray) -> None:
    """Write query, key, value [d_model, d_head] or output [d_head, d_model] of a head."""
    attention = hf.transformer.h[layer].attn
    mine = slice(head * D_HEAD, (head + 1) * D_HEAD)
    for index, role in enumerate(("query", "key", "value")):
        if role in weights:
            start = index * D_MODEL
            attention.c_attn.weight.data[:, start + mine.start : start + mine.stop] = torch.tensor(
                weights[role]
            )
    if "output" in weights:
        attention.c_proj.weight.data[mine] = torch.tensor(weights["output"])


def built(hf: Any) -> LoadedModel:
    """The model, proved, with a tokenizer of words."""
    return build_model(hf, word_tokenizer())


def subspaces(*sizes: int, seed: int = 0) -> list[np.ndarray]:
    """Orthonormal bases [d_model, size] of subspaces orthogonal to each other and to the mean direction.

    Centring leaves them as they are.
    """
    draw = np.random.default_rng(seed).normal(size=(D_MODEL, sum(sizes)))
    basis, _ = np.linalg.qr(np.concatenate([np.ones((D_MODEL, 1)), draw], 1))
    parts, start = [], 1
    for size in sizes:
        parts.append(basis[:, start : start + size])
        start += size
    return parts
