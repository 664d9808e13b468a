"""Attribution patching: what a causal trace would show, to first order, from one backward pass.

    estimate[l, t] = m(corrupted) + (a_clean[l, t] - a_corrupted[l, t]) . d m / d a[l, t]
    slopes at the corrupted run
    attn, mlp: the sum over the layers of the trace's window;   head: the sum over its positions

The mean is over the trace's own noise samples; for noising, clean and corrupted change places. Two runs and
the noise are those of `causal_trace_prepare`, so the estimate is of exactly the trace with the same inputs.

It is a straight line continued over the whole step. It fails where the model is far from straight in between:
whole states, early layers, saturated softmaxes; and in a window it counts what one of its layers passes to
the next, which the exact patch cuts off. Sources: Nanda 2023 ("Attribution Patching: Activation Patching At
Industrial Scale"); Syed et al. 2023 (arXiv 2310.10348).

Cost: the trace's two runs, then one forward and one backward pass over the corrupted rows for each of
log-probability, logit and logit difference (the slope of a probability is p times that of its logarithm),
and a few rows for the check by a small step.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import prod

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mi_core.analyses.attribution_patching_checks import patching_checks
from mi_core.analyses.attribution_patching_result import (
    ESTIMATED_KINDS,
    ESTIMATED_METRICS,
    AttributionPatchingResult,
)
from mi_core.analyses.causal_trace_corruption import tokenize_pair
from mi_core.analyses.causal_trace_inputs import CausalTraceInputs, Kind
from mi_core.analyses.causal_trace_prepare import Prepared, prepare
from mi_core.analyses.causal_trace_result import Step
from mi_core.analyses.causal_trace_variants import SITE_OF, is_fixed, rows_of, window_layers
from mi_core.analyses.causal_trace_warnings import trace_warnings
from mi_core.engine import Edit, gradients
from mi_core.engine.place import Place
from mi_core.errors import InputError
from mi_core.metrics import exact_logits, sequence_log_probability
from mi_core.model.model import LoadedModel
from mi_core.provenance import Provenance

OnStep = Callable[[Step[AttributionPatchingResult]], None]
Score = Callable[[Float[Tensor, "row pos d_vocab"]], Float[Tensor, "row"]]

CHUNK_BYTES = 512 * 2**20
"""What the values and slopes of the rows that are differentiated together may hold."""


def attribution_patching(
    model: LoadedModel, inputs: CausalTraceInputs, *, on_step: OnStep | None = None
) -> AttributionPatchingResult:
    """Estimate every cell of a causal trace to first order.

    Args:
        model: a loaded model.
        inputs: the trace; severed kinds have no slope and are left out.
        on_step: told of every pass; may raise `Cancelled`, and then there is no result.

    Raises:
        InputError: see `causal_trace`; none of the kinds has a slope.
        SiteMissing: the model lacks a site that a kind needs.
        OutOfMemory: the device is too small for one row.
    """
    started = time.perf_counter()
    kinds: tuple[Kind, ...] = tuple(kind for kind in inputs.kinds if kind in ESTIMATED_KINDS)
    if not kinds:
        raise InputError(
            "None of the chosen restorations can be estimated",
            why="severing is not a step along a slope",
            fix=f"Choose some of {', '.join(ESTIMATED_KINDS)}",
        )
    prepared = prepare(model, replace(inputs, kinds=kinds))
    slopes = _Slopes(prepared, on_step or (lambda step: None))
    effects: dict[Kind, np.ndarray] = {kind: _effects(prepared, slopes, kind) for kind in kinds}
    readings = prepared.clean, prepared.corrupted
    result = AttributionPatchingResult(
        inputs=inputs,
        provenance=Provenance.of(model, seed=inputs.seed if prepared.noise is not None else None),
        tokens=prepared.pair.clean.tokens,
        subject=prepared.pair.subject,
        first_difference=prepared.shape.first_difference,
        n_layers=prepared.shape.n_layers,
        answer=prepared.answer,
        distractor=prepared.distractor,
        metrics=slopes.metrics,
        rows=rows_of("state", inputs, prepared.shape),
        clean=np.array([readings[0].mean(metric) for metric in slopes.metrics]),
        corrupted=np.array([readings[1].mean(metric) for metric in slopes.metrics]),
        state=effects.get("state"),
        attn=effects.get("attn"),
        mlp=effects.get("mlp"),
        head=effects.get("head"),
        n_samples=len(prepared.corrupted.samples["probability"]),
        warnings=trace_warnings(prepared),
    )
    checks = patching_checks(prepared, result, slopes.read)
    return replace(result, checks=checks, seconds=time.perf_counter() - started)


PASSES_PER_ROW = 10
"""Forward passes that a row costs: its own, and one with a backward pass for each of three metrics."""


def attribution_patching_seconds(model: LoadedModel, inputs: CausalTraceInputs) -> float | None:
    """How long the estimate is expected to take; None before the model's speed has been measured.

    Raises:
        InputError: the inputs do not fit the model or each other.
    """
    n_tokens = len(tokenize_pair(model, inputs).clean)
    several = inputs.corruption == "noise" and inputs.direction == "denoising"
    token_layers = PASSES_PER_ROW * (inputs.samples if several else 1) * n_tokens * model.dims.n_layers
    speed = model.token_layers_per_second
    return token_layers / speed if speed else None


# --- scores ---


def scores_of(prepared: Prepared) -> dict[str, Score]:
    """The metrics that are differentiated, one number per row, as the trace reads them."""
    answer = prepared.answer.ids
    ids = torch.tensor(answer)
    first = -len(answer)

    def log_probability(logits: Tensor) -> Tensor:
        return sequence_log_probability(logits[:, first:], ids)

    def logit(logits: Tensor) -> Tensor:
        return exact_logits(logits[:, first])[:, answer[0]]

    def difference(logits: Tensor) -> Tensor:
        exact = exact_logits(logits[:, first])
        return exact[:, answer[0]] - exact[:, prepared.distractor.ids[0]]  # type: ignore[union-attr]

    scores: dict[str, Score] = {"log_probability": log_probability, "logit": logit}
    return scores if prepared.distractor is None else {**scores, "logit_difference": difference}


# --- slopes ---


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows of the base run that are differentiated together."""

    tokens: Tensor
    edits: tuple[Edit, ...]
    samples: slice


