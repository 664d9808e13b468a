"""Norms and attention as the linear maps that they are once scales and patterns are held.

    norm:       N(x) = factor * centre(x) + bias         factor[pos] = gain / scale of the clean run at pos
    attention:  a(x)[q] = after(sum over heads h, keys k of P[h, q, k] before(x)[k] W_V[h] W_O[h]) + constant

`before` is the norm in front of the heads, `after` the norm behind them (sandwich families); either may be
missing. No family is looked up: the norm that stands before a module is the child of the block that turns
the stream into what the module received, and the whole is proved on the model's own attention outputs.
Sources: Ameisen et al. 2025 ("Circuit Tracing", frozen attention and norms), Elhage et al. 2021.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mi_core.engine import FrozenNorm, Observation, frozen_norm, post_norm
from mi_core.engine.readout import TOLERANCES
from mi_core.errors import ModelError, SiteMissing
from mi_core.model.model import LoadedModel
from mi_core.model.weights import weight


@dataclass(frozen=True, eq=False, slots=True)
class Affine:
    """A norm at the scale that it had, as a map between streams; with `factor` None it changes nothing.

    Attributes:
        factor: [pos, d_model] gain / scale.
        bias: [d_model].
        centred: whether the mean over d_model is taken off first.
    """

    factor: Float[Tensor, "pos d_model"] | None = None
    bias: Float[Tensor, " d_model"] | None = None
    centred: bool = False

    @classmethod
    def of(
        cls, frozen: FrozenNorm, dtype: torch.dtype, device: torch.device, *, gain: bool = True
    ) -> "Affine":
        """From a measured norm.

        Args:
            frozen: the norm at the clean run's scale.
            dtype: to compute in.
            device: to compute on.
            gain: False leaves gain and bias out (TransformerLens' `hook_normalized`).
        """
        vector = frozen.gain if gain else torch.ones_like(frozen.gain)
        factor = (vector / frozen.scale[:, None]).to(device, dtype)
        return cls(factor, frozen.bias.to(device, dtype) if gain else None, frozen.centred)

    def linear(self, x: Float[Tensor, "*row pos d_model"]) -> Float[Tensor, "*row pos d_model"]:
        """The linear part."""
        if self.factor is None:
            return x
        return (x - x.mean(-1, keepdim=True) if self.centred else x) * self.factor

    def back(self, gradient: Float[Tensor, "*row pos d_model"]) -> Float[Tensor, "*row pos d_model"]:
        """The transpose of the linear part: gradients behind the norm as gradients in front of it."""
        if self.factor is None:
            return gradient
        gained = gradient * self.factor
        return gained - gained.mean(-1, keepdim=True) if self.centred else gained

    def back_at(
        self, gradient: Float[Tensor, "n d_model"], positions: Int[Tensor, " n"]
    ) -> Float[Tensor, "n d_model"]:
        """The transpose for single gradients, each at its own position."""
        if self.factor is None:
            return gradient
        gained = gradient * self.factor[positions]
        return gained - gained.mean(-1, keepdim=True) if self.centred else gained

    def at(self, position: int) -> "Affine":
        """The same map for one position, [1, d_model]."""
        return self if self.factor is None else Affine(self.factor[[position]], self.bias, self.centred)

    def whole(self, x: Float[Tensor, "*row pos d_model"]) -> Float[Tensor, "*row pos d_model"]:
        """Linear part and bias."""
        made = self.linear(x)
        return made if self.bias is None else made + self.bias


IDENTITY = Affine()


@dataclass(frozen=True, eq=False, slots=True)
class FrozenAttention:
    """One layer's attention with its pattern held, from the stream before the block to what it adds.

    Attributes:
        before, after: the norms around the heads.
        value: [d_model, kv_head * d_head] W_V of all key/value heads.
        output: [head * d_head, d_model] W_O of all heads.
        pattern: [kv_head, group, query, key]; head = kv_head * groups + group.
        constant: [pos, d_model] what it adds when the stream is zero: the biases' part.
        error: largest difference to the model's own attention output, relative to the largest one.
    """

    before: Affine
    after: Affine
    value: Float[Tensor, "d_model kv"]
    output: Float[Tensor, "z d_model"]
    pattern: Float[Tensor, "kv_head group query key"]
    constant: Float[Tensor, "pos d_model"]
    error: float

    @property
    def n_heads(self) -> int:
        """Query heads."""
        return self.pattern.shape[0] * self.pattern.shape[1]

    def forward(self, x: Float[Tensor, "row pos d_model"]) -> Float[Tensor, "row pos d_model"]:
        """What a change of the stream before the block adds through the heads."""
        return self.after.linear(self.mixed(self.before.linear(x) @ self.value).flatten(2) @ self.output)

    def back(self, gradient: Float[Tensor, "row pos d_model"]) -> Float[Tensor, "row pos d_model"]:
        """The transpose of `forward`."""
        z = self.after.back(gradient) @ self.output.T
        groups, kv_heads = self.pattern.shape[1], self.pattern.shape[0]
        z = z.unflatten(2, (kv_heads, groups, -1))
        values = torch.einsum("vgqk,rqvgd->rkvd", self.pattern, z).flatten(2)
        return self.before.back(values @ self.value.T)

    def by_head(self, x: Float[Tensor, "row pos d_model"], query: int) -> Float[Tensor, "row head d_model"]:
        """`forward` at one query position, head by head."""
        mixed = self.mixed(self.before.linear(x) @ self.value, query)[:, 0]
        rows = self.output.unflatten(0, (self.n_heads, -1))
        alone = torch.einsum("rhd,hdm->rhm", mixed.flatten(1, 2), rows)
        return self.after.at(query).linear(alone)

    def back_by_head(
        self, gradient: Float[Tensor, "row pos d_model"], key: int
    ) -> Float[Tensor, "row head d_model"]:
        """`back` at one key position, head by head."""
        rows = self.output.unflatten(0, (self.n_heads, -1))
        z = torch.einsum("rqm,hdm->rqhd", self.after.back(gradient), rows)
        values = torch.einsum("hq,rqhd->rhd", self.pattern.flatten(0, 1)[:, :, key], z)
        group = self.pattern.shape[1]
        own = self.value.unflatten(1, (self.pattern.shape[0], -1)).repeat_interleave(group, 1)
        return self.before.at(key).back(torch.einsum("rhd,mhd->rhm", values, own))

    def mixed(
        self, values: Tensor, query: int | None = None
    ) -> Float[Tensor, "row query kv_head group d_head"]:
        """Values [row, key, kv] weighted by the pattern of all queries, or of one."""
        pattern = self.pattern if query is None else self.pattern[:, :, [query]]
        by_head = values.unflatten(2, (pattern.shape[0], -1))
        return torch.einsum("vgqk,rkvd->rqvgd", pattern, by_head)


def frozen_attention(
    model: LoadedModel, seen: Observation, layer: int, dtype: torch.dtype
) -> FrozenAttention:
    """A layer's attention at the pattern and the scales of a run.

    Args:
        model: the loaded model; its lock is held (norms are called as functions).
        seen: with `resid_pre`, `pattern`, `v`, `attn_out`.
        layer: layer index.
        dtype: to compute in.

    Raises:
        SiteMissing: the family has no such weights.
        ModelError: kind "unsupported": pattern, weights and norms do not give the model's own attention
            output, or weights are not in memory.
    """
    device, stream = model.device, seen["resid_pre", layer]
    w_v = weight(model.structure, "W_V", layer).to(device, dtype)
    value = w_v.transpose(0, 1).flatten(1)
    own, bias_v = seen["v", layer].flatten(1), _bias(model, "b_V", layer, device, dtype)

    def values(entered: Tensor) -> Tensor:
        return entered.to(device, dtype) @ value + (0 if bias_v is None else bias_v.flatten())

    norm = norm_between(model.structure.blocks[layer], stream, own.to(device, dtype), values)
    before = IDENTITY if norm is None else Affine.of(frozen_norm(norm, stream), dtype, device)
    output = weight(model.structure, "W_O", layer).to(device, dtype).flatten(0, 1)
    pattern = seen["pattern", layer].to(device, dtype).unflatten(0, (w_v.shape[0], -1))
    wide = stream.to(device, dtype)
    bare = FrozenAttention(before, IDENTITY, value, output, pattern, torch.zeros_like(wide), 0.0)
    inside = _constant(model, layer, bare, bias_v)
    after, constant = IDENTITY, inside
    module = post_norm(model, "attn", layer)
    if module is not None:
        raw = bare.forward(wide[None])[0] + inside
        after = Affine.of(frozen_norm(module, raw.to(model.dtype)), dtype, device)
        constant = after.whole(inside)
    made = replace(bare, after=after, constant=constant)
    error = relative(made.forward(wide[None])[0] + constant, seen["attn_out", layer].to(device, dtype))
    if not error <= 10 * TOLERANCES.get(model.dtype, 1e-1):
        raise ModelError(
            f"Attention of layer {layer} is not linear at a held pattern",
            kind="unsupported",
            why=f"pattern, weights and norms give outputs that are {error:.1e} off the model's own",
        )
    return replace(made, error=error)


def _constant(
    model: LoadedModel, layer: int, bare: FrozenAttention, bias_v: Tensor | None
) -> Float[Tensor, "pos d_model"]:
    """What the heads give, in front of a post-norm, when the stream is zero: the biases' part."""
    values = torch.zeros_like(bare.value[:1])
    if bare.before.bias is not None:
        values = values + bare.before.bias[None] @ bare.value
    if bias_v is not None:
        values = values + bias_v.flatten()
    inside = bare.mixed(values.expand(len(bare.constant), -1)[None])[0].flatten(1) @ bare.output
    bias_o = _bias(model, "b_O", layer, inside.device, inside.dtype)
    return inside if bias_o is None else inside + bias_o


def _bias(
    model: LoadedModel, name: str, layer: int, device: torch.device, dtype: torch.dtype
) -> Tensor | None:
    try:
        return weight(model.structure, name, layer).to(device, dtype)
    except SiteMissing:  # a family without this bias
        return None


def norm_between(
    block: nn.Module, stream: Tensor, wanted: Tensor, reads: Callable[[Tensor], Tensor]
) -> nn.Module | None:
    """The norm of a block through which a stream becomes what a module reads; None if it is read as it is.

    Args:
        block: whose children are tried.
        stream: [pos, d_model] in front of the norm.
        wanted: what the model itself had behind it.
        reads: turns a candidate's output into what is compared with `wanted`.
    """
    found = [(relative(reads(stream), wanted), None)]
    found += [(relative(reads(module(stream)), wanted), module) for module in _norms(block)]
    return min(found, key=lambda one: one[0])[1]


def _norms(block: nn.Module) -> Iterator[nn.Module]:
    for module in block.children():
        if "norm" in type(module).__name__.lower() and not any(True for _ in module.children()):
            yield module


def relative(made: Tensor, own: Tensor) -> float:
    """Largest difference, relative to the largest value."""
    return float((made - own).abs().max() / own.abs().max().clamp_min(1e-30))
