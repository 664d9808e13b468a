"""A transcoder in use: encoders on the model's device, decoder rows read when they are needed.

    a_l = phi(W_enc_l x_l + b_enc_l)            phi: ReLU; p * (p > theta); or the k largest of a token
    y_m = b_dec_m + sum_(l writes to m) a_l W_dec_l,m (+ skip(x_m))

x_l is read at one site, y_m approximates another: a cross-layer transcoder (CLT) of layer l writes to the MLP
outputs of all layers m >= l, a per-layer transcoder (PLT) to that of its own layer, and a sparse autoencoder
(SAE) gives back what it read. Everything is computed in float32, whatever the files hold: bfloat16
pre-activations would switch features near their threshold on and off.

Formats differ in files, keys and orientation; each of them is a `Source`. Formulas: Lindsey et al. 2025
(transformer-circuits.pub, "Circuit Tracing: Revealing Computational Graphs in Language Models"), Dunefsky et
al. 2024 (arXiv 2406.11944).
"""

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mi_core.errors import InputError

Kind = Literal["clt", "plt", "sae"]
KINDS: dict[str, str] = {
    "clt": "cross-layer transcoder",
    "plt": "per-layer transcoder",
    "sae": "sparse autoencoder",
}
RESIDENT_BYTES = 2 * 2**30
"""What encoders may hold together; the one used longest ago leaves first."""
CHUNK_BYTES = 64 * 2**20
"""Largest float32 piece of a decoder or encoder that is made at once."""


@dataclass(frozen=True, slots=True)
class Hook:
    """Where a transcoder reads or writes.

    Attributes:
        site: name from `mi_core.sites`.
        normalised: divided by the scale of the norm in front of the MLP (for LayerNorm after taking off the
            mean), without its gain: TransformerLens' `ln2.hook_normalized`. Only with `resid_mid`.
    """

    site: str
    normalised: bool = False

    @property
    def text(self) -> str:
        """For people."""
        return f"{self.site}, normalised without gain" if self.normalised else self.site


@dataclass(frozen=True, slots=True, eq=False)
class Encoder:
    """The encoder of one layer.

    Attributes:
        stored: [feature, d_model] in the number format of its file.
        b_enc: [feature] float32.
        threshold: [feature] float32 of a JumpReLU (strictly larger passes); None = ReLU or top-k.
        k: how many features of a token survive; None = all.
        centre: [d_model] float32 taken off the input first (SAEs with `apply_b_dec_to_input`); None =
            nothing.
    """

    stored: Tensor
    b_enc: Float[Tensor, " feature"]
    threshold: Float[Tensor, " feature"] | None = None
    k: int | None = None
    centre: Float[Tensor, " d_model"] | None = None

    @property
    def W_enc(self) -> Float[Tensor, "feature d_model"]:  # the field's name for it
        """All encoder rows in float32 (a copy, unless they are stored so)."""
        return self.stored.float()

    def some(self, indices: Int[Tensor, " n"]) -> Float[Tensor, "n d_model"]:
        """Encoder rows of some features, float32."""
        return self.stored[indices.to(self.stored.device)].float()

    @property
    def bytes(self) -> int:
        """Memory that it holds."""
        parts = (self.stored, self.b_enc, self.threshold, self.centre)
        return sum(part.numel() * part.element_size() for part in parts if part is not None)

    def to(self, device: torch.device) -> "Encoder":
        """The same on a device; only the big matrix keeps its number format."""

        def small(part: Tensor | None) -> Tensor | None:
            return None if part is None else part.to(device).float()

        bias = self.b_enc.to(device).float()
        return Encoder(self.stored.to(device), bias, small(self.threshold), self.k, small(self.centre))


@runtime_checkable
class Source(Protocol):
    """The tensors of a transcoder, wherever they are; on the CPU, in any floating format.

    Orientation is settled here: callers see the shapes below whatever the file holds.
    """

    @property
    def read_bytes(self) -> int:
        """Bytes of tensors read so far."""
        ...

    def encoder(self, layer: int) -> Encoder:
        """The encoder of a source layer."""
        ...

    def rows(self, layer: int, indices: Int[Tensor, " n"]) -> Float[Tensor, "n target d_model"]:
        """Decoder rows of some features; no more than these are read where the format allows."""
        ...

    def chunk(self, layer: int, start: int, stop: int) -> Float[Tensor, "n target d_model"]:
        """Decoder rows of neighbouring features."""
        ...

    def bias(self, target: int) -> Float[Tensor, " d_model"]:
        """What is written to a layer when no feature is active."""
        ...

    def skip(self, target: int) -> Float[Tensor, "d_model d_model"] | None:
        """The matrix M of a skip x @ M; None where there is none."""
        ...


