"""One neuron over a set of texts: its activation at every token, what fires it, what it writes.

    a[token] = mlp_post[token, neuron]        (gated MLPs: the product of the two branches, may be negative)

Histogram, contexts and means per kind of text are over the tokens that count (not the first of a text, no
BOS: massive activations, Sun et al. 2024). Bands: 95 % bootstrap over texts. Vocabulary: `neuron_vocabulary`.
Cost: one forward pass per token of the set, in batches of equal length; one number per token is kept.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.causal_trace_result import Step
from mi_core.analyses.neuron_inputs import NeuronInputs
from mi_core.analyses.neuron_result import NeuronResult, Vocabulary
from mi_core.analyses.neuron_statistics import category_bands, histogram_edges
from mi_core.analyses.neuron_texts import (
    ReadSet,
    ReadText,
    agreement,
    batch_tokens,
    batches,
    context_of,
    read_texts,
    set_warnings,
)
from mi_core.analyses.neuron_vocabulary import vocabulary
from mi_core.engine import run
from mi_core.errors import Cancelled, InputError
from mi_core.model.model import LoadedModel
from mi_core.provenance import Provenance

OnNeuronStep = Callable[[Step[NeuronResult]], None]


def neuron(model: LoadedModel, inputs: NeuronInputs, *, on_step: OnNeuronStep | None = None) -> NeuronResult:
    """Look at one neuron over a set of texts.

    Args:
        model: a loaded model.
        inputs: which neuron, and the texts.
        on_step: told of progress after every batch; may raise `Cancelled` to stop.

    Returns:
        The neuron's activations and what follows from them; after `Cancelled`, on the texts read until then
        and without vocabulary (`result.cancelled`).

    Raises:
        SiteMissing: the model has no `mlp_post`.
        InputError: there is no such neuron, or no token counts.
    """
    require_neuron(model, inputs.layer, inputs.neuron)
    texts = read_texts(
        model.tokenizer,
        inputs.texts,
        max_tokens=inputs.max_tokens,
        bos=inputs.bos,
        context=context_of(model),
    )
    look = _Look(model, inputs, texts)
    for batch in batches(texts.texts, batch_tokens(model.dims)):
        try:
            look.report(on_step)
        except Cancelled:
            return look.result(cancelled=True)
        look.add(batch)
    try:
        look.report(on_step)
    except Cancelled:
        return look.result(cancelled=True)
    return look.result()


def require_neuron(model: LoadedModel, layer: int, number: int) -> None:
    """Check that a neuron exists.

    Raises:
        SiteMissing: no `mlp_post`, or no such layer.
        InputError: no such neuron in the layer.
    """
    model.structure.require("mlp_post", layer)
    if not 0 <= number < model.dims.d_mlp:
        raise InputError(
            f"There is no neuron {number} in layer {layer}",
            why=f"the layer has neurons 0 to {model.dims.d_mlp - 1}",
        )


@dataclass(slots=True)
class _Look:
    """The look under way: activations of the texts read so far."""

    model: LoadedModel
    inputs: NeuronInputs
    texts: ReadSet
    started: float = field(default_factory=time.perf_counter)
    values: dict[int, np.ndarray] = field(default_factory=dict)
    tokens_done: int = 0

    def add(self, batch: Sequence[ReadText]) -> None:
        """Run one batch and keep the neuron's column."""
        tokens, place = torch.tensor([text.ids for text in batch]), ("mlp_post", self.inputs.layer)
        done = run(
            self.model,
            tokens,
            capture=[place],
            reduce=lambda _place, value: value[..., self.inputs.neuron].float().cpu().numpy().copy(),
            last=1,
        )
        for text, row in zip(batch, done[place], strict=True):
            self.values[text.index] = row
        self.tokens_done += tokens.numel()

    def report(self, on_step: OnNeuronStep | None) -> None:
        """Tell the caller; may raise Cancelled."""
        if on_step is None:
            return
        total = sum(len(text.ids) for text in self.texts.texts if text.counted)
        spent = time.perf_counter() - self.started
        left = spent / self.tokens_done * (total - self.tokens_done) if self.tokens_done else None
        text = f"text {len(self.values):,} of {sum(text.counted > 0 for text in self.texts.texts):,}"
        on_step(Step(self.tokens_done, total, left, None, text))

    def result(self, *, cancelled: bool = False) -> NeuronResult:
        """What follows from the activations so far."""
        read = [text for text in self.texts.texts if text.index in self.values]
        if not read:
            raise Cancelled  # stopped before there was anything to keep
        values = np.concatenate([self.values[text.index] for text in read])
        wrong = int((~np.isfinite(values)).sum())
        values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
        so_far = ReadSet(tuple(read), self.texts.categories, self.texts.cut, self.texts.unread)
        words, checks = self._vocabulary(read, values, cancelled=cancelled)
        finite = "All are numbers." if not wrong else f"{wrong:,} are infinite or no number; shown as 0."
        return NeuronResult(
            inputs=self.inputs,
            provenance=Provenance.of(self.model, seed=self.inputs.seed),
            n_layers=self.model.dims.n_layers,
            d_mlp=self.model.dims.d_mlp,
            gated=self.model.structure.family.gated,
            categories=self.texts.categories,
            text_index=np.array([text.index for text in read], np.int64),
            text_category=np.array([text.category for text in read], np.int64),
            text_length=np.array([len(text.ids) for text in read], np.int64),
            text_first=np.array([text.first for text in read], np.int64),
            activations=values.astype(np.float32),
            tokens=tuple(token for text in read for token in text.visible),
            **_statistics(self.inputs, read, values, len(self.texts.categories)),
            vocabulary=words,
            warnings=set_warnings(so_far, self.texts, cancelled=cancelled),
            checks=(Check("activations are finite", not wrong, finite), *checks),
            seconds=time.perf_counter() - self.started,
            cancelled=cancelled,
        )

    def _vocabulary(
        self, read: Sequence[ReadText], values: np.ndarray, *, cancelled: bool
    ) -> tuple[Vocabulary, tuple[Check, ...]]:
        """Frozen at the strongest token that counts; the same text run alone proves the activations."""
        if cancelled:
            return Vocabulary.none("The look was stopped"), ()
        mask, starts = _counted(read), np.cumsum([0] + [len(text.ids) for text in read])
        strongest = int(np.where(mask, np.abs(values), -1).argmax())
        row = int(np.searchsorted(starts, strongest, side="right")) - 1
        text, position = read[row], strongest - int(starts[row])
        inputs, place = self.inputs, ("mlp_post", self.inputs.layer)
        again = run(self.model, torch.tensor([text.ids]), capture=[place], last=1)[place]
        alone = again[0, :, inputs.neuron].double().cpu().numpy()
        off = float(np.abs(alone - self.values[text.index]).max())
        scale = max(float(again.abs().max()), 1e-30)
        same = Check(
            "a text by itself gives the same activations",
            off / scale <= agreement(self.model),
            f"Text {text.index}, run alone, is {off / scale:.1e} of the layer's largest activation off.",
        )
        words, checks = vocabulary(
            self.model, inputs.layer, inputs.neuron, text.ids, text.index, position, inputs.vocabulary
        )
        return words, (same, *checks)


