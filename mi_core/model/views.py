"""How a module's tensor holds a site: views as [token, *site axes], and points that say where to hook."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

Side = Literal["input", "output"]


@dataclass(frozen=True, slots=True)
class View:
    """How a module's tensor holds a site: an optional slice of the last axis, then heads.

    Attributes:
        heads: number of heads, or None for a plain vector per token.
        part: (start, stop) on the last axis, or None for all of it.
        third: with q, k, v inside each head: which of the three; None otherwise.
        head_first: tensor is [row, head, pos, d_head] instead of [row, pos, head * d_head].
    """

    heads: int | None = None
    part: tuple[int, int] | None = None
    third: int | None = None
    head_first: bool = False

    def read(self, tensor: Tensor) -> Tensor:
        """Return the site as [token, *axes]; may share memory with `tensor`."""
        if self.head_first:
            return tensor.transpose(1, 2).flatten(0, 1)
        flat = (
            tensor.reshape(-1, tensor.shape[-1])
            if self.heads is None or tensor.dim() < 4
            else tensor.flatten(0, 1)
        )
        if self.third is not None and self.heads is not None:
            return flat.view(flat.shape[0], self.heads, 3, -1)[:, :, self.third]
        if self.part is not None:
            flat = flat[:, self.part[0] : self.part[1]]
        if self.heads is not None and flat.dim() == 2:
            flat = flat.reshape(flat.shape[0], self.heads, -1)
        return flat

    def write(self, tensor: Tensor, new: Tensor) -> Tensor:
        """A copy of `tensor` in which the site holds `new` ([token, *axes]); `tensor` is not changed."""
        if self.head_first:
            rows, _, positions, _ = tensor.shape
            return new.unflatten(0, (rows, positions)).transpose(1, 2)
        if self.part is None and self.third is None:
            return new.reshape(tensor.shape)
        out = tensor.clone(memory_format=torch.contiguous_format)
        flat = out.view(-1, out.shape[-1])
        if self.third is not None and self.heads is not None:
            flat.view(flat.shape[0], self.heads, 3, -1)[:, :, self.third] = new
        elif self.part is not None:
            flat[:, self.part[0] : self.part[1]] = new.reshape(new.shape[0], -1)
        return out


@dataclass(frozen=True, slots=True)
class Point:
    """A module, a side of it, and the view of the site there."""

    module: nn.Module
    side: Side
    view: View
