"""A layer's attention heads as factored circuits, with the gains of the norms around them folded in.

With row vectors (x @ W), a head h with query weights W_Q, its key/value head's W_K, W_V and W_O moves

    OV = W_V W_O        what is written where the head looks          [d_model d_model], rank <= d_head
    QK = W_Q W_K^T      how much a query looks at a key: x_q QK x_k^T  [d_model d_model], rank <= d_head

(Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits", there with column vectors). Neither
matrix is ever made: the factors are kept. A norm N(x) = gain * centre(x) / s(x) + bias is linear but for its
scale s, one number per token, so gain and centring (LayerNorm) belong to the weights:

    norm before the head:                  W <- centre_rows(gain[:, None] * W)     for W_Q, W_K, W_V
    norm on queries and keys (QK norm):    W <- centre_columns(W) * gain           for W_Q, W_K
    norm on what is written (sandwich):    W_O <- centre_columns(W_O) * gain

Left out: the scales s, and all biases; of QK also what the query's bias looks for in every key, whatever
the query. Rotary position embeddings turn queries and keys by an angle that depends on their distance; the
factors here are those before the rotation, so QK is the content part, exact at distance 0.

Which norm stands before the heads is not looked up but found: the one (or none) with which W_V gives the
model's own values on a few tokens. Values, queries, keys and attention outputs made from the weights are
compared with the model's own, and a model for which they differ is refused.

Cost: one forward pass of six tokens per model (remembered), a few operations per weight.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.circuit_gains import Gain, after_head_norm, gain_of, norm_width, wide
from mi_core.engine import Observation, frozen_norm, observe, post_norm
from mi_core.engine.readout import TOLERANCES
from mi_core.errors import ModelError, SiteMissing
from mi_core.model.model import LoadedModel
from mi_core.model.structure import child
from mi_core.model.weights import weight

N_TOKENS = 6


@dataclass(frozen=True, slots=True, eq=False)
class LayerCircuits:
    """The factors of every head of a layer, float64, gains folded; key/value heads repeated.

    Attributes:
        query, key, value: [head, d_model, d_head].
        output: [head, d_head, d_model].
        errors: what was compared with the model's own activations -> largest relative difference.
    """

    query: Float[Tensor, "head d_model d_head"]
    key: Float[Tensor, "head d_model d_head"]
    value: Float[Tensor, "head d_model d_head"]
    output: Float[Tensor, "head d_head d_model"]
    errors: Mapping[str, float]


def probe_run(model: LoadedModel) -> Observation:
    """The model's own activations on six token ids spread over the vocabulary, all distinct."""
    last = model.dims.d_vocab - 1
    ids = list(dict.fromkeys(index * last // N_TOKENS for index in range(N_TOKENS, 0, -1)))
    wanted = ("resid_pre", "v", "q", "k", "rot_q", "rot_k", "z", "attn_out")
    model.structure.require("v", 0)
    return observe(model, ids, [name for name in wanted if name not in model.structure.missing])


def layer_circuits(model: LoadedModel, layer: int, seen: Observation | None = None) -> LayerCircuits:
    """The factors of a layer's heads, compared with what the model does.

    Args:
        model: the loaded model.
        layer: layer index.
        seen: `probe_run(model)`, where several layers are asked for.

    Raises:
        SiteMissing: no such layer, or no such weights in this family.
        ModelError: kind "unsupported": the weights do not give the model's own values, queries, keys or
            outputs, or they are not in memory.
    """
    seen = probe_run(model) if seen is None else seen
    with model.lock:  # norms are called below, and nobody's hooks may meet them
        return _layer_circuits(model, layer, seen)


def _layer_circuits(model: LoadedModel, layer: int, seen: Observation) -> LayerCircuits:
    raw = {role: wide(weight(model.structure, f"W_{role}", layer)) for role in "QKVO"}
    before, stream, off = _attention_norm(model, layer, seen, raw["V"])
    errors = {"values": off}
    factors = dict(raw)
    if before is not None:
        factors |= {role: before.before(raw[role]) for role in "QKV"}
    for role, name in (("Q", "query"), ("K", "key")):
        module = child(model.structure.blocks[layer], getattr(model.structure.family, f"{name}_norm"))
        if module is not None:
            factors[role] = after_head_norm(module, factors[role], like=seen["resid_pre", layer])
        error = _query_error(model, layer, seen, role, stream, raw[role], module)
        errors |= {} if error is None else {"queries" if role == "Q" else "keys": error}
    module = post_norm(model, "attn", layer)
    if module is not None:
        like = seen["resid_pre", layer]
        factors["O"] = gain_of(module, model.dims.d_model, like).after(raw["O"])
    error = _output_error(model, layer, seen, raw["O"], module)
    errors |= {} if error is None else {"attention outputs": error}
    _refuse(model, layer, errors)
    group = model.dims.n_heads // model.dims.n_kv_heads
    key, value = (factors[role].repeat_interleave(group, 0) for role in "KV")
    return LayerCircuits(factors["Q"], key, value, factors["O"], errors)


def weights_check(errors: Mapping[str, float]) -> Check:
    """The comparison with the model's own activations, as shown with a figure."""
    listed = ", ".join(f"{name} {error:.1e}" for name, error in errors.items())
    return Check(
        "weights and norms give the model's own activations",
        True,  # what differs is refused before there is a result
        f"Computed from these weights on {N_TOKENS} tokens; largest relative differences: {listed}.",
    )


def worst(errors: Iterator[Mapping[str, float]]) -> dict[str, float]:
    """The largest difference of each kind over layers."""
    found: dict[str, float] = {}
    for one in errors:
        found |= {name: max(error, found.get(name, 0.0)) for name, error in one.items()}
    return found


def _bias(model: LoadedModel, role: str, layer: int) -> Tensor | float:
    try:
        return wide(weight(model.structure, f"b_{role}", layer))
    except SiteMissing:  # a family without this bias
        return 0.0


def _attention_norm(
    model: LoadedModel, layer: int, seen: Observation, values: Tensor
) -> tuple[Gain | None, Tensor, float]:
    """(gain or None, what enters the heads [pos d_model], relative error of the values) of the best norm."""
    inputs, own = seen["resid_pre", layer], wide(seen["v", layer])
    bias = _bias(model, "V", layer)
    found: list[tuple[float, Gain | None, Tensor]] = []
    for gain, stream in _entrances(model.structure.blocks[layer], inputs):
        made = torch.einsum("pd,hdn->phn", stream.to(values), values) + bias
        found.append((_difference(made, own), gain, stream))
    error, gain, stream = min(found, key=lambda one: one[0])
    return gain, stream, error


def _entrances(block: nn.Module, inputs: Tensor) -> Iterator[tuple[Gain | None, Tensor]]:
    """What may enter the heads: the stream itself, or the stream through one of the block's norms."""
    yield None, wide(inputs)
    for module in block.children():
        if "norm" not in type(module).__name__.lower() or any(True for _ in module.children()):
            continue
        try:
            frozen = frozen_norm(module, inputs)
        except ModelError:  # no norm of this kind; if the heads need it, the values will not fit
            continue
        yield Gain(wide(frozen.gain), frozen.centred), wide(frozen.linear(inputs) + frozen.bias)


def _query_error(
    model: LoadedModel,
    layer: int,
    seen: Observation,
    role: str,
    stream: Tensor,
    weights: Float[Tensor, "head d_model d_head"],
    norm: nn.Module | None,
) -> float | None:
    """Queries (or keys) from the weights against those that meet in the scores, at position 0.

    Rotary turns nothing at position 0 (it may scale there: YaRN), so a norm that this family's data does not
    name would be noticed.
    """
    turned = (f"rot_{role.lower()}", layer)
    plain = (role.lower(), layer)
    if turned not in seen and plain not in seen:
        return None
    own = wide(seen[turned if turned in seen else plain])[0]
    made = torch.einsum("d,hdn->hn", stream[0].to(weights), weights) + _bias(model, role, layer)
    if norm is not None:
        like = seen["resid_pre", layer]
        with torch.inference_mode():
            entering = made.to(like.device, like.dtype)
            shaped = entering if norm_width(norm, made.shape[-1]) == made.shape[-1] else entering.flatten()
            made = wide(norm(shaped)).reshape(made.shape).to(made.device)
    own = own.to(made.device)
    factor = (own * made).sum() / (made * made).sum().clamp_min(1e-300)
    return _difference(factor * made, own)


def _output_error(
    model: LoadedModel,
    layer: int,
    seen: Observation,
    weights: Float[Tensor, "head d_head d_model"],
    norm: nn.Module | None,
) -> float | None:
    """What the heads write, from the weights, against what attention adds to the stream."""
    if ("z", layer) not in seen or ("attn_out", layer) not in seen:
        return None
    own = seen["attn_out", layer]
    z = wide(seen["z", layer]).to(weights.device)
    made = torch.einsum("phn,hnd->pd", z, weights) + _bias(model, "O", layer)
    if norm is not None:
        with torch.inference_mode():
            made = wide(norm(made.to(own.device, own.dtype)))
    return _difference(made, wide(own).to(made.device))


def _difference(made: Tensor, own: Tensor) -> float:
    """Largest difference, relative to the largest value."""
    own = own.to(made.device)
    return float((made - own).abs().max() / own.abs().max().clamp_min(1e-30))


def _refuse(model: LoadedModel, layer: int, errors: Mapping[str, float]) -> None:
    allowed = TOLERANCES.get(model.dtype, 1e-1)
    wrong = [f"{name} by {error:.1e}" for name, error in errors.items() if not error <= allowed]
    if wrong:
        raise ModelError(
            f"The weights of attention in layer {layer} cannot be read as circuits",
            kind="unsupported",
            why=f"computed from them, {' and '.join(wrong)} differ from the model's own",
        )
