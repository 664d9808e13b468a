"""Running statistics of the features of one layer over a corpus, in memory that does not grow with it.

Per feature: at how many tokens it is active, its largest activation, a histogram, the strongest token of each
of the `top` rows where it is strongest, and `sampled` of its active tokens drawn at random. The draw gives
every active token a number that depends on seed, feature and place alone and keeps the largest, so that it is
the same whatever the batches are and after any interruption.

Bins of the histogram are eighths of octaves from 2^-12 to 2^14, for all transcoders alike; what lies outside
is counted in the first and the last.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, UInt

PER_OCTAVE, LOWEST, HIGHEST = 8, -12, 14
N_BINS = PER_OCTAVE * (HIGHEST - LOWEST)
NONE = -1
_BYTES_OF_ONE = 8 + 4 + 4 + 4 + 8


def bin_edges() -> Float[np.ndarray, " edge"]:
    """Ends of the bins, rising."""
    return 2.0 ** (np.arange(N_BINS + 1) / PER_OCTAVE + LOWEST)


def state_bytes(n_features: int, top: int, sampled: int) -> int:
    """Memory that the running statistics of so many features take."""
    return n_features * (8 + 4 + 4 * N_BINS + (top + sampled) * _BYTES_OF_ONE)


@dataclass(slots=True)
class Best:
    """The entries with the largest keys of every feature, in descending order.

    Attributes:
        keys: [feature, k] float64; -inf where there is none yet.
        values: [feature, k] activations.
        rows: [feature, k] number of the row; -1 where there is none.
        positions: [feature, k] position in the row.
        prefixes: [feature, k] number of the tokens up to there (see `prefix_numbers`).
        distinct: whether only one entry with the same prefix is kept, the one with the largest key.
    """

    keys: Float[np.ndarray, "feature k"]
    values: Float[np.ndarray, "feature k"]
    rows: Int[np.ndarray, "feature k"]
    positions: Int[np.ndarray, "feature k"]
    prefixes: Int[np.ndarray, "feature k"]
    distinct: bool = False

    @classmethod
    def empty(cls, n_features: int, k: int, *, distinct: bool = False) -> "Best":
        """No entries yet."""
        shape = (n_features, k)
        return cls(
            np.full(shape, -np.inf),
            np.zeros(shape, np.float32),
            np.full(shape, NONE, np.int32),
            np.full(shape, NONE, np.int32),
            np.zeros(shape, np.int64),
            distinct,
        )

    def add(
        self,
        features: Int[np.ndarray, " n"],
        keys: Float[np.ndarray, " n"],
        values: Float[np.ndarray, " n"],
        rows: Int[np.ndarray, " n"],
        positions: Int[np.ndarray, " n"],
        prefixes: Int[np.ndarray, " n"],
    ) -> None:
        """Take entries in; of equal keys the earlier place comes first."""
        good = keys >= self.keys[features, -1]
        if not good.any():
            return
        touched, new = np.unique(features[good], return_inverse=True)
        k = self.keys.shape[1]
        which = np.concatenate([np.repeat(np.arange(len(touched)), k), new])
        arrays = (self.keys, self.values, self.rows, self.positions, self.prefixes)
        joined = [
            np.concatenate([old[touched].ravel(), part[good]])
            for old, part in zip(arrays, (keys, values, rows, positions, prefixes), strict=True)
        ]
        order = np.lexsort((joined[3], joined[2], -joined[0], which))
        if self.distinct:
            order = order[_first_of(which[order], joined[4][order], joined[2][order] != NONE)]
        which = which[order]
        rank = np.arange(len(which)) - np.searchsorted(which, which)
        kept = order[rank < k]
        at = (touched[which[rank < k]], rank[rank < k])
        self.keys[touched], self.rows[touched] = -np.inf, NONE
        for array, part in zip(arrays, joined, strict=True):
            array[at] = part[kept]


def _first_of(
    which: Int[np.ndarray, " n"], prefixes: Int[np.ndarray, " n"], there: Bool[np.ndarray, " n"]
) -> Int[np.ndarray, " kept"]:
    """Indices of the first entry of every (which, prefix), in order, and of no place that is empty."""
    by = np.lexsort((np.arange(len(which)), prefixes, which))
    begins = np.ones(len(by), bool)
    begins[1:] = (which[by][1:] != which[by][:-1]) | (prefixes[by][1:] != prefixes[by][:-1])
    first = np.sort(by[begins])
    return first[there[first]]


@dataclass(slots=True)
class LayerState:
    """What is known so far about the features of one layer.

    Attributes:
        layer: the layer.
        seed: of the draw.
        counts: [feature] tokens at which it is active.
        largest: [feature] largest activation.
        histogram: [feature, bin] active tokens.
        top: strongest tokens, one per row.
        sample: active tokens drawn at random.
        not_finite: activations that were infinite or no number; they do not count.
    """

    layer: int
    seed: int
    counts: Int[np.ndarray, " feature"]
    largest: Float[np.ndarray, " feature"]
    histogram: UInt[np.ndarray, "feature bin"]
    top: Best
    sample: Best
    not_finite: int = 0

    @classmethod
    def empty(cls, layer: int, n_features: int, top: int, sampled: int, seed: int) -> "LayerState":
        """Nothing counted yet."""
        return cls(
            layer,
            seed,
            np.zeros(n_features, np.int64),
            np.zeros(n_features, np.float32),
            np.zeros((n_features, N_BINS), np.uint32),
            Best.empty(n_features, top, distinct=True),
            Best.empty(n_features, sampled),
        )

    def add(
        self,
        features: Int[np.ndarray, " n"],
        values: Float[np.ndarray, " n"],
        rows: Int[np.ndarray, " n"],
        positions: Int[np.ndarray, " n"],
        prefixes: Int[np.ndarray, " n"],
    ) -> None:
        """Count active tokens; all of a row come at once, and every token once.

        Args:
            features: which feature is active.
            values: its activation, above 0.
            rows: number of the row.
            positions: position in the row.
            prefixes: number of the tokens up to there.
        """
        finite = np.isfinite(values)
        if not finite.all():
            self.not_finite += int((~finite).sum())
            features, values, rows, positions = (part[finite] for part in (features, values, rows, positions))
        if not len(features):
            return
        self.counts += np.bincount(features, minlength=len(self.counts))
        np.maximum.at(self.largest, features, values)
        np.add.at(self.histogram, (features, bins_of(values)), 1)
        strongest = _first_of_rows(features, values, rows, positions)
        wide = values.astype(np.float64)
        self.top.add(*(part[strongest] for part in (features, wide, values, rows, positions, prefixes)))
        keys = draw(self.seed, self.layer, features, rows, positions)
        self.sample.add(features, keys, values, rows, positions, prefixes)


def bins_of(values: Float[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """The bin of each activation."""
    inside = np.searchsorted(bin_edges(), values.astype(np.float64), side="right") - 1
    return np.clip(inside, 0, N_BINS - 1)


def _first_of_rows(
    features: np.ndarray, values: np.ndarray, rows: np.ndarray, positions: np.ndarray
) -> Int[np.ndarray, " kept"]:
    """Indices of the strongest (of equal ones the first) entry of every feature in every row."""
    order = np.lexsort((positions, -values, rows, features))
    f, r = features[order], rows[order]
    begins = np.ones(len(order), bool)
    begins[1:] = (f[1:] != f[:-1]) | (r[1:] != r[:-1])
    return order[begins]


def draw(
    seed: int, layer: int, features: np.ndarray, rows: np.ndarray, positions: np.ndarray
) -> Float[np.ndarray, " n"]:
    """A number from 0 to 1 for every (feature, place): as good as random, always the same (splitmix64)."""
    mixed = np.full(len(features), (seed << 16) + layer, np.uint64)
    for part in (features, rows, positions):
        mixed = _mix(mixed ^ part.astype(np.uint64))
    return (mixed >> np.uint64(11)).astype(np.float64) / 2.0**53


def prefix_numbers(ids: Int[np.ndarray, "row pos"]) -> Int[np.ndarray, "row pos"]:
    """A number for every token and all before it: the same for the same beginnings, else almost surely not.

    A causal model computes the same at the end of the same beginning, so two examples with the same number
    would show one thing twice.
    """
    made = np.zeros(ids.shape, np.uint64)
    running = np.zeros(len(ids), np.uint64)
    for position in range(ids.shape[1]):
        running = _mix(running ^ ids[:, position].astype(np.uint64))
        made[:, position] = running
    return made.view(np.int64)


def _mix(x: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        x = x + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
