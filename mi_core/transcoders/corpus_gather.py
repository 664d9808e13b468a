"""The second reading of a corpus pass: what stands around the chosen tokens, and what is active with them.

The first reading knows of an example only its place and value. Rows that hold a chosen token are run once
more: the activations around it become the example's colours, and the features of all layers that are active
at a sampled token are counted, so that for features f and g

    share(f, g) = sampled active tokens of f at which g is active / sampled active tokens of f

can be compared with g's density, which it would be by chance. Memory: 4 bytes per token of an example, 16 per
pair of features that are active together at a sampled token.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Int

from mi_core.transcoders.corpus_inputs import CorpusPassInputs
from mi_core.transcoders.corpus_state import NONE, LayerState
from mi_core.transcoders.corpus_text import Row

LISTED = 10
"""Co-active features that are kept."""
MAX_PAIRS = 60_000_000
_MERGE_AT = 20_000_000


@dataclass(slots=True)
class Chosen:
    """The examples of the features of one layer.

    Attributes:
        rows: [feature, slot] row of each; -1 where there is none. The first `top` slots are the strongest,
            then `per_group` for each group from strong to weak.
        positions: [feature, slot] position in the row.
        expected: [feature, slot] activation that the first reading saw.
        windows: [feature, slot, 2 around + 1] activations around it, NaN outside the row.
    """

    rows: Int[np.ndarray, "feature slot"]
    positions: Int[np.ndarray, "feature slot"]
    expected: Float[np.ndarray, "feature slot"]
    windows: Float[np.ndarray, "feature slot token"]


def slots(inputs: CorpusPassInputs) -> int:
    """Examples per feature at most."""
    return inputs.top + inputs.groups * inputs.per_group


def gather_bytes(n_features: int, inputs: CorpusPassInputs) -> int:
    """Memory that the examples of so many features take."""
    return n_features * slots(inputs) * (12 + 4 * (2 * inputs.around + 1))


def choose(state: LayerState, inputs: CorpusPassInputs) -> Chosen:
    """The examples of a layer: the strongest, and of every equal part of the sample the first drawn.

    No row, and no text up to the token, is shown twice for a feature; a part of which all are shown already
    stays shorter.
    """
    n_features, n_slots = len(state.counts), slots(inputs)
    rows = np.full((n_features, n_slots), NONE, np.int32)
    positions, expected = rows.copy(), np.zeros((n_features, n_slots), np.float32)
    top = inputs.top
    rows[:, :top], positions[:, :top] = state.top.rows, state.top.positions
    expected[:, :top] = state.top.values
    sample = state.sample
    for f in np.flatnonzero(state.counts) if inputs.groups and inputs.per_group else ():
        n = int((sample.rows[f] != NONE).sum())
        order = np.argsort(-sample.values[f, :n], kind="stable")
        shown = {*state.top.rows[f].tolist(), *state.top.prefixes[f].tolist()}
        for group in range(inputs.groups):
            members = np.sort(order[group * n // inputs.groups : (group + 1) * n // inputs.groups])
            slot = top + group * inputs.per_group
            stop = slot + inputs.per_group
            for member in members:  # in the order of the draw
                row, prefix = int(sample.rows[f, member]), int(sample.prefixes[f, member])
                if slot == stop:
                    break
                if row in shown or prefix in shown:
                    continue
                shown |= {row, prefix}
                rows[f, slot], positions[f, slot] = row, sample.positions[f, member]
                expected[f, slot] = sample.values[f, member]
                slot += 1
    width = 2 * inputs.around + 1
    return Chosen(rows, positions, expected, np.full((n_features, n_slots, width), np.nan, np.float32))


@dataclass(frozen=True, slots=True, eq=False)
class _Wanted:
    """Places in the corpus, sorted by row."""

    rows: Int[np.ndarray, " n"]
    positions: Int[np.ndarray, " n"]
    features: Int[np.ndarray, " n"]
    slots: Int[np.ndarray, " n"]

    @classmethod
    def of(cls, rows: np.ndarray, positions: np.ndarray) -> "_Wanted":
        features, numbers = np.nonzero(rows != NONE)
        order = np.argsort(rows[features, numbers], kind="stable")
        features, numbers = features[order], numbers[order]
        return cls(rows[features, numbers], positions[features, numbers], features, numbers)

    def within(self, number: int) -> slice:
        """Those of a row."""
        first, stop = np.searchsorted(self.rows, (number, number + 1))
        return slice(int(first), int(stop))


@dataclass(slots=True)
class Gather:
    """The second reading under way.

    Attributes:
        around: tokens on each side of an example.
        chosen: examples by layer.
        samples: per layer the sampled tokens that are looked at: (rows, positions) [feature, n].
        base: per layer the number of its first feature, over all layers.
        total: features of all layers.
        ids: token ids of the rows that hold an example.
        firsts: first counted position of these rows.
        off: largest difference between both readings at an example, relative to the feature's activation.
    """

    around: int
    chosen: dict[int, Chosen]
    samples: dict[int, tuple[np.ndarray, np.ndarray]]
    base: dict[int, int]
    total: int
    ids: dict[int, Int[np.ndarray, " pos"]] = field(default_factory=dict)
    firsts: dict[int, int] = field(default_factory=dict)
    off: float = 0.0
    _examples: dict[int, _Wanted] = field(default_factory=dict)
    _sampled: dict[int, _Wanted] = field(default_factory=dict)
    _pairs: list[np.ndarray] = field(default_factory=list)
    _waiting: int = 0
    _keys: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    _counts: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    @classmethod
    def of(cls, states: Mapping[int, LayerState], inputs: CorpusPassInputs, n_tokens: int) -> "Gather":
        """Choose examples and sampled tokens."""
        sizes = {layer: len(state.counts) for layer, state in states.items()}
        starts = np.cumsum([0, *sizes.values()])
        active = sum(int(state.counts.sum()) for state in states.values()) / max(1, n_tokens)
        alive = sum(int((state.counts > 0).sum()) for state in states.values())
        looked = max(1, min(inputs.sampled, int(MAX_PAIRS / max(1.0, active * alive))))
        samples = {
            layer: (state.sample.rows[:, :looked], state.sample.positions[:, :looked])
            for layer, state in states.items()
        }
        made = cls(
            inputs.around,
            {layer: choose(state, inputs) for layer, state in states.items()},
            samples,
            dict(zip(sizes, starts[:-1].tolist(), strict=True)),
            int(starts[-1]),
        )
        made._examples = {layer: _Wanted.of(one.rows, one.positions) for layer, one in made.chosen.items()}
        made._sampled = {layer: _Wanted.of(*one) for layer, one in samples.items()}
        return made

    def needed(self) -> Int[np.ndarray, " n"]:
        """Numbers of the rows that must be run again, ascending."""
        wanted = (*self._examples.values(), *self._sampled.values())
        return np.unique(np.concatenate([np.zeros(0, np.int32), *(one.rows for one in wanted)]))

    def add(self, batch: Sequence[Row], dense: Mapping[int, Float[np.ndarray, "token feature"]]) -> None:
        """Take in the activations of a batch of rows.

        Args:
            batch: rows of equal length and first counted position.
            dense: per layer, at the counted tokens of one row after another.
        """
        for row in batch:
            self.ids[row.number] = np.array(row.ids, np.int32)
            self.firsts[row.number] = row.first
        for layer, values in dense.items():
            self._windows(layer, batch, values)
        self._coactive(batch, dense)

    def _windows(self, layer: int, batch: Sequence[Row], values: np.ndarray) -> None:
        wanted, chosen = self._examples[layer], self.chosen[layer]
        steps = np.arange(-self.around, self.around + 1)
        for number, row in enumerate(batch):
            part = wanted.within(row.number)
            if part.start == part.stop:
                continue
            own = values[number * row.counted : (number + 1) * row.counted]
            features, slot = wanted.features[part], wanted.slots[part]
            at = wanted.positions[part][:, None] - row.first + steps
            inside = (at >= 0) & (at < row.counted)
            found = own[np.where(inside, at, 0), features[:, None]]
            chosen.windows[features, slot] = np.where(inside, found, np.nan)
            expected = chosen.expected[features, slot]
            off = np.abs(found[:, self.around] - expected) / np.maximum(np.abs(expected), 1e-30)
            self.off = max(self.off, float(off.max()))

    def _coactive(self, batch: Sequence[Row], dense: Mapping[int, np.ndarray]) -> None:
        """Pairs (feature, feature active at the same sampled token), counted."""
        tokens, features = _active(dense, self.base)
        counted, first = batch[0].counted, batch[0].first
        begins = np.searchsorted(tokens, np.arange(len(batch) * counted + 1))
        for layer, wanted in self._sampled.items():
            for number, row in enumerate(batch):
                part = wanted.within(row.number)
                if part.start == part.stop:
                    continue
                at = number * counted + wanted.positions[part].astype(np.int64) - first
                sizes = begins[at + 1] - begins[at]
                ends = np.cumsum(sizes)
                inside = np.arange(int(ends[-1])) - np.repeat(ends - sizes, sizes)
                partners = features[np.repeat(begins[at], sizes) + inside]
                own = np.repeat(wanted.features[part].astype(np.int64) + self.base[layer], sizes)
                self._pairs.append(own * self.total + partners)
                self._waiting += len(partners)
        if self._waiting > _MERGE_AT:
            self._merge()

    def _merge(self) -> None:
        new, counts = np.unique(np.concatenate([np.zeros(0, np.int64), *self._pairs]), return_counts=True)
        joined = np.concatenate([self._keys, new])
        self._keys, back = np.unique(joined, return_inverse=True)
        weights = np.concatenate([self._counts, counts])
        self._counts = np.bincount(back, weights=weights, minlength=len(self._keys)).astype(np.int64)
        self._pairs, self._waiting = [], 0

    def partners(
        self, density: Float[np.ndarray, " feature"]
    ) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """Per feature the up to `LISTED` others that exceed chance most: (feature, other, share), by feature.

        Args:
            density: of every feature, over all layers in order.
        """
        self._merge()
        own, other = np.divmod(self._keys, max(1, self.total))
        share = self._counts / np.maximum(1, self.looked()[own])
        good = (own != other) & (self._counts > 1)
        own, other, share = own[good], other[good], share[good]
        order = np.lexsort((other, density[other] - share, own))
        own, other, share = own[order], other[order], share[order]
        rank = np.arange(len(own)) - np.searchsorted(own, own)
        kept = (rank < LISTED) & (share > density[other])
        return own[kept], other[kept], share[kept]

    def looked(self) -> Int[np.ndarray, " feature"]:
        """Sampled tokens that were looked at, for every feature over all layers in order."""
        return np.concatenate([(rows != NONE).sum(1) for rows, _ in self.samples.values()])


def _active(
    dense: Mapping[int, np.ndarray], base: Mapping[int, int]
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """(token of the batch, feature over all layers) of everything active, by token."""
    tokens, features = [], []
    for layer, values in dense.items():
        at, feature = np.nonzero(values > 0)
        tokens.append(at)
        features.append(feature + base[layer])
    token, feature = np.concatenate(tokens), np.concatenate(features)
    order = np.argsort(token, kind="stable")
    return token[order], feature[order]


def present(window: Float[np.ndarray, " token"]) -> Bool[np.ndarray, " token"]:
    """Where a window lies inside its row."""
    return ~np.isnan(window)
