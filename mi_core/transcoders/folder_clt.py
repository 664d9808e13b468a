"""The CLT folder format: `W_enc_{l}.safetensors`, `W_dec_{l}.safetensors`, `config.yaml`.

`W_enc_{l}.safetensors` holds `W_enc_{l}` [feature, d_model], `b_enc_{l}` [feature], `b_dec_{l}` [d_model] (of
the TARGET layer l) and, for a JumpReLU, `threshold_{l}` [feature]; `W_dec_{l}.safetensors` holds `W_dec_{l}`
[feature, n_layers - l, d_model], whose entry j writes to layer l + j. The format is circuit-tracer's
(decoderesearch/circuit-tracer, its cross-layer transcoder). The decoder rows of one feature lie together in
the file and are read alone.
"""

from pathlib import Path

import torch
from jaxtyping import Float, Int
from safetensors import safe_open
from torch import Tensor

from mi_core.transcoders.transcoder import Encoder


class CltFolder:
    """A `Source` over a folder on this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._read = 0

    @property
    def read_bytes(self) -> int:
        """Bytes of tensors read so far."""
        return self._read

    def encoder(self, layer: int) -> Encoder:
        """The encoder of a source layer."""
        with safe_open(self.folder / f"W_enc_{layer}.safetensors", "pt") as file:
            keys = set(file.keys())
            threshold = f"threshold_{layer}"
            return Encoder(
                self._count(file.get_tensor(f"W_enc_{layer}")),
                self._count(file.get_tensor(f"b_enc_{layer}")),
                self._count(file.get_tensor(threshold)) if threshold in keys else None,
            )

    def rows(self, layer: int, indices: Int[Tensor, " n"]) -> Float[Tensor, "n target d_model"]:
        """Decoder rows of some features."""
        with safe_open(self.folder / f"W_dec_{layer}.safetensors", "pt") as file:
            return self._count(file.get_slice(f"W_dec_{layer}")[indices])

    def chunk(self, layer: int, start: int, stop: int) -> Float[Tensor, "n target d_model"]:
        """Decoder rows of neighbouring features."""
        with safe_open(self.folder / f"W_dec_{layer}.safetensors", "pt") as file:
            return self._count(file.get_slice(f"W_dec_{layer}")[start:stop])

    def bias(self, target: int) -> Float[Tensor, " d_model"]:
        """What is written to a layer when no feature is active."""
        with safe_open(self.folder / f"W_enc_{target}.safetensors", "pt") as file:
            return self._count(file.get_tensor(f"b_dec_{target}"))

    def skip(self, target: int) -> None:
        """A CLT folder has no skip."""
        return

    def _count(self, tensor: Tensor) -> Tensor:
        self._read += tensor.numel() * tensor.element_size()
        return tensor if tensor.is_floating_point() else tensor.to(torch.float32)
