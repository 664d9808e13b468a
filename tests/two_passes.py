"""Comparing two passes over the same text."""

import torch
from torch import Tensor


def agree(one: Tensor, other: Tensor) -> bool:
    """Whether two passes gave the same numbers, up to the last bits.

    Matrix products of two passes may round differently where their buffers lie differently in memory; it was
    seen once, on a crowded machine. An edit that is missed or left behind changes far more.
    """
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    finite = other.masked_fill(~other.isfinite(), 0)
    slack = 64 * torch.finfo(other.dtype).eps * max(1.0, float(finite.abs().max()))
    return torch.allclose(one, other, rtol=0, atol=slack, equal_nan=True)
