"""Which features write a word, and which read it.

    writes    max over target layers m of the score of W_dec[f, m]      one pass over all decoders
    reads     the score of W_enc[f]                                     one pass over all encoders

Scores are made in `words_direction`. The listed features are then read again by themselves, in float64,
against the whole vocabulary: that gives the word's rank among everything that a feature writes, and proves
the scores. A feature that writes a word is not a feature that causes it: that depends on when it is active.
Cost: 2 d_model operations per row and form of the word (2 d_model^2 for deviations); reads all decoders once.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.causal_trace_result import Step
from mi_core.errors import Cancelled, TranscoderError
from mi_core.model.model import LoadedModel
from mi_core.provenance import Provenance
from mi_core.transcoders.store import load_transcoder
from mi_core.transcoders.transcoder import CHUNK_BYTES, Transcoder
from mi_core.transcoders.weights_best import Best
from mi_core.transcoders.weights_cost import ABSENT, absent_warning, decoders_problem
from mi_core.transcoders.words_direction import (
    Spread,
    Vocabulary,
    Words,
    known_spreads,
    read_words,
    spread_of,
    words_of,
    written_words,
)
from mi_core.transcoders.words_forms import shown, word_forms
from mi_core.transcoders.words_hits import Hit, read_again
from mi_core.transcoders.words_inputs import WordSearchInputs
from mi_core.transcoders.words_result import WordSearchResult

OnWordsStep = Callable[[Step[WordSearchResult]], None]

CANDIDATES = 3
"""Features looked at once more per feature listed: of several copies only one is listed."""
SINGLE = 1e-3  # what float32 sums over d_model, and variances made of them, are off at most


def word_search(
    model: LoadedModel, inputs: WordSearchInputs, *, on_step: OnWordsStep | None = None
) -> WordSearchResult:
    """The features that write or read a word.

    Args:
        model: a loaded model.
        inputs: the word, and what is asked about it.
        on_step: told of progress over the layers; may raise `Cancelled` to stop.

    Returns:
        The features; after `Cancelled`, among the layers that were read until then.

    Raises:
        TranscoderError: no such transcoder; kind "no_decoder" or "offline" where the search is for features
            that write and the decoders are not here.
        InputError: no tokenizer, or a word that it does not know.
    """
    started = time.perf_counter()
    transcoder = load_transcoder(model, inputs.transcoder)
    forms, warnings = word_forms(model, inputs.word)
    problem = decoders_problem(transcoder) if inputs.side == "writes" else None
    if problem is not None:
        raise problem
    search = _Search.start(model, transcoder, inputs, forms)
    cancelled = False
    try:
        search.run(started, on_step)
    except Cancelled:
        cancelled = True
        warnings = (*warnings, "It was stopped before all layers were searched: better ones may be missing.")
    hits = search.hits()
    return WordSearchResult(
        inputs=inputs,
        provenance=Provenance.of(model),
        transcoder_name=transcoder.name,
        transcoder_fingerprint=transcoder.fingerprint,
        searched_ids=np.array(forms, np.int64),
        searched=shown(model, forms),
        n_searched=search.searched,
        **_columns(hits),
        source_layers=np.array(transcoder.layers, np.int64),
        target_layers=np.array(search.targets, np.int64),
        best=search.grid,
        warnings=(*warnings, *search.warnings(hits), *transcoder.warnings),
        checks=tuple(_checks(hits, inputs)),
        seconds=time.perf_counter() - started,
        cancelled=cancelled,
    )


@dataclass(slots=True)
class _Search:
    """The pass under way.

    Attributes:
        vocabulary: of a layer's reader, or of what is written (the same for all layers).
        known: what is kept with the model.
        words: the word as directions, by layer (-1 = the same for all).
        targets: layers that are written (read), the columns of `grid`.
        grid: best score by source and target layer.
        absent: layers whose files are not here, and why.
    """

    transcoder: Transcoder
    inputs: WordSearchInputs
    forms: tuple[int, ...]
    vocabulary: Callable[[int], Vocabulary]
    targets: tuple[int, ...]
    grid: Float[np.ndarray, "source target"]
    best: Best
    known: dict[str, Spread]
    words: dict[int, Words] = field(default_factory=dict)
    searched: int = 0
    absent: dict[int, str] = field(default_factory=dict)

    @classmethod
    def start(
        cls, model: LoadedModel, transcoder: Transcoder, inputs: WordSearchInputs, forms: tuple[int, ...]
    ) -> "_Search":
        """Nothing searched yet."""
        if inputs.side == "writes":
            written = written_words(model)
            targets, vocabulary = transcoder.written_layers, lambda _layer: written
        else:
            targets, vocabulary = transcoder.layers, lambda layer: read_words(model, transcoder, layer)
        grid = np.full((len(transcoder.layers), len(targets)), np.nan)
        best = Best(CANDIDATES * inputs.count)
        return cls(transcoder, inputs, forms, vocabulary, targets, grid, best, known_spreads(model))

    def run(self, started: float, on_step: OnWordsStep | None) -> None:
        """Layer by layer."""
        layers, total = self.transcoder.layers, sum(self.transcoder.n_features.values())
        for layer in layers:
            try:
                for first, rows in self._rows(layer):
                    if on_step is not None:
                        spent, done = time.perf_counter() - started, self.searched
                        left = spent / done * (total - done) if done else None
                        on_step(Step(done, total, left, None, f"layer {layer}"))
                    self._look(layer, first, rows)
            except TranscoderError as error:
                if error.kind not in ABSENT or len(self.absent) + 1 == len(layers):
                    raise
                self.absent[layer] = str(error)
        if on_step is not None:
            on_step(Step(total, total, 0.0, None, "ranks"))

    def warnings(self, hits: list[Hit]) -> Iterator[str]:
        """What was left out, and what stands for several."""
        copies = [hit for hit in hits if hit.copies]
        if copies:
            listed = ", ".join(f"{hit.feature.text} (and {hit.copies} more)" for hit in copies[:5])
            yield (
                f"Some features of a layer write practically the same direction and are listed once: "
                f"{listed}. Many such copies are a sign of features that died in training."
            )
        if self.absent:
            yield absent_warning(self.absent, "decoder" if self.inputs.side == "writes" else "encoder")

    def _rows(self, layer: int) -> Iterator[tuple[int, Float[Tensor, "n column d_model"]]]:
        """Decoder rows, or encoder rows with one column, in chunks."""
        if self.inputs.side == "writes":
            yield from self.transcoder.decoder_chunks(layer)
            return
        stored = self.transcoder.encoder(layer).stored
        size = max(1, CHUNK_BYTES // (4 * self.transcoder.d_model))
        for first in range(0, len(stored), size):
            yield first, stored[first : first + size].float()[:, None]

    def columns(self, layer: int) -> tuple[int, ...]:
        """Target layers of a layer's rows."""
        return self.transcoder.targets(layer) if self.inputs.side == "writes" else (layer,)

    def words_of(self, layer: int) -> Words:
        """The word among all words, as a layer's features see it; made once where it is the same for all."""
        same = self.inputs.side == "writes" or not _behind_norm(self.transcoder)
        key = -1 if same else layer
        if key not in self.words:
            vocabulary = self.vocabulary(layer)
            self.words = {key: words_of(vocabulary, self.forms, self._spread(vocabulary, same=same))}
        return self.words[key]

    def _spread(self, vocabulary: Vocabulary, *, same: bool) -> Spread:
        """How all words lie; what is the same for all layers is kept with the model."""
        wide = self.inputs.rank_by == "deviations"
        name = f"{self.inputs.side}{', with covariance' if wide else ''}"
        if same and name in self.known:
            return self.known[name]
        spread = spread_of(vocabulary, covariance=wide)
        if same:
            self.known[name] = spread
        return spread

    def _look(self, layer: int, first: int, rows: Tensor) -> None:
        flat = rows.flatten(0, 1)
        scores = self.words_of(layer).scores(flat, self.inputs.rank_by)
        by_column = scores.unflatten(0, rows.shape[:2]).amax(-1)
        self.best.add(layer, first, by_column.amax(-1))
        source = self.transcoder.layers.index(layer)
        for column, target in enumerate(self.columns(layer)):
            place = source, self.targets.index(target)
            self.grid[place] = np.fmax(self.grid[place], float(by_column[:, column].max()))
        self.searched += len(rows)

    def hits(self) -> list[Hit]:
        """The best features, each read again alone; copies of one direction once."""
        found, made = self.best.best(), []
        for layer in sorted({feature.layer for _, feature in found}):
            some = [pair for pair in found if pair[1].layer == layer]
            rows = self._exact_rows(layer, [feature.index for _, feature in some])
            words, vocabulary = self.words_of(layer), self.vocabulary(layer)
            made += read_again(some, rows, self.columns(layer), words, self.forms, vocabulary, self.inputs)
        order = {feature: place for place, (_, feature) in enumerate(found)}
        return sorted(made, key=lambda hit: order[hit.feature])[: self.inputs.count]

    def _exact_rows(self, layer: int, indices: list[int]) -> Float[Tensor, "n column d_model"]:
        """Rows of some features in float64 on the CPU."""
        index = torch.tensor(indices)
        if self.inputs.side == "writes":
            return self.transcoder.rows(layer, index).cpu().double()
        return self.transcoder.encoder(layer).some(index).cpu().double()[:, None]


