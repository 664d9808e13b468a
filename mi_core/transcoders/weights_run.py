"""One feature from the weights alone: what it writes, layer by layer and in all, and what it reads.

For feature f of layer l with decoder rows W_dec[f, m] (one per target layer m) and encoder row W_enc[f]:

    writes    gain * centre(W_dec[f, m]) . W_U,  and the same of the sum over m     (final norm at scale 1)
    where     |W_dec[f, m]|, cosines between the rows
    reads     W_E . W_enc[f]                                                       (norm in front at scale 1)

No prompt, no input: these say what the feature would do, not when it is active nor what attention makes of
it. Rows are sums over a whole circuit, so words deep in the list mean nothing.
Cost: the rows of one feature and 2 d_vocab d_model (targets + 2) operations; the encoder of its layer.
Sources: Lindsey et al. 2025 (circuit tracing); Dunefsky et al. 2024 (arXiv 2406.11944).
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.causal_trace_result import Step
from mi_core.analyses.circuit_vocabulary import VocabularyWatch, read_embedding, read_unembedding
from mi_core.errors import TranscoderError
from mi_core.model.model import LoadedModel
from mi_core.provenance import Provenance
from mi_core.transcoders.store import load_transcoder
from mi_core.transcoders.transcoder import Transcoder
from mi_core.transcoders.weights_inputs import FeatureWeightsInputs
from mi_core.transcoders.weights_result import BINS, FeatureWeightsResult
from mi_core.transcoders.weights_stream import reader_gain, reads_stream
from mi_core.transcoders.weights_vocabulary import Ends, Moments, ends_of, moments_of, proved, visible_of

OnWeightsStep = Callable[[Step[FeatureWeightsResult]], None]

EXACT = 1e-9  # relative rounding of sums in float64


def feature_weights(
    model: LoadedModel, inputs: FeatureWeightsInputs, *, on_step: OnWeightsStep | None = None
) -> FeatureWeightsResult:
    """The words that a feature writes and reads, and the layers that it writes to.

    Args:
        model: a loaded model.
        inputs: which feature of which transcoder.
        on_step: told of progress over the vocabulary; may raise `Cancelled` to stop.

    Raises:
        TranscoderError: no such transcoder, or its files cannot be used.
        InputError: no such feature.
        ModelError: the model's vocabulary cannot be read (see `circuit_vocabulary`).
    """
    started = time.perf_counter()
    transcoder, feature = load_transcoder(model, inputs.transcoder), inputs.chosen
    transcoder.check(feature.layer, feature.index)
    rows, problem = feature_rows(transcoder, feature.layer, feature.index)
    watch = VocabularyWatch(2 * model.dims.d_vocab, started, on_step)
    writes = _read_writes(model, rows, inputs.tokens, watch)
    watch.before = model.dims.d_vocab
    reads, encoder = _read_reads(model, transcoder, inputs, watch)
    ids = {*writes.ends.ids.ravel().tolist(), *reads.ends.ids.ravel().tolist()}
    visible = visible_of(model)
    return FeatureWeightsResult(
        inputs=inputs,
        provenance=Provenance.of(model),
        n_layers=model.dims.n_layers,
        n_features=transcoder.n_features[feature.layer],
        transcoder_name=transcoder.name,
        transcoder_kind=transcoder.kind,
        transcoder_fingerprint=transcoder.fingerprint,
        reads_at=transcoder.reads.text,
        writes_at=transcoder.writes.text,
        activation=transcoder.activation,
        targets=np.array(transcoder.targets(feature.layer) if len(rows) else (), np.int64),
        **_written_fields(writes, rows),
        **_read_fields(reads, encoder),
        vocabulary={token: visible(token) for token in sorted(ids)},
        warnings=tuple(_warnings(model, transcoder, inputs, rows, problem)),
        checks=writes.checks,
        seconds=time.perf_counter() - started,
    )


def feature_rows(
    transcoder: Transcoder, layer: int, index: int
) -> tuple[Float[Tensor, "target d_model"], str]:
    """The decoder rows of one feature in float64 on the CPU; none, and why, where there are no decoders."""
    nothing = torch.zeros(0, transcoder.d_model, dtype=torch.float64)
    if not transcoder.has_decoder:
        return nothing, "Only the encoders of this transcoder are here: what a feature writes is not known."
    try:
        rows = transcoder.rows(layer, torch.tensor([index]))[0]
    except TranscoderError as error:
        if error.kind != "no_decoder":
            raise
        return nothing, str(error)
    return rows.cpu().double(), ""


@dataclass(frozen=True, slots=True, eq=False)
class _Reading:
    """Some directions read through the vocabulary."""

    ends: Ends
    moments: Moments
    edges: np.ndarray
    counts: np.ndarray
    checks: tuple[Check, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class _EncoderRow:
    """The encoder of one feature."""

    row: Float[Tensor, "d_model"]
    bias: float
    threshold: float | None


def _written_fields(writes: _Reading, rows: Float[Tensor, "target d_model"]) -> dict[str, Any]:
    """The Result's fields of what the feature writes."""
    return {
        "top_ids": writes.ends.ids,
        "top_values": writes.ends.values,
        **{f"effect_{name}": getattr(writes.moments, name) for name in Moments.__slots__},
        "edges": writes.edges,
        "counts": writes.counts,
        "decoder_norms": rows.norm(dim=-1).numpy(),
        "row_cosines": _cosines(rows),
    }


