"""Edits placed on rows, compiled to index operations on flat token tensors.

Many variants differ only in position and value, so edits of different rows with the same operation, heads and
units are applied in one indexed assignment. Edits of the *same* row keep their order: the k-th edit of every
row forms round k.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mi_core.engine.edits import Edit, Value, combine
from mi_core.engine.layout import Group, Layout
from mi_core.errors import EditError

Place = tuple[str, int | None]


@dataclass(frozen=True, slots=True)
class Placed:
    """An edit and the consecutive rows of a layout that it acts on."""

    edit: Edit
    row: int
    n_rows: int


@dataclass(frozen=True, slots=True)
class _Batch:
    edit: Edit
    tokens: Tensor
    value: Value


def by_place(placed: Iterable[Placed]) -> dict[Place, list[Placed]]:
    """Sort placed edits by site and layer, keeping their order."""
    sorted_edits: dict[Place, list[Placed]] = defaultdict(list)
    for item in placed:
        sorted_edits[(item.edit.site, item.edit.layer)].append(item)
    return dict(sorted_edits)


def apply_flat(flat: Tensor, placed: Sequence[Placed], layout: Layout) -> tuple[Tensor, int]:
    """Apply edits at one place to a tensor [token, (head,) width].

    Returns:
        The new tensor (the old one is not changed) and how many edits acted; edits whose positions are not
        in the layout do not act.
    """
    out, acted = flat.clone(), 0
    for batch_round in _rounds(placed, layout.n_rows):
        for batch in _batches(batch_round, layout, out):
            index = _index(batch, out)
            out[index] = combine(out[index], batch.edit.operation, batch.value)
            acted += 1
    return out, acted


def _rounds(placed: Sequence[Placed], n_rows: int) -> list[list[Placed]]:
    """Split edits into rounds of disjoint rows, so that the edits of one row keep their order."""
    level = np.zeros(n_rows, np.int64)
    rounds: list[list[Placed]] = []
    for item in placed:
        rows = slice(item.row, item.row + item.n_rows)
        depth = int(level[rows].max(initial=0))
        level[rows] = depth + 1
        if depth == len(rounds):
            rounds.append([])
        rounds[depth].append(item)
    return rounds


def _batches(items: Sequence[Placed], layout: Layout, flat: Tensor) -> list[_Batch]:
    """Merge the edits of one round that differ only in rows, positions and value."""
    merged: dict[object, list[tuple[Placed, np.ndarray, np.ndarray]]] = defaultdict(list)
    for item in items:
        first = int(layout.row_first[item.row])
        wanted = np.arange(layout.n_pos) if item.edit.positions is None else np.asarray(item.edit.positions)
        kept = wanted >= first
        if not kept.any():
            continue
        bounds = item.edit.value if isinstance(item.edit.value, tuple) else None
        key = (item.edit.operation, item.edit.heads, item.edit.units, bounds)
        merged[key].append((item, wanted[kept] - first, kept))
    return [_merge(parts, layout, flat) for parts in merged.values()]


def _merge(parts: list[tuple[Placed, np.ndarray, np.ndarray]], layout: Layout, flat: Tensor) -> _Batch:
    edit = parts[0][0].edit
    tokens = [
        (layout.row_token[item.row : item.row + item.n_rows, None] + offsets[None, :]).ravel()
        for item, offsets, _ in parts
    ]
    index = torch.from_numpy(np.concatenate(tokens)).to(flat.device)
    if edit.operation in ("zero", "clamp"):
        return _Batch(edit, index, edit.value)
    values = [_expand(item, kept, flat) for item, _, kept in parts]
    return _Batch(edit, index, values[0] if len(values) == 1 else torch.cat(values))


def _expand(item: Placed, kept: np.ndarray, flat: Tensor) -> Tensor:
    """The value of one edit as [row * position, (head,) width], for the positions that the layout has."""
    edit, value = item.edit, item.edit.value
    shape = [item.n_rows, len(kept), *flat.shape[1:]]
    if edit.heads is not None:
        shape[2] = len(edit.heads)
    if edit.units is not None:
        shape[-1] = len(edit.units)
    if not isinstance(value, Tensor):
        value = torch.tensor(value, dtype=flat.dtype)
    value = value.to(flat.device, flat.dtype).expand(shape)
    if not kept.all():
        value = value[:, torch.from_numpy(kept)]
    return value.flatten(0, 1)


def _index(batch: _Batch, flat: Tensor) -> tuple[Tensor, ...]:
    """Index tuple that selects [token, (head,) (unit)] in a flat tensor."""
    heads, units, extra = batch.edit.heads, batch.edit.units, flat.dim() - 1
    if heads is None and units is None:
        return (batch.tokens,)
    parts = [batch.tokens.view(-1, *[1] * extra)]
    if extra == 2:
        chosen = range(flat.shape[1]) if heads is None else heads
        parts.append(torch.tensor(list(chosen), device=flat.device).view(1, -1, 1))
    chosen = range(flat.shape[-1]) if units is None else units
    parts.append(torch.tensor(list(chosen), device=flat.device).view(*[1] * extra, -1))
    return tuple(parts)


def apply_square(square: Tensor, placed: Sequence[Placed], group: Group) -> tuple[Tensor, int]:
    """Apply edits to the attention squares of one group of rows.

    Args:
        square: [row, head, query, key] of the group's rows; queries begin at the group's first position.
        placed: edits at this place, of any rows.
        group: the rows.

    Returns:
        The new tensor and how many edits acted.
    """
    out, acted = square.clone(), 0
    n_pos = square.shape[-1]
    for item in placed:
        start, stop = max(item.row, group.row), min(item.row + item.n_rows, group.row + group.n_rows)
        queries = range(n_pos) if item.edit.positions is None else item.edit.positions
        kept = [i for i, query in enumerate(queries) if query >= group.first]
        if start >= stop or not kept:
            continue
        edit = item.edit
        index = torch.meshgrid(
            torch.arange(start - group.row, stop - group.row),
            torch.tensor(range(square.shape[1]) if edit.heads is None else edit.heads),
            torch.tensor([list(queries)[i] - group.first for i in kept]),
            torch.tensor(range(n_pos) if edit.keys is None else edit.keys),
            indexing="ij",
        )
        index = tuple(part.to(square.device) for part in index)
        if edit.operation == "mask":
            out[index] = -torch.inf
        else:
            value = _square_value(item, start, stop, kept, len(list(queries)))
            if edit.operation in ("scale_edges", "set_edges"):
                _weigh_edges(out, index, edit.operation, value)
            else:
                out[index] = combine(out[index], edit.operation, value)
        acted += 1
    return out, acted


def _weigh_edges(pattern: Tensor, index: tuple[Tensor, ...], operation: str, value: Value) -> None:
    """Scale or set edges after the softmax, in place; every row that had a sum has the sum 1 again.

    Args:
        pattern: [row, head, query, key].
        index: what is selected, as a grid of [row, head, query, key] indices.
        operation: "scale_edges" or "set_edges".
        value: for the selected edges.

    Raises:
        EditError: a row has nothing left to take from: all its weight is on the edges that are set.
    """
    rows_index = tuple(part[..., 0] for part in index[:3])
    precise = torch.promote_types(pattern.dtype, torch.float32)
    rows = pattern[rows_index].to(precise)  # [row, head, query, key]
    keys = index[3][0, 0, 0]
    given = torch.as_tensor(value, dtype=precise, device=pattern.device)
    if operation == "scale_edges":
        rows[..., keys] = rows[..., keys] * given
        whole = rows.sum(-1, keepdim=True)
        rows = torch.where(whole > 0, rows / whole.clamp_min(torch.finfo(precise).tiny), rows)
    else:
        rows = _with_shares(rows, keys, given.expand(*rows.shape[:-1], len(keys)))
    pattern[rows_index] = rows.to(pattern.dtype)


def _with_shares(rows: Tensor, keys: Tensor, shares: Tensor) -> Tensor:
    """Rows whose chosen keys have exactly the given shares, and whose others keep their proportions."""
    others = rows.clone()
    others[..., keys] = 0
    wanted, had = 1 - shares.sum(-1, keepdim=True), others.sum(-1, keepdim=True)
    if bool(((had == 0) & (wanted.abs() > 1e-6)).any()):
        raise EditError(
            "An edge cannot be set to this value",
            why="its query gives no attention to any other key, so nothing can take the rest",
        )
    others = others * (wanted.clamp_min(0) / torch.where(had == 0, torch.ones_like(had), had))
    others[..., keys] = shares
    return others


def _square_value(item: Placed, start: int, stop: int, kept: list[int], n_queries: int) -> Value:
    """The part of a value [row, head, query, key] that belongs to the kept rows and queries."""
    value = item.edit.value
    if not isinstance(value, Tensor) or value.dim() == 0:
        return value
    while value.dim() < 4:
        value = value[None]
    if value.shape[0] > 1:
        value = value[start - item.row : stop - item.row]
    return value[:, :, kept] if value.shape[2] == n_queries and n_queries > 1 else value
