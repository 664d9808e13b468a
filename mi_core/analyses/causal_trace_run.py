"""Causal trace: which states, at which token and layer, carry the answer (ROME, arXiv 2202.05262)?

    P[l, t]         = mean over noise samples of P(answer), the clean value put back at layer l, token t
    indirect effect = P[l, t] - P corrupted
    recovered share = (P[l, t] - P corrupted) / (P clean - P corrupted)

The other direction (noising) puts corrupted values into the clean run. Probabilities are averaged, never
logits. Every metric is read from the same logits. Kinds of patches are listed in `causal_trace_variants`,
corruptions in `causal_trace_corruption`.

Cost: two forward passes, then one sweep for all kinds together, about a quarter of a forward pass per cell
and sample; rows before the first difference cost nothing. Identities are in `causal_trace_checks` and shown
with every result.
"""

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from mi_core.analyses.causal_trace_checks import trace_checks
from mi_core.analyses.causal_trace_corruption import token_rows, tokenize_pair
from mi_core.analyses.causal_trace_inputs import STORED_METRICS, CausalTraceInputs, Kind
from mi_core.analyses.causal_trace_parts import PlanFigures, TraceGrid, empty_grid
from mi_core.analyses.causal_trace_prepare import Prepared, answer_tokens, prepare, shape_of
from mi_core.analyses.causal_trace_result import CausalTraceResult, Step
from mi_core.analyses.causal_trace_variants import Cell, build_variants, for_cost, is_fixed, rows_of
from mi_core.analyses.causal_trace_warnings import trace_warnings
from mi_core.engine import Base, Plan, Variant, plan, sweep
from mi_core.errors import Cancelled
from mi_core.model.model import LoadedModel
from mi_core.provenance import Provenance
from mi_core.tokens import visible_token

OnStep = Callable[[Step[CausalTraceResult]], None]

MIN_SECONDS_BETWEEN_STEPS = 0.1  # progress is for eyes; a partial result copies the grids


def causal_trace(
    model: LoadedModel, inputs: CausalTraceInputs, *, on_step: OnStep | None = None
) -> CausalTraceResult:
    """Trace where a prompt's answer comes from; the module docstring has the formula.

    Args:
        model: a loaded model.
        inputs: prompt, corruption, what to patch.
        on_step: told of progress, with the result so far; may raise `Cancelled` to stop.

    Returns:
        The complete result; after `Cancelled`, what was done until then (`result.cancelled`).

    Raises:
        InputError: the inputs do not fit the model or each other.
        SiteMissing: the model lacks a site that a kind needs.
        OutOfMemory: the device is too small for a single cell.
    """
    started = time.perf_counter()
    return trace_prepared(prepare(model, inputs), on_step=on_step, started=started)


def trace_prepared(
    prepared: Prepared, *, on_step: OnStep | None = None, started: float, partial: bool = True
) -> CausalTraceResult:
    """The cells of a trace whose two whole runs are done; see `causal_trace`.

    Args:
        prepared: from `prepare`.
        on_step: see `causal_trace`.
        started: `time.perf_counter()` at the request.
        partial: whether steps carry the result so far, which costs a copy of the grids.
    """
    cells, variants = build_variants(
        prepared.inputs, prepared.shape, lambda site, layer: prepared.source_run[site, layer],
        lambda site, layer: prepared.base_run[site, layer],
    )  # fmt: skip
    tracer = _Tracer(prepared, cells, variants, on_step, started, partial)
    try:
        tracer.report(0.0, "the two runs are done")
        outcome = sweep(
            prepared.model, prepared.base, variants, read=prepared.reader,
            read_positions=prepared.read_positions, on_chunk=tracer.on_chunk, on_tick=tracer.on_tick,
        )  # fmt: skip
    except Cancelled:
        return tracer.result(cancelled=True)
    if outcome.cancelled:
        return tracer.result(cancelled=True)
    checks = trace_checks(prepared, tracer.grids, cells, variants, outcome.method)
    return replace(tracer.result(), checks=checks, seconds=time.perf_counter() - started)


def causal_trace_plan(model: LoadedModel, inputs: CausalTraceInputs) -> Plan:
    """Cost of a trace before it runs: tokens are counted, nothing is computed.

    Raises:
        InputError: see `causal_trace`.
    """
    pair = tokenize_pair(model, inputs)
    given = () if inputs.answer is None else answer_tokens(model, pair, inputs.answer).ids[:-1]
    shape = shape_of(model, pair, len(given))
    n_samples = inputs.samples if inputs.corruption == "noise" else 1
    base = Base(token_rows(pair.corrupted, given, n_samples))
    _, variants = build_variants(inputs, shape, lambda *_: 0.0, lambda *_: 0.0)
    return plan(model, base, for_cost(variants), read_positions=range(-len(given) - 1, 0))