def _read_fields(reads: _Reading, encoder: _EncoderRow) -> dict[str, Any]:
    """The Result's fields of what it reads."""
    return {
        "read_ids": reads.ends.ids[0],
        "read_values": reads.ends.values[0],
        "read_mean": float(reads.moments.mean[0]),
        "read_deviation": float(reads.moments.deviation[0]),
        "encoder_norm": float(encoder.row.norm()),
        "encoder_bias": encoder.bias,
        "threshold": encoder.threshold,
    }


def _read_writes(
    model: LoadedModel, rows: Float[Tensor, "target d_model"], count: int, watch: VocabularyWatch
) -> _Reading:
    """Column 0 is the sum over target layers, the others are the target layers."""
    if not len(rows):
        shape = (0, 2, min(count, model.dims.d_vocab))
        empty = np.zeros(shape, np.int64), np.zeros(shape)
        none = np.zeros(0)
        return _Reading(Ends(*empty), Moments(none, none, none, none), none, none.astype(np.int64))
    directions = torch.cat([rows.sum(0, keepdim=True), rows])
    raw = read_unembedding(model, directions.T, watch)
    moments, relative = moments_of(raw), raw - raw.mean(0)
    ends = ends_of(relative, count)
    summed = relative[:, 0].numpy()
    return _Reading(ends, moments, *_histogram(summed), tuple(_write_checks(model, directions, raw, ends)))


def _histogram(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    low, high = float(values.min()), float(values.max())
    if not high - low > 1e-12 * max(abs(low), abs(high), 1e-30):
        low, high = low - 0.5, high + 0.5
    counts, edges = np.histogram(values, BINS, (low, high))
    return edges, counts.astype(np.int64)


def _write_checks(model: LoadedModel, directions: Tensor, raw: Tensor, ends: Ends) -> Iterator[Check]:
    size = max(float(raw.abs().max()), 1e-300)
    off = float((raw[:, 0] - raw[:, 1:].sum(1)).abs().max()) / size
    yield Check(
        "target layers add up to the whole",
        off <= EXACT,
        f"What all layers write together and the sum over layers differ by {off:.1e} of the largest effect.",
    )
    shown = sorted(set(ends.ids[0].ravel().tolist()))
    own = proved(model, directions[0], shown, raw[shown, 0])
    if own is not None:
        yield own


def _read_reads(
    model: LoadedModel, transcoder: Transcoder, inputs: FeatureWeightsInputs, watch: VocabularyWatch
) -> tuple[_Reading, _EncoderRow]:
    """The encoder against every token's embedding, behind the norm that stands in front of it."""
    feature = inputs.chosen
    encoder = transcoder.encoder(feature.layer)
    index = torch.tensor([feature.index])
    row = encoder.some(index)[0].cpu().double()
    threshold = None if encoder.threshold is None else float(encoder.threshold[feature.index])
    gain = reader_gain(model, transcoder, feature.layer)
    # w . (gain * centre(x)) = (gain * w, its mean taken off) . x: centring is symmetric.
    direction = row if gain is None else gain.before(row[:, None].to(gain.vector))[:, 0].cpu()
    readings = read_embedding(model, direction[:, None], watch)
    none = np.zeros(0)
    reading = _Reading(ends_of(readings, inputs.tokens), moments_of(readings), none, none)
    bias = float(encoder.b_enc[feature.index])
    if encoder.centre is not None:  # w . (x - centre) + b = w . x + (b - w . centre)
        bias -= float(row @ encoder.centre.cpu().double())
    return reading, _EncoderRow(row, bias, threshold)


def _cosines(rows: Float[Tensor, "target d_model"]) -> Float[np.ndarray, "target target"]:
    """Cosines between rows; NaN where one of them is zero."""
    lengths = rows.norm(dim=-1)
    scaled = rows / torch.where(lengths > 0, lengths, torch.nan)[:, None]
    return (scaled @ scaled.T).clamp(-1, 1).numpy()


def _warnings(
    model: LoadedModel, transcoder: Transcoder, inputs: FeatureWeightsInputs, rows: Tensor, problem: str
) -> Iterator[str]:
    feature = inputs.chosen
    if problem:
        yield problem
    elif not float(rows.abs().max()) > 0:
        yield f"{feature.text} writes nothing: its decoder rows are zero."
    if not reads_stream(transcoder):
        yield (
            f"{feature.text} reads {transcoder.reads.text}, what one module wrote, and no embedding: the "
            "words that it reads are only how its encoder lies to the embeddings."
        )
    if model.tokenizer is None:
        yield "This model has no tokenizer: words are shown as numbers."
    yield from transcoder.warnings
