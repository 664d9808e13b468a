"""What the attention of a packed pass needs of the base run that its rows continue."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mi_core.engine.layout import Group


class KeysReady(Exception):  # a signal that leaves a layer early, not an error
    """Raised inside a layer once its keys and values are known and nothing else is wanted."""


@dataclass(frozen=True, eq=False, slots=True)
class RowKeys:
    """Keys and values of a group of rows over all positions.

    Attributes:
        keys: after rotary, [row, kv_head, pos, d_head].
        values: [row, kv_head, pos, d_head].
    """

    keys: Float[Tensor, "row kv_head pos d_head"]
    values: Float[Tensor, "row kv_head pos d_head"]


@dataclass(frozen=True, eq=False, slots=True)
class Continuation:
    """The base run, as far as attention needs it.

    Attributes:
        prefix: (layer, first) -> the base rows' keys and values before position `first`.
        masks: per layer the base run's additive mask [1, 1, query, key], or None.
        n_base: base rows; row r of a packed pass continues base row r % n_base.
        stop_at_keys: raise `KeysReady` as soon as a layer's keys and values are joined.
        key_rows: keys and values per group that are already known; None to join them here.
    """

    prefix: Callable[[int, int], tuple[Tensor, Tensor]]
    masks: Sequence[Tensor | None]
    n_base: int
    stop_at_keys: bool = False
    key_rows: list[RowKeys] | None = None

    def join(self, layer: int, group: Group, key: Tensor, value: Tensor) -> RowKeys:
        """The base run's keys and values before a group's first position, then the group's own.

        Args:
            layer: the layer.
            group: rows of a packed pass.
            key: packed keys of all rows, [1, kv_head, token, d_head].
            value: packed values, same shape.
        """
        own_key, own_value = unpack(key, group), unpack(value, group)
        if group.first == 0:
            return RowKeys(own_key, own_value)
        repeats = group.n_rows // self.n_base
        past_key, past_value = (
            part.to(key.device).repeat(repeats, 1, 1, 1) for part in self.prefix(layer, group.first)
        )
        return RowKeys(torch.cat([past_key, own_key], 2), torch.cat([past_value, own_value], 2))


def unpack(packed: Tensor, group: Group) -> Float[Tensor, "row head pos d_head"]:
    """The rows of one group out of a packed [1, head, token, d_head]."""
    own = packed[0, :, group.token : group.token + group.n_tokens]
    return own.unflatten(1, (group.n_rows, group.length)).transpose(0, 1)