class _Slopes:
    """(source - base) . slope at every place, per metric, position and head; mean over samples.

    Attributes:
        metrics: those of the result, in its order.
        read: metric -> what the differentiated run itself gave, mean over rows.
        steps: place -> [metric, pos] (with a head axis at "z").
    """

    def __init__(self, prepared: Prepared, on_step: OnStep) -> None:
        self.prepared, self.scores = prepared, scores_of(prepared)
        self.metrics = tuple(m for m in ESTIMATED_METRICS if m in {"probability", *self.scores})
        self.read: dict[str, float] = dict.fromkeys(self.metrics, 0.0)
        self.steps: dict[Place, np.ndarray] = {}
        self.places: list[Place] = [
            (site, layer)
            for site in sorted({SITE_OF[kind] for kind in prepared.inputs.kinds})
            for layer in range(prepared.shape.n_layers)
        ]
        chunks = list(_chunks(prepared, self.places))
        total = len(chunks) * len(self.scores)
        self.n_rows = sum(len(rows.tokens) for rows in chunks)
        for number, rows in enumerate(chunks):
            for turn, name in enumerate(self.scores):
                on_step(Step(number * len(self.scores) + turn, total, None, None, "slopes"))
                self._differentiate(rows, name)

    def _differentiate(self, rows: _Rows, name: str) -> None:
        """One forward and backward pass; the slope of p is p times that of log p."""
        seen: list[Tensor] = []

        def score(logits: Tensor) -> Tensor:
            values = self.scores[name](logits)
            seen.append(values.detach().double())
            return values.sum()

        found = gradients(self.prepared.model, rows.tokens, score, self.places, edits=rows.edits)
        weights = {name: torch.ones_like(seen[0])}
        self._note(name, seen[0])
        if name == "log_probability":
            weights["probability"] = seen[0].exp()
            self._note("probability", weights["probability"])
        for place in self.places:
            step = self._step(place, found.values[place], rows.samples)
            along = (step * found.gradients[place].double()).sum(-1)  # row pos, or row pos head
            for metric, weight in weights.items():
                self._add(place, metric, torch.einsum("r,r...->...", weight.to(along.device), along))

    def _note(self, metric: str, values: Tensor) -> None:
        self.read[metric] += float(values.sum()) / self.n_rows

    def _step(self, place: Place, base: Tensor, samples: slice) -> Tensor:
        """Source minus base: the clean row serves every corrupted one; noising steps to the mean sample."""
        source = self.prepared.source_run[place].to(base.device)
        if self.prepared.inputs.direction == "noising":
            return source.double().mean(0, keepdim=True) - base.double()
        return source.double() - base.double()

    def _add(self, place: Place, metric: str, along: Tensor) -> None:
        if place not in self.steps:
            self.steps[place] = np.zeros((len(self.metrics), *along.shape))
        self.steps[place][self.metrics.index(metric)] += along.cpu().numpy() / self.n_rows


