"""Tiny transcoders with random weights for the models of `tests.tiny`: a few hundred numbers, in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from mi_core.engine import observe
from mi_core.model.model import LoadedModel
from mi_core.transcoders.transcoder import Encoder, Hook, Kind, Transcoder

CONFIG = """model_kind: cross_layer_transcoder
model_name: tiny
feature_input_hook: hook_resid_mid
feature_output_hook: hook_mlp_out
"""


@dataclass
class MemorySource:
    """A `Source` over tensors in memory.

    Attributes:
        encoders: source layer -> encoder.
        decoders: source layer -> [feature, target, d_model].
        biases: target layer -> [d_model].
        skips: target layer -> [d_model, d_model] as in x @ M.
    """

    encoders: dict[int, Encoder]
    decoders: dict[int, Tensor]
    biases: dict[int, Tensor]
    skips: dict[int, Tensor] = field(default_factory=dict)
    read_bytes: int = 0

    def encoder(self, layer: int) -> Encoder:
        """The encoder of a source layer."""
        return self.encoders[layer]

    def rows(self, layer: int, indices: Tensor) -> Tensor:
        """Decoder rows of some features."""
        found = self.decoders[layer][indices]
        self.read_bytes += found.numel() * found.element_size()
        return found

    def chunk(self, layer: int, start: int, stop: int) -> Tensor:
        """Decoder rows of neighbouring features."""
        return self.decoders[layer][start:stop]

    def bias(self, target: int) -> Tensor:
        """b_dec of a target layer."""
        return self.biases[target]

    def skip(self, target: int) -> Tensor | None:
        """The skip matrix of a target layer."""
        return self.skips.get(target)


def _encoders(
    model: LoadedModel, n_features: int, seed: int, jump: bool, density: float
) -> tuple[dict[int, Encoder], Callable[..., Tensor]]:
    """Random encoders whose biases make about `density` of all features active on some tokens."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    width, encoders = model.dims.d_model, {}
    ids = list(range(3, min(20, model.dims.d_vocab)))
    seen = observe(model, ids, ("resid_mid",))
    for layer in range(model.dims.n_layers):
        x = seen["resid_mid", layer].float()
        weights = random(n_features, width) / width**0.5
        pre = x @ weights.T
        bias = -pre.quantile(1 - density, dim=0)
        threshold = (0.1 * pre.std(0)) if jump else None
        encoders[layer] = Encoder(weights, bias if threshold is None else bias + threshold, threshold)
    return encoders, random


def tiny_clt(
    model: LoadedModel, n_features: int = 12, seed: int = 0, jump: bool = True, density: float = 0.2
) -> Transcoder:
    """A random cross-layer transcoder of a tiny model; b_dec is not zero and thresholds matter."""
    assert model.dims.d_model <= 64
    assert n_features <= 64
    encoders, random = _encoders(model, n_features, seed, jump, density)
    n_layers, width = model.dims.n_layers, model.dims.d_model
    decoders = {layer: 0.3 * random(n_features, n_layers - layer, width) for layer in range(n_layers)}
    biases = {layer: 0.1 * random(width) for layer in range(n_layers)}
    source = MemorySource(encoders, decoders, biases)
    return _transcoder("clt", source, n_layers, n_features, width, jump, seed)


def tiny_plt(
    model: LoadedModel,
    n_features: int = 12,
    seed: int = 0,
    jump: bool = False,
    density: float = 0.2,
    skip: bool = True,
) -> Transcoder:
    """A random per-layer transcoder; its skip matrices are not symmetric."""
    assert model.dims.d_model <= 64
    encoders, random = _encoders(model, n_features, seed, jump, density)
    n_layers, width = model.dims.n_layers, model.dims.d_model
    decoders = {layer: 0.3 * random(n_features, 1, width) for layer in range(n_layers)}
    biases = {layer: 0.1 * random(width) for layer in range(n_layers)}
    skips = {layer: 0.1 * random(width, width) for layer in range(n_layers)} if skip else {}
    source = MemorySource(encoders, decoders, biases, skips)
    return _transcoder("plt", source, n_layers, n_features, width, jump, seed)


def _transcoder(
    kind: Kind, source: MemorySource, n_layers: int, n_features: int, width: int, jump: bool, seed: int
) -> Transcoder:
    return Transcoder(
        name=f"tiny-{kind}",
        kind=kind,
        model_name="tiny",
        n_layers=n_layers,
        n_features=dict.fromkeys(range(n_layers), n_features),
        d_model=width,
        reads=Hook("resid_mid"),
        writes=Hook("mlp_out"),
        fingerprint=f"tiny-{kind}-{seed}",
        source=source,
        activation="JumpReLU" if jump else "ReLU",
    )


def use(model: LoadedModel, transcoder: Transcoder, name: str = "") -> Transcoder:
    """Puts a transcoder where `load_transcoder(model, name)` finds it."""
    model.transcoders[name] = transcoder
    return transcoder


def write_clt(transcoder: Transcoder, folder: Path, dtype: torch.dtype = torch.float32) -> Path:
    """Writes a tiny CLT in the CLT folder format."""
    source = transcoder.source
    assert isinstance(source, MemorySource)
    folder.mkdir(parents=True, exist_ok=True)
    for layer, encoder in source.encoders.items():
        named = {
            f"W_enc_{layer}": encoder.stored,
            f"b_enc_{layer}": encoder.b_enc,
            f"b_dec_{layer}": source.biases[layer],
        }
        if encoder.threshold is not None:
            named[f"threshold_{layer}"] = encoder.threshold
        save_file(
            {k: v.to(dtype).contiguous() for k, v in named.items()}, folder / f"W_enc_{layer}.safetensors"
        )
        decoder = {f"W_dec_{layer}": source.decoders[layer].to(dtype).contiguous()}
        save_file(decoder, folder / f"W_dec_{layer}.safetensors")
    (folder / "config.yaml").write_text(CONFIG, encoding="utf-8")
    return folder