class _Tracer:
    """Fills the grids while the sweep runs, and tells the caller."""

    def __init__(
        self,
        prepared: Prepared,
        cells: list[Cell],
        variants: list[Variant],
        on_step: OnStep | None,
        started: float,
        partial: bool,
    ) -> None:
        self.prepared, self.on_step, self.started, self.partial = prepared, on_step, started, partial
        self.grids = _fixed_grids(prepared)
        kinds = list(self.grids)
        self.kind = np.array([kinds.index(cell.kind) for cell in cells], np.int64)
        self.row = np.array([cell.row for cell in cells], np.int64)
        self.layer = np.array([cell.layer for cell in cells], np.int64)
        self.total = sum(grid.done.size for grid in self.grids.values())
        self.warnings, self.provenance = trace_warnings(prepared), _provenance(prepared)
        cost = plan(prepared.model, prepared.base, for_cost(variants), read_positions=prepared.read_positions)
        self.plan = _figures(cost)
        named = [prepared.answer, *([prepared.distractor] if prepared.distractor else [])]
        self.names = {
            one: text for tokens in named for one, text in zip(tokens.ids, tokens.visible, strict=True)
        }
        self.swept_from, self.last_step = time.perf_counter(), 0.0

    def on_chunk(self, done: int, total: int, indices: np.ndarray, values: dict[str, np.ndarray]) -> None:
        """Put the numbers of some variants into their cells."""
        for number, grid in enumerate(self.grids.values()):
            own = self.kind[indices] == number
            if own.any():
                place = self.row[indices[own]], self.layer[indices[own]]
                _fill(
                    grid, place, {name: array[own] for name, array in values.items()}, self.prepared.base_top1
                )
        self.report(done / max(1, total), "tracing")

    def on_tick(self, share: float) -> None:
        """Between chunks: progress without new numbers."""
        if time.perf_counter() - self.last_step > MIN_SECONDS_BETWEEN_STEPS:
            self.report(share, "tracing")

    def report(self, share: float, text: str) -> None:
        """Tell the caller; may raise Cancelled."""
        if self.on_step is None:
            return
        now = time.perf_counter()
        left = (now - self.swept_from) * (1 - share) / share if share > 0 else self.plan.seconds
        done = sum(int(grid.done.sum()) for grid in self.grids.values())
        so_far = self.result(copy=True) if self.partial else None
        self.on_step(Step(done, self.total, left, so_far, text))
        self.last_step = time.perf_counter()

    def result(self, *, cancelled: bool = False, copy: bool = False) -> CausalTraceResult:
        """The result so far."""
        prepared = self.prepared
        grids: dict[Kind, TraceGrid] = dict(self.grids)
        if copy:
            grids.update({kind: _copy(grid) for kind, grid in self.grids.items()})
        noise = prepared.noise
        return CausalTraceResult(
            inputs=prepared.inputs,
            provenance=self.provenance,
            tokens=prepared.pair.clean.tokens,
            corrupted_tokens=prepared.pair.corrupted.tokens,
            subject=prepared.pair.subject,
            first_difference=prepared.pair.first_difference,
            n_layers=prepared.shape.n_layers,
            answer=prepared.answer,
            distractor=prepared.distractor,
            clean=prepared.clean,
            corrupted=prepared.corrupted,
            grids=grids,
            plan=self.plan,
            seconds=time.perf_counter() - self.started,
            noise_scale=None if noise is None else noise.scale,
            sigma=None if noise is None else noise.sigma,
            vocabulary=self._name_tokens(grids),
            warnings=self.warnings,
            cancelled=cancelled,
        )

    def _name_tokens(self, grids: dict[Kind, TraceGrid]) -> dict[int, str]:
        """Visible text of every token id in the result; each id is looked up once per trace."""
        prepared = self.prepared
        tops = [
            prepared.clean.top_ids,
            prepared.corrupted.top_ids,
            *(grid.top_ids.ravel() for grid in grids.values()),
        ]
        for token_id in np.unique(np.concatenate(tops)).tolist():
            if token_id >= 0 and token_id not in self.names:
                self.names[token_id] = visible_token(prepared.model.tokenizer, token_id)
        return dict(self.names)


def _fixed_grids(prepared: Prepared) -> dict[Kind, TraceGrid]:
    """Empty grids, but for the rows that causality makes equal to the base run."""
    base, inputs, shape = prepared.base_reading, prepared.inputs, prepared.shape
    n_samples = len(prepared.corrupted.samples["probability"])
    dtype = base.samples["probability"].dtype
    metrics = tuple(metric for metric in STORED_METRICS if metric in base.samples)
    grids = {}
    for kind in inputs.kinds:
        rows = rows_of(kind, inputs, shape)
        grid = empty_grid(kind, rows, shape.n_layers, n_samples, len(base.top_ids), metrics, dtype)
        for index, row in enumerate(rows):
            if is_fixed(kind, row, inputs, shape):
                for metric in metrics:
                    grid.samples[metric][index] = base.samples[metric]
                grid.top_ids[index], grid.top_probabilities[index] = base.top_ids, base.top_probabilities
                grid.done[index] = True
        grids[kind] = grid
    return grids


def _fill(
    grid: TraceGrid,
    place: tuple[np.ndarray, np.ndarray],
    values: dict[str, np.ndarray],
    base_top1: np.ndarray,
) -> None:
    """Write the readings of some cells."""
    for metric, array in grid.samples.items():
        array[place] = values["top1"] != base_top1 if metric == "top1_flip" else values[metric]
    grid.top_ids[place], grid.top_probabilities[place] = values["top_ids"], values["top_probabilities"]
    grid.done[place] = True


def _copy(grid: TraceGrid) -> TraceGrid:
    return replace(
        grid,
        done=grid.done.copy(),
        samples={metric: values.copy() for metric, values in grid.samples.items()},
        top_ids=grid.top_ids.copy(),
        top_probabilities=grid.top_probabilities.copy(),
    )


def _figures(cost: Plan) -> PlanFigures:
    seconds = None if np.isnan(cost.seconds) else cost.seconds
    return PlanFigures(
        variants=cost.variants,
        rows=cost.variants * cost.rows,
        token_layers=cost.token_layers,
        token_layers_full=cost.token_layers_full,
        flops=cost.flops,
        seconds=seconds,
        method=cost.method,
        reason=cost.reason,
    )


def _provenance(prepared: Prepared) -> Provenance:
    seed = prepared.inputs.seed if prepared.inputs.corruption == "noise" else None
    return Provenance.of(prepared.model, seed=seed)