def _chunks(prepared: Prepared, places: list[Place]) -> Iterator[_Rows]:
    """The base run's rows, as many at a time as memory allows; without noise they are all the same."""
    n_pos = prepared.base.tokens.shape[1]
    numbers = sum(prod(prepared.model.structure.shape(site, n_pos)) for site, _ in places)
    # Value, slope and zero of every place, and about as much again for what the backward pass keeps.
    per_row = 6 * numbers * prepared.model.dtype.itemsize
    size = max(1, CHUNK_BYTES // per_row)
    tokens, edits = prepared.base.tokens, tuple(prepared.base.edits)
    if not edits:
        yield _Rows(tokens[:1], (), slice(0, 1))
        return
    for start in range(0, len(tokens), size):
        rows = slice(start, start + size)
        yield _Rows(tokens[rows], tuple(_of_rows(edit, rows) for edit in edits), rows)


def _of_rows(edit: Edit, rows: slice) -> Edit:
    """The noise of some samples."""
    return replace(edit, value=edit.value[rows]) if isinstance(edit.value, Tensor) else edit


# --- cells ---


def _effects(prepared: Prepared, slopes: _Slopes, kind: Kind) -> Float[np.ndarray, "metric row layer"]:
    """Estimated effects of one kind, in the trace's order of rows."""
    inputs, shape = prepared.inputs, prepared.shape
    rows, n_layers = rows_of(kind, inputs, shape), shape.n_layers
    by_layer = np.stack([slopes.steps[SITE_OF[kind], layer] for layer in range(n_layers)], axis=-1)
    if kind == "head":
        one = inputs.head_position
        span = slice(shape.first_difference, shape.n_tokens) if one is None else slice(one, one + 1)
        effects = by_layer[:, span].sum(axis=1)  # metric head layer
    else:
        effects = by_layer[:, list(rows)]
    if kind in ("attn", "mlp") and inputs.window > 1:
        windows = [
            window_layers(layer, inputs.window, n_layers, inputs.window_convention)
            for layer in range(n_layers)
        ]
        effects = np.stack([effects[..., list(layers)].sum(axis=-1) for layers in windows], axis=-1)
    fixed = [is_fixed(kind, row, inputs, shape) for row in rows]
    effects[:, fixed] = 0.0  # both runs agree there; what is left is rounding
    return effects
