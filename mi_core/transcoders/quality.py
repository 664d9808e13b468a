"""How much of a model a transcoder can stand in for: every MLP replaced, over many texts.

The replacement model writes b_dec + active features (+ skip) instead of each MLP's output, and every layer's
features are encoded from the stream that the earlier replacements have left. Leading special tokens keep
their own MLP outputs: transcoders are not made for them. At every other position but the last of a text:

    agreement  = share of positions where both models have the same most likely next token
    KL         = mean KL(model || replacement), nats
    recovered  = (CE_mean - CE_replacement) / (CE_mean - CE_model)

where CE is the mean cross-entropy of the next token in nats, and CE_mean is that of the model whose MLPs all
write their mean output over these texts. FVU and L0 are of the transcoder on the model's own stream.
Cost: L + 6 forward passes per batch of texts of equal length.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mi_core.engine import Edit, run
from mi_core.errors import InputError, TranscoderError
from mi_core.model.model import LoadedModel
from mi_core.transcoders.encode import encode_layer, masked_positions, without_gain
from mi_core.transcoders.transcoder import Transcoder

ROWS_AT_ONCE = 64


@dataclass(frozen=True, slots=True, eq=False)
class Quality:
    """What `transcoder_quality` measured.

    Attributes:
        layers: target layers.
        tokens: positions measured (FVU, L0).
        predicted: positions with a next token (agreement, KL, cross-entropies).
        unexplained: [target] FVU over all texts.
        unexplained_all: FVU over all target layers together.
        l0: [source] active features per token.
        fired: source layer -> [feature] on how many tokens each feature was active.
        agreement: share of positions with the same most likely token.
        kl: mean KL(model || replacement), nats.
        ce_model: cross-entropy of the model, nats.
        ce_replacement: of the replacement model.
        ce_mean: of the model with mean MLP outputs.
    """

    layers: tuple[int, ...]
    tokens: int
    predicted: int
    unexplained: tuple[float, ...]
    unexplained_all: float
    l0: tuple[float, ...]
    fired: dict[int, Int[Tensor, " feature"]]
    agreement: float
    kl: float
    ce_model: float
    ce_replacement: float
    ce_mean: float

    @property
    def recovered(self) -> float:
        """Share of the cross-entropy between mean MLPs and real MLPs that the transcoder recovers."""
        return (self.ce_mean - self.ce_replacement) / (self.ce_mean - self.ce_model)

    def dead(self) -> float:
        """Share of features that were never active."""
        counts = torch.cat(list(self.fired.values()))
        return float((counts == 0).float().mean())


def transcoder_quality(
    model: LoadedModel,
    transcoder: Transcoder,
    texts: Sequence[Sequence[int]],
    *,
    on_batch: Callable[[int, int], None] | None = None,
) -> Quality:
    """Measure a transcoder over texts.

    Args:
        model: the loaded model.
        transcoder: of that model, with its decoder; it must write to `mlp_out` of every layer.
        texts: token ids of each text; texts without two ordinary tokens are left out.
        on_batch: called with (batches done, batches).

    Raises:
        TranscoderError: kind "unsupported": it does not write every MLP's output.
        InputError: there is no text.
    """
    _check(model, transcoder)
    batches = _batches(model, texts)
    sums = _Sums(transcoder)
    total = 2 * len(batches)
    for done, (tokens, masked) in enumerate(batches):
        sums.add_written(model, tokens, masked)
        if on_batch:
            on_batch(done + 1, total)
    for done, (tokens, masked) in enumerate(batches):
        sums.add_fit(model, tokens, masked)
        sums.add_prediction(model, tokens, masked)
        if on_batch:
            on_batch(len(batches) + done + 1, total)
    return sums.result()


def replacement_edits(
    model: LoadedModel, transcoder: Transcoder, tokens: Int[Tensor, "row pos"], masked: int
) -> list[Edit]:
    """Edits that put the transcoder in the place of every MLP, for these very texts.

    Args:
        model: the loaded model.
        transcoder: see `transcoder_quality`.
        tokens: token ids.
        masked: how many leading positions keep their own MLP outputs.
    """
    positions = tuple(range(masked, tokens.shape[1]))
    shape = (len(tokens), len(positions), transcoder.d_model)
    told = {m: transcoder.bias(m).expand(shape).clone() for m in transcoder.written_layers}
    edits: list[Edit] = []
    for layer in transcoder.written_layers:
        read = read_rows(model, transcoder, tokens, (layer,), edits)[0][:, masked:]
        active = encode_layer(transcoder, layer, read.flatten(0, 1))
        _write(told, transcoder, layer, active)
        skipped = transcoder.skip(layer, read.flatten(0, 1))
        if skipped is not None:
            told[layer] += skipped.view(shape)
        value = told[layer].to(model.device, model.dtype)
        edits.append(Edit("mlp_out", layer, "set", positions, value=value))
    return edits


def read_rows(
    model: LoadedModel,
    transcoder: Transcoder,
    tokens: Int[Tensor, "row pos"],
    layers: Sequence[int],
    edits: Sequence[Edit] = (),
) -> list[Float[Tensor, "row pos d_model"]]:
    """What the encoders of some layers see in many texts of equal length, under edits; one pass."""
    site, normalised = transcoder.reads.site, transcoder.reads.normalised
    names = (site, "mlp_in") if normalised else (site,)
    capture = [(name, layer) for name in names for layer in layers]
    found, values = run(model, tokens, capture=capture, edits=edits, last=1), []
    for layer in layers:
        value = found[site, layer]
        if normalised:
            flat = without_gain(model, layer, value.flatten(0, 1), found["mlp_in", layer].flatten(0, 1))
            value = flat.view(value.shape)
        values.append(value.to(transcoder.device, torch.float32))
    return values


def firing_counts(
    model: LoadedModel, transcoder: Transcoder, texts: Sequence[Sequence[int]]
) -> tuple[dict[int, Int[Tensor, " feature"]], int]:
    """On how many ordinary tokens each feature is active: (source layer -> counts, number of tokens).

    Raises:
        InputError: there is no text.
    """
    counts = {layer: torch.zeros(n, dtype=torch.long) for layer, n in transcoder.n_features.items()}
    total = 0
    for tokens, masked in _batches(model, texts):
        reads = read_rows(model, transcoder, tokens, transcoder.layers)
        for layer, read in zip(transcoder.layers, reads, strict=True):
            active = encode_layer(transcoder, layer, read[:, masked:].flatten(0, 1))
            counts[layer] += (active > 0).sum(0).cpu()
        total += tokens.shape[0] * (tokens.shape[1] - masked)
    return counts, total


def _write(told: dict[int, Tensor], transcoder: Transcoder, layer: int, active: Tensor) -> None:
    """Adds what the features of a layer write to all their targets."""
    used = (active > 0).any(0).nonzero()[:, 0]
    rows = transcoder.rows(layer, used)
    for column, target in enumerate(transcoder.targets(layer)):
        part = active[:, used] @ rows[:, column]
        told[target] += part.view(told[target].shape)


def _check(model: LoadedModel, transcoder: Transcoder) -> None:
    every = tuple(range(model.dims.n_layers))
    if transcoder.writes.site != "mlp_out" or transcoder.layers != every:
        raise TranscoderError(
            "This transcoder cannot replace the model's MLPs",
            kind="unsupported",
            why=f"it writes {transcoder.writes.text} of layers {transcoder.layers}",
        )


def _batches(model: LoadedModel, texts: Sequence[Sequence[int]]) -> list[tuple[Tensor, int]]:
    """Texts of equal length and equally many leading special tokens together: (token ids, how many)."""
    groups: dict[tuple[int, int], list[Sequence[int]]] = {}
    for ids in texts:
        masked = len(masked_positions(model, ids))
        if len(ids) - masked >= 2:
            groups.setdefault((len(ids), masked), []).append(ids)
    if not groups:
        raise InputError("There is no text with at least two ordinary tokens")
    return [
        (torch.tensor(rows[start : start + ROWS_AT_ONCE]), masked)
        for (_, masked), rows in sorted(groups.items())
        for start in range(0, len(rows), ROWS_AT_ONCE)
    ]


class _Sums:
    """Running sums, in float64."""

    def __init__(self, transcoder: Transcoder) -> None:
        self.transcoder = transcoder
        n, width = len(transcoder.written_layers), transcoder.d_model
        self.written = torch.zeros(n, width, dtype=torch.float64)
        self.squares = torch.zeros(n, dtype=torch.float64)
        self.errors = torch.zeros(n, dtype=torch.float64)
        self.fired = {
            layer: torch.zeros(count, dtype=torch.long) for layer, count in transcoder.n_features.items()
        }
        self.tokens = self.predicted = self.agreed = 0
        self.kl = self.ce_model = self.ce_replacement = self.ce_mean = 0.0

    def add_written(self, model: LoadedModel, tokens: Tensor, masked: int) -> None:
        """First pass: mean and spread of what the MLPs write."""
        found = run(model, tokens, capture=["mlp_out"], last=1)
        for row, layer in enumerate(self.transcoder.written_layers):
            value = found["mlp_out", layer][:, masked:].flatten(0, 1).double().cpu()
            self.written[row] += value.sum(0)
            self.squares[row] += value.square().sum()
        self.tokens += tokens.shape[0] * (tokens.shape[1] - masked)

    def add_fit(self, model: LoadedModel, tokens: Tensor, masked: int) -> None:
        """Error and active features on the model's own stream."""
        found = run(model, tokens, capture=["mlp_out"], last=1)
        shape = (tokens.shape[0], tokens.shape[1] - masked, self.transcoder.d_model)
        layers = self.transcoder.written_layers
        told = {m: self.transcoder.bias(m).expand(shape).clone() for m in layers}
        reads = read_rows(model, self.transcoder, tokens, layers)
        for layer, seen in zip(layers, reads, strict=True):
            read = seen[:, masked:].flatten(0, 1)
            active = encode_layer(self.transcoder, layer, read)
            self.fired[layer] += (active > 0).sum(0).cpu()
            _write(told, self.transcoder, layer, active)
            skipped = self.transcoder.skip(layer, read)
            if skipped is not None:
                told[layer] += skipped.view(shape)
        for row, layer in enumerate(layers):
            true = found["mlp_out", layer][:, masked:].to(told[layer])
            self.errors[row] += (true - told[layer]).double().square().sum().cpu()

    def add_prediction(self, model: LoadedModel, tokens: Tensor, masked: int) -> None:
        """Next tokens of the model, of its replacement, and with mean MLP outputs."""
        positions = tuple(range(masked, tokens.shape[1]))
        mean = self.written / self.tokens
        means = [
            Edit("mlp_out", layer, "set", positions, value=mean[row].to(model.device, model.dtype))
            for row, layer in enumerate(self.transcoder.written_layers)
        ]
        replaced = replacement_edits(model, self.transcoder, tokens, masked)
        own, replacement, flat = (
            run(model, tokens, edits=edits).logits[:, masked:-1].float().log_softmax(-1)
            for edits in ((), replaced, means)
        )
        true = tokens[:, masked + 1 :, None].to(own.device)
        self.agreed += int((own.argmax(-1) == replacement.argmax(-1)).sum())
        self.kl += float((own.exp() * (own - replacement)).sum())
        self.ce_model -= float(own.gather(-1, true).sum())
        self.ce_replacement -= float(replacement.gather(-1, true).sum())
        self.ce_mean -= float(flat.gather(-1, true).sum())
        self.predicted += true.numel()

    def result(self) -> Quality:
        """The means."""
        spread = self.squares - self.written.square().sum(1) / self.tokens
        n = self.predicted
        return Quality(
            self.transcoder.written_layers,
            self.tokens,
            n,
            tuple((self.errors / spread).tolist()),
            float(self.errors.sum() / spread.sum()),
            tuple(float(count.sum()) / self.tokens for count in self.fired.values()),
            self.fired,
            self.agreed / n,
            self.kl / n,
            self.ce_model / n,
            self.ce_replacement / n,
            self.ce_mean / n,
        )
