"""From the statistics of a corpus pass to the records of the features files, trimmed to a size."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt

from mi_core.transcoders.corpus_gather import Chosen, Gather, present
from mi_core.transcoders.corpus_inputs import CorpusPassInputs
from mi_core.transcoders.corpus_state import NONE, LayerState, bin_edges
from mi_core.transcoders.feature_files_json import pack_record
from mi_core.transcoders.feature_files_record import Coactive, ExampleGroup, FeatureExample, FeatureRecord
from mi_core.visible import piece_reader

TOP_NAME = "Top activations"
_ESTIMATED_FROM = 40  # records per layer


@dataclass(frozen=True, slots=True)
class Trim:
    """How much of the examples is kept.

    Attributes:
        top: strongest examples.
        per_group: examples per group.
        around: tokens on each side.
    """

    top: int
    per_group: int
    around: int

    @property
    def text(self) -> str:
        """For people."""
        return f"{self.top} strongest and {self.per_group} per group, {self.around} tokens on each side"


def trims(inputs: CorpusPassInputs) -> list[Trim]:
    """From all that was asked for to hardly anything: first shorter examples, then fewer."""
    top, per_group, around = inputs.top, inputs.per_group, inputs.around
    steps = [
        (top, per_group, around), (top, per_group, 32), (top, per_group, 16), (top, per_group, 12),
        (top, 2, 12), (10, 2, 10), (10, 1, 10), (8, 1, 10), (8, 1, 8), (6, 1, 8), (5, 1, 6),
        (5, 0, 6), (4, 0, 5), (3, 0, 5), (2, 0, 4), (1, 0, 3), (1, 0, 1),
    ]  # fmt: skip
    made = [Trim(min(top, a), min(per_group, b), min(around, c)) for a, b, c in steps]
    return list(dict.fromkeys(made))


@dataclass(slots=True)
class Records:
    """Makes records.

    Attributes:
        inputs: what was asked for.
        states: by layer.
        gather: the second reading.
        words: per layer the token ids that every feature writes most and least; empty = not known.
        n_tokens: tokens that counted.
        transcoder: its name.
        tokenizer: of the model.
    """

    inputs: CorpusPassInputs
    states: Mapping[int, LayerState]
    gather: Gather
    words: Mapping[int, tuple[Int[np.ndarray, "feature word"], Int[np.ndarray, "feature word"]]]
    n_tokens: int
    transcoder: str
    tokenizer: Any
    _texts: dict[int, str] = field(default_factory=dict)
    _partners: dict[int, list[Coactive]] = field(default_factory=dict)
    _looked: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    def prepare(self) -> None:
        """Work out what is active together; once, before the first record."""
        counts = np.concatenate([state.counts for state in self.states.values()])
        density = counts / max(1, self.n_tokens)
        self._looked = self.gather.looked()
        layers = np.concatenate([np.full(len(s.counts), layer) for layer, s in self.states.items()])
        starts = np.concatenate(
            [np.full(len(s.counts), self.gather.base[layer]) for layer, s in self.states.items()]
        )
        own, other, share = self.gather.partners(density)
        for a, b, part in zip(own.tolist(), other.tolist(), share.tolist(), strict=True):
            one = Coactive(int(layers[b]), int(b - starts[b]), part, float(density[b]))
            self._partners.setdefault(a, []).append(one)

    def of_layer(self, layer: int, trim: Trim, every: int = 1) -> Iterator[FeatureRecord]:
        """Records of a layer in order; of every `every`-th feature for an estimate."""
        for feature in range(0, len(self.states[layer].counts), every):
            yield self._record(layer, feature, trim)

    def estimate(self, trim: Trim) -> int:
        """Bytes of all layers' files, from some of their records."""
        whole = 0.0
        for layer, state in self.states.items():
            every = max(1, len(state.counts) // _ESTIMATED_FROM)
            sizes = [len(pack_record(record)) for record in self.of_layer(layer, trim, every)]
            whole += len(state.counts) * float(np.mean(sizes))
        return int(whole)

    def _record(self, layer: int, feature: int, trim: Trim) -> FeatureRecord:
        state, number = self.states[layer], self.gather.base[layer] + feature
        count = int(state.counts[feature])
        first, stop = _ends(state.histogram[feature])
        high, low = self.words.get(layer, (None, None))
        return FeatureRecord(
            layer=layer,
            index=feature,
            density=count / max(1, self.n_tokens),
            largest=float(state.largest[feature]),
            groups=self._groups(layer, feature, trim) if count else (),
            top_logits=self._written(high, feature),
            bottom_logits=self._written(low, feature),
            quantile_values=_dividers(state, feature, self.inputs.groups),
            histogram=tuple(state.histogram[feature, first:stop].tolist()),
            edges=tuple(bin_edges()[first : stop + 1].tolist()) if stop > first else (),
            n_tokens=self.n_tokens,
            n_active=count,
            coactive=tuple(self._partners.get(number, ())),
            coactive_tokens=int(self._looked[number]),
            transcoder=self.transcoder,
        )

    def _groups(self, layer: int, feature: int, trim: Trim) -> tuple[ExampleGroup, ...]:
        inputs, chosen = self.inputs, self.gather.chosen[layer]
        seen: set[tuple[str, ...]] = set()
        made = [ExampleGroup(TOP_NAME, self._examples(chosen, feature, range(trim.top), trim.around, seen))]
        for group in range(inputs.groups if trim.per_group else 0):
            start = inputs.top + group * inputs.per_group
            slots = range(start, start + trim.per_group)
            found = self._examples(chosen, feature, slots, trim.around, seen)
            if found:
                made.append(ExampleGroup(group_name(group, inputs.groups), found))
        return tuple(made)

    def _examples(
        self, chosen: Chosen, feature: int, slots: range, around: int, seen: set[tuple[str, ...]]
    ) -> tuple[FeatureExample, ...]:
        made, centre = [], self.inputs.around
        for slot in slots:
            row = int(chosen.rows[feature, slot])
            if row == NONE:
                continue
            window = chosen.windows[feature, slot, centre - around : centre + around + 1]
            inside = np.flatnonzero(present(window))
            begin = int(chosen.positions[feature, slot]) - around
            ids = self.gather.ids[row]
            tokens = tuple(self._text(int(ids[begin + step])) for step in inside)
            values = tuple(window[inside].tolist())
            made.append(FeatureExample(tokens, values, around - int(inside[0]), tokens in seen))
            seen.add(tokens)
        return tuple(made)

    def _text(self, token: int) -> str:
        known = self._texts.get(token)
        if known is None:
            piece = self.tokenizer.convert_ids_to_tokens(token) if token < len(self.tokenizer) else None
            known = self._texts[token] = piece_reader(self.tokenizer).text(token, piece)
        return known

    def _written(self, ids: Int[np.ndarray, "feature word"] | None, feature: int) -> tuple[str, ...]:
        return () if ids is None else tuple(self._text(int(one)) for one in ids[feature])


def group_name(group: int, groups: int) -> str:
    """`Active tokens, 80 to 100 %`: of all tokens at which the feature is active, by activation."""
    high, low = 100 * (groups - group) / groups, 100 * (groups - group - 1) / groups
    return f"Active tokens, {low:.3g} to {high:.3g} %"


def _ends(counts: UInt[np.ndarray, " bin"]) -> tuple[int, int]:
    """The bins that hold something: first, and one past the last."""
    filled = np.flatnonzero(counts)
    return (int(filled[0]), int(filled[-1]) + 1) if len(filled) else (0, 0)


def _dividers(state: LayerState, feature: int, groups: int) -> tuple[float, ...]:
    """Activations between the groups, from the sample; the last is the largest of all."""
    there = state.sample.rows[feature] != NONE
    if not there.any():
        return ()
    values: Float[np.ndarray, " n"] = state.sample.values[feature][there].astype(np.float64)
    quantiles = np.quantile(values, np.linspace(0, 1, max(1, groups) + 1))
    quantiles[-1] = float(state.largest[feature])
    return tuple(quantiles.tolist())
