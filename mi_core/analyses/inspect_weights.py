"""All weights of a loaded model by role: every parameter exactly once, whatever its module is called.

Weights with a TransformerLens name come from `mi_core.model.weights`. Each of them is a view of some
parameter, found by the memory it lies in; a parameter whose views do not add up to all of it, or that no name
covers, is listed by its own name. So a family whose data is incomplete shows up as a row "other" and never as
a number that is missing or counted twice.
"""

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn

from mi_core.analyses.inspect_parts import Role, WeightInfo
from mi_core.errors import InputError, ModelError, SiteMissing
from mi_core.model.model import LoadedModel
from mi_core.model.structure import Structure, child
from mi_core.model.weights import NAMES, tied, weight

BY_HEAD = ("W_Q", "W_K", "W_V", "W_O", "b_Q", "b_K", "b_V")


@dataclass(frozen=True, slots=True, eq=False)
class NamedWeight:
    """A weight and what is known about it without reading its numbers.

    Attributes:
        info: the whole weight (head None).
        tensor: its numbers: [head, ...] where `by_head`, else as `info.shape` says.
        by_head: whether the first axis of `tensor` is heads.
    """

    info: WeightInfo
    tensor: Tensor
    by_head: bool = False

    @property
    def in_memory(self) -> bool:
        """Whether its numbers can be read (offloaded and empty ones cannot)."""
        return self.tensor.device.type != "meta" and self.tensor.numel() > 0

    def matrix(self) -> Tensor:
        """The whole weight in the shape of `info.shape`; heads side by side."""
        if not self.by_head:
            return self.tensor
        joined = self.tensor if self.info.name == "W_O" else self.tensor.movedim(0, -2)
        return joined.reshape(self.info.shape)

    def head_info(self, head: int) -> WeightInfo:
        """The part of one head."""
        info = self.info
        return WeightInfo(
            info.name, info.role, info.layer, head, tuple(self.tensor.shape[1:]), info.dtype, info.stored_in
        )


def named_weights(model: LoadedModel) -> list[NamedWeight]:
    """Every parameter of a model exactly once, in the order of a forward pass.

    A matrix that is tied to another is listed too, marked with `info.tied_to`.

    Returns:
        Embeddings, then layer by layer, then final norm, unembedding, and what no role covers.
    """
    owners = _Owners(model.hf)
    pieces: dict[str, list[NamedWeight]] = {}
    for piece in _covered(model, owners):
        pieces.setdefault(piece.info.stored_in, []).append(piece)
    found: list[NamedWeight] = []
    for name, parameter in owners.parameters.items():
        own = pieces.get(name, [])
        if own and sum(piece.info.numbers for piece in own) == parameter.numel():
            found += own
        else:
            found.append(_by_own_name(model, name, parameter))
    return sorted([*found, *_tied_unembedding(model, owners)], key=lambda piece: _place(piece.info))


def find_weight(model: LoadedModel, full_name: str) -> tuple[WeightInfo, Tensor]:
    """A weight, or one head's part of it, by its full name.

    Raises:
        InputError: the model has no such weight.
        ModelError: kind "unsupported": its numbers are not in memory.
    """
    part = re.fullmatch(r"(.+)\[(\d{1,6})\]", full_name)
    whole, head = (part[1], int(part[2])) if part else (full_name, None)
    for found in named_weights(model):
        if found.info.full_name != whole:
            continue
        if not found.in_memory:
            raise ModelError(
                f"The numbers of {whole} are not in memory",
                kind="unsupported",
                fix="Load the model without offloading",
            )
        if head is None:
            return found.info, found.matrix()
        if found.by_head and head < len(found.tensor):
            return found.head_info(head), found.tensor[head]
    raise InputError(
        f"There is no weight called {full_name!r:.100}",
        fix="Names are as in the table of weights, such as blocks.0.attn.W_Q",
    )


class _Owners:
    """Finds the parameter in whose memory a view begins."""

    def __init__(self, hf: nn.Module) -> None:
        self.parameters = {name: parameter.detach() for name, parameter in hf.named_parameters()}
        spans = [
            (str(tensor.device), tensor.data_ptr(), tensor.numel() * tensor.element_size(), name)
            for name, tensor in self.parameters.items()
            if tensor.device.type != "meta" and tensor.numel() > 0
        ]
        self._spans = sorted(spans)

    def of(self, view: Tensor) -> str | None:
        """Name of the parameter, or None if the view is a copy."""
        device, start = str(view.device), view.data_ptr()
        index = bisect_right(self._spans, (device, start, float("inf"), "")) - 1
        if index < 0:
            return None
        where, first, size, name = self._spans[index]
        return name if where == device and first <= start < first + size else None


