"""How features that were not edited answer to edits of others: activations before and after."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mi_core.transcoders.encode import TOKENS_AT_ONCE, encode_layer
from mi_core.transcoders.names import FeatureAt
from mi_core.transcoders.transcoder import Transcoder


@dataclass(frozen=True, slots=True, eq=False)
class Others:
    """The features that change most, and how many there are.

    Attributes:
        layers: [feature] largest change first.
        positions: [feature] tokens.
        indices: [feature] numbers within the layer.
        activations: [run, feature] baseline and edited.
        n_active: [run] active ones, of all that were looked at.
        n_switched: [switch] how many were switched on, and off.
    """

    layers: Int[np.ndarray, " feature"]
    positions: Int[np.ndarray, " feature"]
    indices: Int[np.ndarray, " feature"]
    activations: Float[np.ndarray, "2 feature"]
    n_active: Int[np.ndarray, "2"]
    n_switched: Int[np.ndarray, "2"]


def other_features(
    transcoder: Transcoder,
    before: Mapping[int, Float[Tensor, "pos d_model"]],
    after: Mapping[int, Float[Tensor, "pos d_model"]],
    positions: Sequence[int],
    edited: Collection[FeatureAt],
    count: int,
) -> Others:
    """Compare what the encoders say of two runs.

    Args:
        transcoder: whose features.
        before: source layer -> what its encoder sees in the baseline.
        after: the same in the edited run.
        positions: tokens to look at.
        edited: features at tokens that are left out: what they do is known.
        count: how many of the most changed are listed.
    """
    best = _Best(count)
    n_active, n_switched = np.zeros(2, np.int64), np.zeros(2, np.int64)
    for layer in sorted(before):
        for start in range(0, len(positions), TOKENS_AT_ONCE):
            part = list(positions[start : start + TOKENS_AT_ONCE])
            pair = torch.stack(
                [encode_layer(transcoder, layer, read[layer][part]) for read in (before, after)]
            )
            row_of = {position: row for row, position in enumerate(part)}
            for at in edited:
                if at.layer == layer and at.position in row_of:
                    pair[:, row_of[at.position], at.index] = 0
            on = pair > 0
            n_active += on.sum((1, 2)).cpu().numpy()
            n_switched += [int((on[1] & ~on[0]).sum()), int((on[0] & ~on[1]).sum())]
            best.offer(layer, part, pair)
    return best.done(n_active, n_switched)


class _Best:
    """The largest changes so far; of equal ones the earlier layer, token and feature."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._rows: list[tuple[float, int, int, int, float, float]] = []

    def offer(self, layer: int, positions: Sequence[int], pair: Float[Tensor, "2 token feature"]) -> None:
        change = (pair[1] - pair[0]).abs().flatten()
        found = change.topk(min(self._count, len(change)))
        width = pair.shape[-1]
        for size, place in zip(found.values.tolist(), found.indices.tolist(), strict=True):
            if size > 0:
                token, feature = divmod(place, width)
                before, after = pair[:, token, feature].tolist()
                self._rows.append((-size, layer, positions[token], feature, before, after))
        self._rows = sorted(self._rows)[: self._count]

    def done(self, n_active: np.ndarray, n_switched: np.ndarray) -> Others:
        columns = list(zip(*self._rows, strict=True)) or [()] * 6
        layers, positions, indices = (np.array(column, dtype=np.int64) for column in columns[1:4])
        activations = np.array(columns[4:6], dtype=np.float64).reshape(2, -1)
        return Others(layers, positions, indices, activations, n_active, n_switched)


def nothing() -> Others:
    """No features were looked at."""
    none = np.zeros(0, np.int64)
    return Others(none, none, none, np.zeros((2, 0)), np.zeros(2, np.int64), np.zeros(2, np.int64))
