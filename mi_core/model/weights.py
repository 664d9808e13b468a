"""Weights of a loaded model by their TransformerLens names and shapes, split out of fused matrices.

    W_E [d_vocab d_model]   W_U [d_model d_vocab]   W_Q [head d_model d_head]   W_K, W_V [kv_head d_model
    d_head]
    W_O [head d_head d_model]   W_in, W_gate [d_model d_mlp]   W_out [d_mlp d_model]   b_* without the input
    axis

These are views or copies of the raw published weights: nothing is folded or centred, so norms keep their own
gains (unlike TransformerLens' defaults). `x @ W + b` is what the module computes.
"""

from jaxtyping import Float
from torch import Tensor, nn

from mi_core.errors import ModelError, SiteMissing
from mi_core.model.structure import Structure, child

NAMES = (
    "W_Q",
    "W_K",
    "W_V",
    "W_O",
    "W_in",
    "W_gate",
    "W_out",
    "b_Q",
    "b_K",
    "b_V",
    "b_O",
    "b_in",
    "b_gate",
    "b_out",
)
"""Per-layer weights; a family without one of them raises SiteMissing."""


_QKV = ("Q", "K", "V")


def embedding(hf: nn.Module) -> Float[Tensor, "d_vocab d_embed"]:
    """W_E as stored; Gemma's scale belongs to the embedding module, not to the matrix."""
    return _stored(hf.get_input_embeddings(), "token embedding")  # type: ignore[operator]


def unembedding(hf: nn.Module) -> Float[Tensor, "d_embed d_vocab"]:
    """W_U, transposed from the head's matrix."""
    return _stored(hf.get_output_embeddings(), "unembedding").T  # type: ignore[operator]


def tied(hf: nn.Module) -> bool:
    """Whether embedding and unembedding are one matrix."""
    both = hf.get_input_embeddings().weight, hf.get_output_embeddings().weight  # type: ignore[operator]
    return both[0].data_ptr() == both[1].data_ptr() and both[0].device.type != "meta"


def weight(structure: Structure, name: str, layer: int) -> Tensor:
    """One weight of one layer.

    Args:
        structure: the resolved model.
        name: one of `NAMES`.
        layer: layer index.

    Raises:
        SiteMissing: the family has no such weight (no bias, no gate) or no such layer.
        ModelError: kind "unsupported": the weights are not in memory (offloaded).
    """
    structure.require("resid_pre", layer)
    if name not in NAMES:
        raise SiteMissing(f"There is no weight called {name!r}", fix=f"Weights are: {', '.join(NAMES)}")
    kind, role = name.split("_")
    tensor = _bias(structure, role, layer) if kind == "b" else _matrix(structure, role, layer)
    if tensor is None:
        raise SiteMissing(f"{structure.family.name} models have no {name}")
    return tensor


def _stored(module: nn.Module | None, what: str) -> Tensor:
    tensor = getattr(module, "weight", None)
    if not isinstance(tensor, Tensor) or tensor.device.type == "meta":
        raise ModelError(
            f"The {what} cannot be read",
            kind="unsupported",
            why="its weights are not in memory",
            fix="Load without offloading",
        )
    return tensor.detach()


def _module(structure: Structure, role: str, layer: int) -> nn.Module | None:
    family = structure.family
    first = family.mlp_up if family.gated else family.mlp_gate
    gate = family.mlp_gate if family.gated else None
    paths = {
        "Q": family.query,
        "K": family.key,
        "V": family.value,
        "O": family.output_projection,
        "in": first,
        "gate": gate,
        "out": family.mlp_down,
    }
    return child(structure.blocks[layer], paths[role])


def _in_by_out(module: nn.Module, structure: Structure, what: str) -> Tensor:
    stored = _stored(module, what)
    return stored if structure.family.transposed else stored.T


def _columns(structure: Structure, role: str, width: int) -> slice:
    """Output columns of a role in a matrix that holds q, k, v or gate, up one after the other."""
    dims, family = structure.dims, structure.family
    q, kv = dims.n_heads * dims.d_head, dims.n_kv_heads * dims.d_head
    if role in _QKV and family.qkv == "columns":
        start = {"Q": 0, "K": q, "V": q + kv}[role]
        return slice(start, start + (q if role == "Q" else kv))
    if role in ("in", "gate") and family.fused_gate:
        return slice(dims.d_mlp, 2 * dims.d_mlp) if role == "in" else slice(0, dims.d_mlp)
    return slice(0, width)


def _matrix(structure: Structure, role: str, layer: int) -> Tensor | None:
    module, dims = _module(structure, role, layer), structure.dims
    if module is None:
        return None
    matrix = _in_by_out(module, structure, f"W_{role}")
    if role == "O":
        return matrix.reshape(dims.n_heads, dims.d_head, -1)
    if role not in _QKV:
        return matrix[:, _columns(structure, role, matrix.shape[1])]
    if structure.family.qkv == "by_head":
        return matrix.reshape(-1, dims.n_heads, 3, dims.d_head)[:, :, "QKV".index(role)].transpose(0, 1)
    n_heads = dims.n_heads if role == "Q" else dims.n_kv_heads
    part = matrix[:, _columns(structure, role, matrix.shape[1])]
    return part.reshape(-1, n_heads, dims.d_head).transpose(0, 1)


def _bias(structure: Structure, role: str, layer: int) -> Tensor | None:
    module, dims = _module(structure, role, layer), structure.dims
    bias = getattr(module, "bias", None)
    if not isinstance(bias, Tensor):
        return None
    if bias.device.type == "meta":
        return _stored(None, f"b_{role}")
    bias = bias.detach()
    if role not in _QKV:
        return bias[_columns(structure, role, len(bias))]
    if structure.family.qkv == "by_head":
        return bias.reshape(dims.n_heads, 3, dims.d_head)[:, "QKV".index(role)]
    n_heads = dims.n_heads if role == "Q" else dims.n_kv_heads
    return bias[_columns(structure, role, len(bias))].reshape(n_heads, dims.d_head)
