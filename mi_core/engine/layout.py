"""Which tokens of which rows a forward pass computes, and where each of them lies in the module's tensors.

A *dense* pass has tensors [row, pos, ...] and every token of every row. A *packed* pass has tensors [1,
token, ...]: the rows of all live variants laid end to end, each beginning at the first position that its
edits change. Both are one flat token axis to the rest of the engine, so edits are written once.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Group:
    """Consecutive rows that begin at the same position.

    Attributes:
        first: their first position.
        row: index of the first row.
        n_rows: number of rows.
        token: flat index of the first token.
        length: tokens per row.
    """

    first: int
    row: int
    n_rows: int
    token: int
    length: int

    @property
    def n_tokens(self) -> int:
        """Tokens in the group."""
        return self.n_rows * self.length


@dataclass(frozen=True, slots=True)
class Layout:
    """Rows, where they begin, and the flat index of each token. Every row ends at position `n_pos - 1`.

    Attributes:
        n_pos: tokens of a whole prompt.
        groups: rows by first position, in flat order.
        dense: whether tensors are [row, pos, ...] (one group from position 0) instead of [1, token, ...].
        row_first: [row] first position of each row.
        row_token: [row] flat index of the first token of each row.
    """

    n_pos: int
    groups: tuple[Group, ...]
    dense: bool
    row_first: np.ndarray
    row_token: np.ndarray

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return len(self.row_first)

    @property
    def n_tokens(self) -> int:
        """Length of the flat token axis."""
        return sum(group.n_tokens for group in self.groups)

    def positions(self) -> np.ndarray:
        """[token] position of every flat token."""
        parts = [np.tile(np.arange(g.first, self.n_pos), g.n_rows) for g in self.groups]
        return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def dense_layout(n_rows: int, n_pos: int) -> Layout:
    """All tokens of `n_rows` rows."""
    rows = np.arange(n_rows)
    return Layout(n_pos, (Group(0, 0, n_rows, 0, n_pos),), True, np.zeros(n_rows, np.int64), rows * n_pos)


def packed_layout(n_pos: int, rows_by_first: list[tuple[int, int]]) -> Layout:
    """Rows packed end to end.

    Args:
        n_pos: tokens of a whole prompt.
        rows_by_first: (first position, number of rows) of each group, in flat order.
    """
    groups: list[Group] = []
    first_of, token_of = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    row = token = 0
    for first, n_rows in rows_by_first:
        length = n_pos - first
        groups.append(Group(first, row, n_rows, token, length))
        first_of.append(np.full(n_rows, first))
        token_of.append(token + length * np.arange(n_rows))
        row, token = row + n_rows, token + length * n_rows
    return Layout(n_pos, tuple(groups), False, np.concatenate(first_of), np.concatenate(token_of))
