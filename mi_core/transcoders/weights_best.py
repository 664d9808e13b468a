"""The best few of many features, gathered piece by piece."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mi_core.transcoders.names import Feature

Table = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Layers, numbers and values, [list, rank] each."""


@dataclass(slots=True)
class Best:
    """Keeps the features with the largest values.

    Attributes:
        count: how many.
        leave_out: a feature that does not count, such as the one that the others are compared with.
        floor: values must be above it.
        found: (value, feature) of those that may be among the best so far.
    """

    count: int
    leave_out: Feature | None = None
    floor: float = -float("inf")
    found: list[tuple[float, Feature]] = field(default_factory=list)

    def add(self, layer: int, first: int, values: Float[Tensor, "feature"]) -> None:
        """Look at neighbouring features.

        Args:
            layer: their layer.
            first: number of the first of them.
            values: one per feature; NaN never counts.
        """
        values = torch.where(torch.isnan(values), -torch.inf, values)
        top = values.topk(min(self.count + 1, len(values)))
        for value, index in zip(top.values.tolist(), top.indices.tolist(), strict=True):
            feature = Feature(layer, first + index)
            if value > self.floor and feature != self.leave_out:
                self.found.append((value, feature))
        if len(self.found) > 50 * self.count:
            self.found = self.best()

    def best(self) -> list[tuple[float, Feature]]:
        """The best, the largest value first; ties by layer and number."""
        return sorted(self.found, key=lambda pair: (-pair[0], pair[1]))[: self.count]


def table_of(lists: Iterable[list[tuple[float, Feature]]], count: int) -> Table:
    """Layers, numbers and values [list, rank] of lists of features; -1 and NaN where a list is shorter."""
    rows = list(lists)
    layers, indices = (np.full((len(rows), count), -1, np.int64) for _ in range(2))
    values = np.full((len(rows), count), np.nan)
    for row, found in enumerate(rows):
        for rank, (value, feature) in enumerate(found[:count]):
            layers[row, rank], indices[row, rank], values[row, rank] = feature.layer, feature.index, value
    return layers, indices, values
