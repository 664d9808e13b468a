"""Which features read or write alike, and which feed each other straight through the stream.

    reads alike      cos(W_enc[f], W_enc[g])
    writes alike     cos(sum over m of W_dec[f, m], sum over m of W_dec[g, m])
    virtual weight   V(s -> t) = sum over target layers m of s that t can see of  W_dec[s, m] . W_enc[t]

A virtual weight is what one unit of activation of s adds to the pre-activation of t at the same token, with
a norm in front of t at scale 1. It is independent of the input: attention moves and norms scale what is
written on real texts, later MLPs add to it, and s and t may never be active together. The attribution graph
of a prompt has the weights that hold there.
Cost: one pass over all encoders and all decoders, in chunks; 2 d_model operations per row.
Source: Lindsey et al. 2025 (virtual weights and their interference).
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.causal_trace_result import Step
from mi_core.analyses.circuit_gains import Gain, final_gain
from mi_core.analyses.circuit_vocabulary import unembeddings
from mi_core.errors import Cancelled, TranscoderError
from mi_core.model.model import LoadedModel
from mi_core.provenance import Provenance
from mi_core.transcoders.names import Feature
from mi_core.transcoders.store import load_transcoder
from mi_core.transcoders.transcoder import CHUNK_BYTES, Transcoder
from mi_core.transcoders.weights_best import Best, Table, table_of
from mi_core.transcoders.weights_cost import ABSENT, absent_warning, decoders_problem
from mi_core.transcoders.weights_inputs import FeatureNeighboursInputs
from mi_core.transcoders.weights_neighbours_result import FeatureNeighboursResult
from mi_core.transcoders.weights_run import feature_rows
from mi_core.transcoders.weights_stream import as_read, reader_gain, reads_stream, sees
from mi_core.transcoders.weights_vocabulary import visible_of

OnNeighboursStep = Callable[[Step[FeatureNeighboursResult]], None]

SINGLE = 1e-4  # relative rounding of float32 sums over d_model


def feature_neighbours(
    model: LoadedModel, inputs: FeatureNeighboursInputs, *, on_step: OnNeighboursStep | None = None
) -> FeatureNeighboursResult:
    """The relatives of a feature.

    Args:
        model: a loaded model.
        inputs: which feature of which transcoder.
        on_step: told of progress over the layers; may raise `Cancelled` to stop.

    Returns:
        The relatives; after `Cancelled`, among the layers that were read until then.

    Raises:
        TranscoderError: no such transcoder, or its files cannot be used.
        InputError: no such feature.
        ModelError: the norm in front of the features was not found.
    """
    started = time.perf_counter()
    transcoder, feature = load_transcoder(model, inputs.transcoder), inputs.chosen
    transcoder.check(feature.layer, feature.index)
    search = _Search.start(model, transcoder, inputs)
    cancelled = False
    try:
        search.run(started, on_step)
    except Cancelled:
        cancelled = True
    alike, virtual = search.tables()
    shape = (2, 2, inputs.count)
    listed = sorted({one for lists in search.lists for _, one in lists.best()})
    return FeatureNeighboursResult(
        inputs=inputs,
        provenance=Provenance.of(model),
        transcoder_name=transcoder.name,
        transcoder_fingerprint=transcoder.fingerprint,
        n_compared=search.compared,
        alike_layers=alike[0].reshape(shape),
        alike_indices=alike[1].reshape(shape),
        alike_cosines=alike[2].reshape(shape),
        virtual_layers=virtual[0].reshape(shape),
        virtual_indices=virtual[1].reshape(shape),
        virtual_weights=virtual[2].reshape(shape),
        words={} if cancelled else top_words(model, transcoder, listed),
        warnings=tuple(_warnings(search, cancelled=cancelled)),
        checks=tuple(search.checks()),
        seconds=time.perf_counter() - started,
        cancelled=cancelled,
    )


@dataclass(slots=True)
class _Search:
    """The pass under way.

    Attributes:
        encoder: the feature's encoder row.
        rows: its decoder rows; none without decoders.
        alike: best cosines, [reads, writes] by [same layer, other layers].
        virtual: best virtual weights, [upstream, downstream] by [+, -].
        own: cosines of the feature with itself, as the pass found them.
        compared: features looked at.
        gains: norm in front of the features, by layer.
        problem: why decoders cannot be compared; empty when they can.
        absent: "encoder" or "decoder" -> layers whose files are not here, and why.
    """

    transcoder: Transcoder
    feature: Feature
    encoder: Float[Tensor, "d_model"]
    rows: Float[Tensor, "target d_model"]
    gains: dict[int, Gain | None]
    alike: tuple[tuple[Best, Best], tuple[Best, Best]]
    virtual: tuple[tuple[Best, Best], tuple[Best, Best]]
    problem: str = ""
    own: dict[str, float] = field(default_factory=dict)
    compared: int = 0
    absent: dict[str, dict[int, str]] = field(default_factory=lambda: {"encoder": {}, "decoder": {}})

    @classmethod
    def start(cls, model: LoadedModel, transcoder: Transcoder, inputs: FeatureNeighboursInputs) -> "_Search":
        """Nothing compared yet."""
        feature, count = inputs.chosen, inputs.count
        encoder = transcoder.encoder(feature.layer).some(torch.tensor([feature.index]))[0]
        rows, problem = feature_rows(transcoder, feature.layer, feature.index)
        refused = decoders_problem(transcoder)
        there = reads_stream(transcoder)
        return cls(
            transcoder,
            feature,
            encoder,
            rows.float().to(transcoder.device),
            {layer: reader_gain(model, transcoder, layer) for layer in transcoder.layers if there},
            (_two(count, feature), _two(count, feature)),
            (_two(count, floor=0.0), _two(count, floor=0.0)),
            problem or ("" if refused is None else str(refused)),
        )

    @property
    def lists(self) -> tuple[Best, ...]:
        """All lists in the order of the result."""
        return tuple(best for pairs in (*self.alike, *self.virtual) for best in pairs)

    def run(self, started: float, on_step: OnNeighboursStep | None) -> None:
        """Encoders, then decoders, layer by layer."""
        layers = self.transcoder.layers
        steps = [(self._encoders, layer) for layer in layers]
        if len(self.rows) and not self.problem:
            steps += [(self._decoders, layer) for layer in layers]
        for done, (read, layer) in enumerate(steps):
            if on_step is not None:
                spent = time.perf_counter() - started
                left = spent / done * (len(steps) - done) if done else None
                on_step(Step(done, len(steps), left, None, f"layer {layer}"))
            try:
                read(layer)
            except TranscoderError as error:
                if error.kind not in ABSENT:
                    raise
                self.absent[read.__name__.strip("_").removesuffix("s")][layer] = str(error)
        if on_step is not None:
            on_step(Step(len(steps), len(steps), 0.0, None, "words"))

    def _encoders(self, layer: int) -> None:
        """Who reads alike, and who reads what this feature writes."""
        stored = self.transcoder.encoder(layer).stored
        seen = self._seen_by(layer)
        size = max(1, CHUNK_BYTES // (4 * self.transcoder.d_model))
        for first in range(0, len(stored), size):
            chunk = stored[first : first + size].float()
            cosines = cosine(chunk, self.encoder)
            self._add_alike(0, "encoder", layer, first, cosines)
            if seen is not None:
                self._add_virtual(1, layer, first, chunk @ seen)
        self.compared += len(stored)

    def _seen_by(self, layer: int) -> Float[Tensor, "d_model"] | None:
        """What features of a layer see of a unit of this feature; None when they see nothing."""
        targets = self.transcoder.targets(self.feature.layer) if len(self.rows) else ()
        columns = [i for i, target in enumerate(targets) if sees(self.transcoder, target, layer)]
        return as_read(self.gains[layer], self.rows[columns].sum(0)[None])[0] if columns else None

    def _decoders(self, layer: int) -> None:
        """Who writes alike, and who writes what this feature reads."""
        transcoder, here = self.transcoder, self.feature.layer
        targets = transcoder.targets(layer)
        columns = [i for i, target in enumerate(targets) if sees(transcoder, target, here)]
        total = self.rows.sum(0)
        for first, rows in transcoder.decoder_chunks(layer):
            self._add_alike(1, "decoder", layer, first, cosine(rows.sum(1), total))
            if columns:
                arriving = as_read(self.gains[here], rows[:, columns].sum(1))
                self._add_virtual(0, layer, first, arriving @ self.encoder)

    def _add_alike(self, relation: int, part: str, layer: int, first: int, cosines: Tensor) -> None:
        self.alike[relation][layer != self.feature.layer].add(layer, first, cosines)
        place = self.feature.index - first
        if layer == self.feature.layer and 0 <= place < len(cosines):
            self.own[part] = float(cosines[place])

    def _add_virtual(self, direction: int, layer: int, first: int, weights: Tensor) -> None:
        self.virtual[direction][0].add(layer, first, weights)
        self.virtual[direction][1].add(layer, first, -weights)

    def tables(self) -> tuple[Table, Table]:
        """Layers, numbers and values of all lists; what was sought by its size gets its sign back."""
        count = self.lists[0].count
        alike = table_of((best.best() for pair in self.alike for best in pair), count)
        virtual = table_of((best.best() for pair in self.virtual for best in pair), count)
        virtual[2][1::2] *= -1
        return alike, virtual

    def checks(self) -> Iterator[Check]:
        """A feature is like itself; the listed virtual weights come out the same one by one."""
        zero = {"encoder": self.encoder, "decoder": self.rows.sum(0)}
        for part, value in self.own.items():
            if float(zero[part].norm()) > 0:
                yield Check(
                    f"its own {part} is found, with cosine 1",
                    abs(value - 1) <= SINGLE,
                    f"The pass over all features gave {value:.6f} for the feature itself.",
                )
        listed = [
            (direction, sign * value, other)
            for direction, pair in enumerate(self.virtual)
            for sign, best in zip((1, -1), pair, strict=True)
            for value, other in best.best()
        ]
        if listed:
            size = max(abs(value) for _, value, _ in listed)
            off = max(abs(self._alone(d, other) - value) for d, value, other in listed)
            yield Check(
                "virtual weights, one by one",
                off <= SINGLE * size,
                f"Each of the {len(listed)} listed, again from its own rows: {off / size:.1e} of the "
                "largest off.",
            )

    def _alone(self, direction: int, other: Feature) -> float:
        """A virtual weight in float64 from the rows of the two features only."""
        source, target = (other, self.feature) if direction == 0 else (self.feature, other)
        rows = feature_rows(self.transcoder, source.layer, source.index)[0]
        reader = self.transcoder.encoder(target.layer).some(torch.tensor([target.index]))[0].double().cpu()
        gain, total = self.gains[target.layer], 0.0
        direction_read = reader if gain is None else gain.before(reader[:, None].to(gain.vector))[:, 0].cpu()
        for row, written in zip(rows, self.transcoder.targets(source.layer), strict=True):
            if sees(self.transcoder, written, target.layer):
                total += float(row @ direction_read)
        return total


def _two(count: int, leave_out: Feature | None = None, floor: float = -float("inf")) -> tuple[Best, Best]:
    return Best(count, leave_out, floor), Best(count, leave_out, floor)


def cosine(
    rows: Float[Tensor, "feature d_model"], direction: Float[Tensor, "d_model"]
) -> Float[Tensor, "feature"]:
    """Cosines of rows with a direction; NaN for a row, or a direction, of zeros."""
    lengths = rows.norm(dim=-1) * direction.norm()
    return rows @ direction / torch.where(lengths > 0, lengths, torch.nan)


def top_words(model: LoadedModel, transcoder: Transcoder, features: list[Feature]) -> dict[str, str]:
    """The word that each of some features promotes most, all target layers summed."""
    if not features or not transcoder.has_decoder or not transcoder.local:
        return {}
    directions = [feature_rows(transcoder, one.layer, one.index)[0] for one in features]
    if not all(len(rows) for rows in directions):
        return {}
    gain = final_gain(model)
    written = gain.after(torch.stack([rows.sum(0) for rows in directions]).to(gain.vector))
    best, winner, first = torch.full((len(features),), -torch.inf), torch.zeros(len(features)).long(), 0
    for columns in unembeddings(model):
        value, index = (part.cpu() for part in (written.to(columns.device) @ columns).max(1))
        winner = torch.where(value > best, index + first, winner)
        best, first = torch.maximum(value, best), first + columns.shape[1]
    visible = visible_of(model)
    alive = written.abs().amax(1).cpu() > 0
    return {
        feature.text: visible(int(token))
        for feature, token, there in zip(features, winner.tolist(), alive.tolist(), strict=True)
        if there
    }


def _warnings(search: _Search, *, cancelled: bool) -> Iterator[str]:
    transcoder, name = search.transcoder, search.feature.text
    if cancelled:
        yield "It was stopped before all layers were compared: better relatives may be missing."
    if search.problem:
        downstream = ", and those downstream" if len(search.rows) else ""
        yield f"{search.problem} There are only features that read alike{downstream}."
    for part, layers in search.absent.items():
        if layers:
            yield absent_warning(layers, part)
    if not reads_stream(transcoder):
        yield (
            f"{name} reads {transcoder.reads.text}, what one module wrote, not the stream: features do not "
            "feed each other there, so there are no virtual weights."
        )
    yield from transcoder.warnings