@dataclass(eq=False)
class Transcoder:
    """A transcoder, ready for use; shared by all who look at its model.

    Attributes:
        name: what it was asked for by.
        kind: "clt", "plt" or "sae".
        model_name: model that it says it is for; "" = it does not say.
        n_layers: of the model.
        n_features: source layer -> number of features; layers without an encoder are not in it.
        d_model: width of what it reads and writes.
        reads: where.
        writes: where.
        fingerprint: identifies its files.
        source: its tensors.
        device: where it computes.
        has_decoder: whether decoders are here, or only encoders.
        activation: for people: "ReLU", "JumpReLU" or "top-k (k = 16)".
        warnings: what to know before reading its numbers, plain sentences.
        folder: local folder of its files; None where they are elsewhere.
        repo: Hugging Face address `user/repo[/sub][@rev]`; "" where it has none.
        local: whether all its tensors can be read without the network.
        decoder_bytes: size of all decoders as stored; 0 = unknown.
        memo: prompts that were encoded lately (`mi_core.transcoders.encode`).
    """

    name: str
    kind: Kind
    model_name: str
    n_layers: int
    n_features: Mapping[int, int]
    d_model: int
    reads: Hook
    writes: Hook
    fingerprint: str
    source: Source
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    has_decoder: bool = True
    activation: str = ""
    warnings: tuple[str, ...] = ()
    folder: Path | None = None
    repo: str = ""
    local: bool = True
    decoder_bytes: int = 0
    memo: OrderedDict[Any, Any] = field(default_factory=OrderedDict, repr=False)
    _encoders: OrderedDict[int, Encoder] = field(default_factory=OrderedDict, repr=False)
    _lock: threading.RLock = field(default_factory=threading.RLock, repr=False)

    @property
    def layers(self) -> tuple[int, ...]:
        """Source layers, ascending."""
        return tuple(sorted(self.n_features))

    @property
    def written_layers(self) -> tuple[int, ...]:
        """Target layers, ascending."""
        return tuple(sorted({target for layer in self.layers for target in self.targets(layer)}))

    def targets(self, layer: int) -> tuple[int, ...]:
        """Layers that the features of a layer write to, ascending."""
        return tuple(range(layer, self.n_layers)) if self.kind == "clt" else (layer,)

    @property
    def read_bytes(self) -> int:
        """Bytes of tensors read from disk or network so far."""
        return self.source.read_bytes

    def check(self, layer: int, index: int = 0) -> None:
        """Refuse a feature that is not there.

        Raises:
            InputError: naming the layers or the number of features.
        """
        if layer not in self.n_features:
            raise InputError(
                f"The transcoder has no features in layer {layer}",
                fix=f"It has layers {_ranges(self.layers)}",
            )
        if not 0 <= index < self.n_features[layer]:
            raise InputError(
                f"Layer {layer} has no feature {index:,}",
                fix=f"Its features count from 0 to {self.n_features[layer] - 1:,}",
            )

    def encoder(self, layer: int) -> Encoder:
        """The encoder of a source layer, on the device.

        Raises:
            InputError: there is none.
            TranscoderError: its file cannot be read.
        """
        self.check(layer)
        with self._lock:
            if layer not in self._encoders:
                made = self.source.encoder(layer).to(self.device)
                self._encoders[layer] = made
                while len(self._encoders) > 1 and self.resident_bytes > RESIDENT_BYTES:
                    self._encoders.popitem(last=False)
            self._encoders.move_to_end(layer)
            return self._encoders[layer]

    @property
    def resident_bytes(self) -> int:
        """Memory of the encoders that are kept."""
        return sum(encoder.bytes for encoder in self._encoders.values())

    def pre_activations(self, layer: int, x: Float[Tensor, "n d_model"]) -> Float[Tensor, "n feature"]:
        """W_enc x + b_enc in float32."""
        encoder = self.encoder(layer)
        x = x.to(self.device, torch.float32)
        if encoder.centre is not None:
            x = x - encoder.centre
        rows = max(1, CHUNK_BYTES // (4 * self.d_model))
        parts = [
            torch.addmm(encoder.b_enc[i : i + rows], x, encoder.stored[i : i + rows].float().T)
            for i in range(0, encoder.stored.shape[0], rows)
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts, 1)

    def activate(self, layer: int, pre: Float[Tensor, "n feature"]) -> Float[Tensor, "n feature"]:
        """Activations from pre-activations."""
        encoder = self.encoder(layer)
        if encoder.threshold is not None:
            passed = torch.where(pre > encoder.threshold, pre, torch.zeros_like(pre))
        else:
            passed = pre.clamp(min=0)
        if encoder.k is None or encoder.k >= passed.shape[1]:
            return passed
        top = passed.topk(encoder.k, dim=1)
        return torch.zeros_like(passed).scatter_(1, top.indices, top.values)

    def rows(self, layer: int, indices: Int[Tensor, " n"]) -> Float[Tensor, "n target d_model"]:
        """Decoder rows of some features, one per target layer, float32 on the device.

        Raises:
            TranscoderError: kind "no_decoder", when only the encoders are here.
        """
        self.check(layer)
        return self.source.rows(layer, indices.cpu()).to(self.device).float()

    def decoder_chunks(
        self, layer: int, n: int | None = None
    ) -> Iterator[tuple[int, Float[Tensor, "n target d_model"]]]:
        """All decoder rows of a layer, in order: (index of the first, rows).

        Args:
            layer: source layer.
            n: rows at once; None = as many as `CHUNK_BYTES` allows.
        """
        self.check(layer)
        total = self.n_features[layer]
        n = n or max(1, CHUNK_BYTES // (4 * self.d_model * len(self.targets(layer))))
        for start in range(0, total, n):
            part = self.source.chunk(layer, start, min(total, start + n))
            yield start, part.to(self.device).float()

    def bias(self, target: int) -> Float[Tensor, " d_model"]:
        """b_dec of a target layer, float32 on the device."""
        return self.source.bias(target).to(self.device).float()

    def skip(self, target: int, x: Float[Tensor, "n d_model"]) -> Float[Tensor, "n d_model"] | None:
        """What the skip of a target layer writes; None where there is none."""
        matrix = self.source.skip(target)
        return None if matrix is None else x.to(self.device).float() @ matrix.to(self.device).float()


def _ranges(layers: tuple[int, ...]) -> str:
    """`0 to 7`, or the list where it has holes."""
    if len(layers) > 1 and layers == tuple(range(layers[0], layers[-1] + 1)):
        return f"{layers[0]} to {layers[-1]}"
    return ", ".join(map(str, layers))
