"""Which neurons are the most active over a set of texts, layer by layer.

A neuron is one coordinate of `mlp_post`, what enters the MLP's down projection (in gated MLPs the product of
the two branches, so it can be negative). Over all tokens of the set that count (not the first of a text):

    mean, standard deviation, mean |a|, share above 0, largest, smallest; mean per kind of text;
    selectivity = (mean on a kind - mean on all others) / standard deviation
    the `contexts` tokens with the largest |a|

Cost: one forward pass per token, in batches of equal length. Memory does not grow with the texts: per neuron
8 bytes per kind of text and context and 32 more (`neuron_state`); activations themselves are never kept.
Method: streaming top contexts as in Bills et al. 2023 and Neuronpedia; first tokens are left out because of
massive activations (Sun et al. 2024, arXiv 2402.17762).
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from mi_core.analyses.causal_trace_result import Step
from mi_core.analyses.neuron_inputs import NeuronSurveyInputs
from mi_core.analyses.neuron_state import LayerState, read_keys, state_bytes, state_device
from mi_core.analyses.neuron_survey_checks import contexts_check, finite_check, means_check
from mi_core.analyses.neuron_survey_result import NeuronSurveyResult, SurveyCost, selectivity
from mi_core.analyses.neuron_texts import (
    ReadSet,
    ReadText,
    batch_tokens,
    batches,
    context_of,
    read_texts,
    set_warnings,
)
from mi_core.engine import run
from mi_core.errors import Cancelled, InputError
from mi_core.model.model import LoadedModel
from mi_core.model.progress import format_bytes
from mi_core.model.structure import Dims
from mi_core.provenance import Provenance

OnSurveyStep = Callable[[Step[NeuronSurveyResult]], None]

MAX_STATE_BYTES = 2_000_000_000
SECONDS_BETWEEN_PARTIALS = 1.0  # a partial result ranks all neurons


def neuron_survey(
    model: LoadedModel, inputs: NeuronSurveyInputs, *, on_step: OnSurveyStep | None = None
) -> NeuronSurveyResult:
    """Find the most active neurons of every layer.

    Args:
        model: a loaded model.
        inputs: the texts and what to keep.
        on_step: told of progress after every batch, now and then with the result so far; may raise
            `Cancelled` to stop.

    Returns:
        The leading neurons; after `Cancelled`, over the texts read until then (`result.cancelled`).

    Raises:
        SiteMissing: the model has no `mlp_post`.
        InputError: no token counts, or the statistics would not fit (`MAX_STATE_BYTES`).
    """
    model.structure.require("mlp_post", 0)
    texts = _read(model, inputs)
    survey = _Survey(model, inputs, texts, cost_of(model.dims, inputs, texts, _speed(model)))
    for batch in batches(texts.texts, batch_tokens(model.dims)):
        try:
            survey.report(on_step)
        except Cancelled:
            return survey.result(cancelled=True)
        survey.add(batch)
    try:
        survey.report(on_step)
    except Cancelled:
        return survey.result()  # everything was done already
    return survey.result()


def neuron_survey_cost(
    tokenizer: Any,
    dims: Dims,
    inputs: NeuronSurveyInputs,
    *,
    context: int | None = None,
    speed: float | None = None,
) -> SurveyCost:
    """What a survey will take, from shapes alone; nothing runs.

    Args:
        tokenizer: of the model.
        dims: its sizes.
        inputs: the survey.
        context: longest prompt that the model reads, in tokens.
        speed: measured token-layers per second.

    Raises:
        InputError: no token counts, or the statistics would not fit.
    """
    texts = read_texts(tokenizer, inputs.texts, max_tokens=inputs.max_tokens, bos=inputs.bos, context=context)
    return cost_of(dims, inputs, texts, speed)


def cost_of(dims: Dims, inputs: NeuronSurveyInputs, texts: ReadSet, speed: float | None) -> SurveyCost:
    """See `neuron_survey_cost`."""
    state = state_bytes(dims.n_layers, dims.d_mlp, len(texts.categories), inputs.contexts)
    if state > MAX_STATE_BYTES:
        one = state_bytes(dims.n_layers, dims.d_mlp, len(texts.categories), 0)
        fitting = (MAX_STATE_BYTES - one) // (8 * dims.n_layers * dims.d_mlp)
        fix = f"Keep at most {fitting} contexts" if fitting > 0 else "Use fewer kinds of text"
        raise InputError(
            f"The survey would hold {format_bytes(state)} of statistics",
            why=f"{dims.n_layers} x {dims.d_mlp:,} neurons; the limit is {format_bytes(MAX_STATE_BYTES)}",
            fix=fix,
        )
    made = batches(texts.texts, batch_tokens(dims))
    tokens = sum(len(text.ids) for batch in made for text in batch)
    return SurveyCost(
        texts=sum(len(batch) for batch in made),
        tokens=tokens,
        passes=len(made),
        state_bytes=state,
        activations=texts.counted * dims.n_layers * dims.d_mlp,
        seconds=tokens * dims.n_layers / speed if speed else None,
    )


def _read(model: LoadedModel, inputs: NeuronSurveyInputs) -> ReadSet:
    return read_texts(
        model.tokenizer,
        inputs.texts,
        max_tokens=inputs.max_tokens,
        bos=inputs.bos,
        context=context_of(model),
    )


def _speed(model: LoadedModel) -> float | None:
    return model.token_layers_per_second or None


@dataclass(slots=True)
class _Survey:
    """A survey under way: the running state of every layer."""

    model: LoadedModel
    inputs: NeuronSurveyInputs
    texts: ReadSet
    cost: SurveyCost
    started: float = field(default_factory=time.perf_counter)
    drawn: float = 0.0
    done: list[ReadText] = field(default_factory=list)
    tokens_done: int = 0
    layers: dict[int, LayerState] = field(default_factory=dict)

    def add(self, batch: Sequence[ReadText]) -> None:
        """Run one batch of texts of equal length and count it."""
        first = batch[0].first
        categories = torch.tensor([text.category for text in batch]).repeat_interleave(batch[0].counted)
        numbers = torch.cat(
            [torch.arange(text.offset + first, text.offset + len(text.ids)) for text in batch]
        )

        def count(place: tuple[str, int | None], value: torch.Tensor) -> None:
            layer = place[1] or 0
            state = self.layers.get(layer)
            if state is None:
                state = self.layers[layer] = LayerState.empty(
                    value.shape[-1],
                    len(self.texts.categories),
                    self.inputs.contexts,
                    state_device(value.device),
                )
            state.add(value[:, first:].flatten(0, 1), categories, numbers)

        tokens = torch.tensor([text.ids for text in batch])
        run(self.model, tokens, capture=["mlp_post"], reduce=count, last=1)
        self.done += batch
        self.tokens_done += tokens.numel()

    def report(self, on_step: OnSurveyStep | None) -> None:
        """Tell the caller; may raise Cancelled."""
        if on_step is None:
            return
        now, total = time.perf_counter(), self.cost.tokens
        left = (now - self.started) / self.tokens_done * (total - self.tokens_done) if self.done else None
        partial = None
        if self.done and self.tokens_done < total and now - self.drawn > SECONDS_BETWEEN_PARTIALS:
            partial, self.drawn = self.result(partial=True), now
        text = f"text {len(self.done):,} of {self.cost.texts:,}"
        on_step(Step(self.tokens_done, total, left, partial, text))

    def result(self, *, cancelled: bool = False, partial: bool = False) -> NeuronSurveyResult:
        """The leading neurons so far."""
        so_far = ReadSet(
            tuple(self.done), self.texts.categories, cut=self.texts.cut, unread=self.texts.unread
        )
        if not self.done:
            raise Cancelled  # stopped before anything was counted: there is nothing to keep
        counts = np.array(so_far.token_counts(), np.int64)
        tables = [
            _table(self.layers[layer], counts, self.inputs.top) for layer in range(self.model.dims.n_layers)
        ]
        kept: dict[str, Any] = {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}
        layers = np.repeat(np.arange(len(tables)), [len(table["neurons"]) for table in tables])
        texts, positions = _places(kept.pop("numbers"), self.texts)
        result = NeuronSurveyResult(
            inputs=self.inputs,
            provenance=Provenance.of(self.model),
            n_layers=self.model.dims.n_layers,
            d_mlp=self.model.dims.d_mlp,
            categories=self.texts.categories,
            text_counts=np.array(so_far.text_counts(), np.int64),
            token_counts=counts,
            layers=layers.astype(np.int64),
            **kept,
            context_texts=texts,
            context_positions=positions,
            **_layer_numbers(self.layers, int(counts.sum()), self.model.dims.n_layers),
            tokens=_tokens_of(texts, self.texts),
            cost=self.cost,
            warnings=set_warnings(so_far, self.texts, cancelled=cancelled),
            seconds=time.perf_counter() - self.started,
            cancelled=cancelled,
        )
        if partial:
            return result
        checks = (
            finite_check(self.layers.values()),
            means_check(result),
            contexts_check(self.model, self.done, result),
        )
        return replace(result, checks=checks)


# --- from running sums to numbers ---


def _table(state: LayerState, token_counts: np.ndarray, top: int) -> dict[str, np.ndarray]:
    """Statistics and contexts of the neurons of one layer that lead a ranking, by neuron."""
    n = int(token_counts.sum())
    sums, squares = state.sums.cpu().numpy(), state.squares.cpu().numpy()
    values, numbers = read_keys(state.keys.cpu().numpy().T)
    mean = sums.sum(axis=0) / n
    counted = np.where(token_counts > 0, token_counts, 1)[:, None]
    means = np.where(token_counts[:, None] > 0, sums / counted, np.nan).T
    every = {
        "mean": mean,
        "deviation": np.sqrt(np.maximum(0.0, squares / n - mean**2)),
        "mean_absolute": state.absolute.cpu().numpy() / n,
        "share_active": state.active.cpu().numpy() / n,
        "maximum": state.maximum.cpu().numpy(),
        "minimum": state.minimum.cpu().numpy(),
        "category_means": means,
        "context_values": values,
        "numbers": numbers,
    }
    chosen = selectivity(means, token_counts, mean, every["deviation"])
    rankings = [np.abs(values[:, 0]).astype(float), every["mean_absolute"], every["share_active"], *chosen.T]
    kept = np.unique(np.concatenate([_leaders(ranking, top) for ranking in rankings]))
    return {"neurons": kept.astype(np.int64), **{name: numbers[kept] for name, numbers in every.items()}}


def _leaders(values: np.ndarray, top: int) -> np.ndarray:
    """The `top` largest finite values; among equal ones the first."""
    order = np.argsort(-np.nan_to_num(values, nan=-np.inf), kind="stable")[:top]
    return order[np.isfinite(values[order])]


def _layer_numbers(layers: dict[int, LayerState], n: int, n_layers: int) -> dict[str, Any]:
    """Per layer, over all neurons."""
    states = [layers[layer] for layer in range(n_layers)]
    return {
        "layer_peak": np.array(
            [max(float(s.maximum.abs().max()), float(s.minimum.abs().max())) for s in states], np.float32
        ),
        "layer_mean_absolute": np.array([float(s.absolute.mean()) / n for s in states]),
        "layer_share_active": np.array([float(s.active.double().mean()) / n for s in states]),
        "never_active": np.array([int((s.active == 0).sum()) for s in states], np.int64),
    }


def _places(numbers: np.ndarray, texts: ReadSet) -> tuple[np.ndarray, np.ndarray]:
    """Text and position of token numbers; -1 for none."""
    offsets = np.array([text.offset for text in texts.texts])
    which = np.maximum(0, np.searchsorted(offsets, numbers, side="right") - 1)
    index = np.array([text.index for text in texts.texts])
    there = numbers >= 0
    return np.where(there, index[which], -1), np.where(there, numbers - offsets[which], -1)


def _tokens_of(indices: np.ndarray, texts: ReadSet) -> dict[int, tuple[str, ...]]:
    """Visible tokens of the texts that contexts point into."""
    wanted = set(np.unique(indices).tolist())
    return {text.index: text.visible for text in texts.texts if text.index in wanted}