def _covered(model: LoadedModel, owners: _Owners) -> Iterator[NamedWeight]:
    """The weights that have a name of their own."""
    for layer in range(model.dims.n_layers):
        for name in NAMES:
            piece = _of_block(model.structure, owners, name, layer)
            if piece is not None:
                yield piece
    for name, role, tensor in _of_ends(model):
        stored_in = owners.of(tensor)
        if stored_in is not None:
            yield NamedWeight(_info(name, role, None, tuple(tensor.shape), tensor, stored_in), tensor)


def _of_block(structure: Structure, owners: _Owners, name: str, layer: int) -> NamedWeight | None:
    """One weight of one block; None if the family has none, or it is not in memory."""
    try:
        tensor = weight(structure, name, layer)
    except (SiteMissing, ModelError):
        return None
    stored_in = owners.of(tensor) if tensor.numel() else None
    if stored_in is None:
        return None
    role: Role = "mlp" if name.split("_")[1] in ("in", "gate", "out") else "attention"
    by_head = name in BY_HEAD
    shape = _whole_shape(name, tensor) if by_head else tuple(tensor.shape)
    return NamedWeight(_info(name, role, layer, shape, tensor, stored_in), tensor, by_head)


def _whole_shape(name: str, tensor: Tensor) -> tuple[int, ...]:
    """[d_model, head * d_head]; [head * d_head, d_model] for W_O; [head * d_head] for biases."""
    heads, *rest = tensor.shape
    if name == "W_O":
        return heads * rest[0], rest[1]
    return (rest[0], heads * rest[1]) if len(rest) == 2 else (heads * rest[0],)


def _info(
    name: str, role: Role, layer: int | None, shape: tuple[int, ...], tensor: Tensor, stored_in: str
) -> WeightInfo:
    dtype = str(tensor.dtype).removeprefix("torch.")
    return WeightInfo(name, role, layer, None, shape, dtype, stored_in)


def _of_ends(model: LoadedModel) -> Iterator[tuple[str, Role, Tensor]]:
    """Token and position embedding, unembedding with its bias; only what is in memory."""
    hf, family = model.hf, model.structure.family
    head = hf.get_output_embeddings()
    candidates: list[tuple[str, Role, object]] = [
        ("W_E", "embedding", getattr(hf.get_input_embeddings(), "weight", None)),
        ("W_pos", "embedding", getattr(child(hf, family.position_embedding), "weight", None)),
        ("b_U", "unembedding", getattr(head, "bias", None)),
    ]
    if head is not None and not tied(hf):
        candidates.append(("W_U", "unembedding", getattr(head, "weight", None)))
    for name, role, tensor in candidates:
        if isinstance(tensor, Tensor) and tensor.device.type != "meta" and tensor.numel():
            yield name, role, tensor.detach().T if name == "W_U" else tensor.detach()


def _tied_unembedding(model: LoadedModel, owners: _Owners) -> Iterator[NamedWeight]:
    head = model.hf.get_output_embeddings()
    if head is None or not tied(model.hf):
        return
    tensor = head.weight.detach().T
    stored_in = owners.of(tensor)
    if stored_in is not None:
        dtype = str(tensor.dtype).removeprefix("torch.")
        info = WeightInfo(
            "W_U", "unembedding", None, None, tuple(tensor.shape), dtype, stored_in, tied_to="embed.W_E"
        )
        yield NamedWeight(info, tensor)


def _by_own_name(model: LoadedModel, name: str, parameter: Tensor) -> NamedWeight:
    """A parameter without a TransformerLens name: of a norm, or of something that families do not say."""
    start = f"{model.structure.family.blocks}."
    layer, inside = None, name
    if name.startswith(start):
        number, _, inside = name.removeprefix(start).partition(".")
        layer = int(number)
    in_decoder = layer is not None or name.startswith(f"{model.structure.family.final_norm}.")
    role: Role = "norm" if in_decoder and _is_norm(child(model.hf, name.rpartition(".")[0])) else "other"
    return NamedWeight(_info(inside, role, layer, tuple(parameter.shape), parameter, name), parameter)


def _is_norm(module: nn.Module | None) -> bool:
    return "norm" in type(module).__name__.lower()


_ORDER = ("W_E", "W_pos", "W_Q", "b_Q", "W_K", "b_K", "W_V", "b_V", "W_O", "b_O")
_ORDER += ("W_gate", "b_gate", "W_in", "b_in", "W_out", "b_out", "W_U", "b_U")
_STAGE = {"embedding": 0, "norm": 2, "unembedding": 3, "other": 4}


def _place(info: WeightInfo) -> tuple[int, int, int, int]:
    """Where a weight stands in the list: as in a forward pass, norms behind the matrices of a block."""
    stage = 1 if info.layer is not None else _STAGE[info.role]
    role = ("attention", "mlp", "norm", "other").index(info.role) if stage == 1 else 0
    order = _ORDER.index(info.name) if info.name in _ORDER else len(_ORDER)
    return stage, -1 if info.layer is None else info.layer, role, order