def _counted(read: Sequence[ReadText]) -> np.ndarray:
    return np.concatenate([np.arange(len(text.ids)) >= text.first for text in read])


def _statistics(
    inputs: NeuronInputs, read: Sequence[ReadText], values: np.ndarray, n_categories: int
) -> dict[str, np.ndarray]:
    """Histogram by kind of text, and the mean of each kind with its band."""
    mask = _counted(read)
    lengths = [len(text.ids) for text in read]
    kinds = np.repeat([text.category for text in read], lengths)
    edges = histogram_edges(values[mask].astype(np.float64), inputs.bins)
    counts = np.stack(
        [np.histogram(values[mask & (kinds == kind)], edges)[0] for kind in range(n_categories)]
    )
    rows = np.repeat(np.arange(len(read)), lengths)
    sums = np.bincount(rows, weights=np.where(mask, values, 0).astype(np.float64), minlength=len(read))
    mean, low, high = category_bands(
        sums,
        np.bincount(rows, weights=mask, minlength=len(read)).astype(np.int64),
        np.array([text.category for text in read]),
        n_categories,
        inputs.resamples,
        inputs.seed,
    )
    return {
        "edges": edges,
        "counts": counts.astype(np.int64),
        "category_mean": mean,
        "category_low": low,
        "category_high": high,
    }