def _behind_norm(transcoder: Transcoder) -> bool:
    return transcoder.reads.site == "mlp_in" or transcoder.reads.normalised


def _columns(hits: list[Hit]) -> dict[str, np.ndarray]:
    """The arrays of the result that have one entry per hit."""

    def whole(values: list[int]) -> np.ndarray:
        return np.array(values, np.int64)

    def numbers(values: list[float]) -> np.ndarray:
        return np.array(values, np.float64)

    return {
        "layers": whole([hit.feature.layer for hit in hits]),
        "indices": whole([hit.feature.index for hit in hits]),
        "targets": whole([hit.target for hit in hits]),
        "token_ids": whole([hit.token_id for hit in hits]),
        "scores": numbers([hit.passed for hit in hits]),
        "effects": numbers([hit.effect for hit in hits]),
        "deviations": numbers([hit.deviations for hit in hits]),
        "cosines": numbers([hit.cosine for hit in hits]),
        "ranks": whole([hit.rank for hit in hits]),
        "totals": numbers([hit.total for hit in hits]),
        "copies": whole([hit.copies for hit in hits]),
    }


def _checks(hits: list[Hit], inputs: WordSearchInputs) -> Iterator[Check]:
    """The pass over chunks in float32 and the second reading in float64 agree."""
    if not hits:
        return
    size = max(abs(hit.passed) for hit in hits) or 1.0
    off = max(abs(hit.passed - hit.score(inputs.rank_by)) for hit in hits) / size
    yield Check(
        "listed features, read again one by one",
        off <= SINGLE,
        f"Against the whole vocabulary in float64, the scores are {off:.1e} of the largest off.",
    )
