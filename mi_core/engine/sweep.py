"""Sweeps: many variants of one forward pass, exact and shared (`sweep`), their cost known before (`plan`).

    sweep(base, variants)[v] = what a whole forward pass with base edits + edits of variant v would give

to 1e-5 in float32 and 1e-10 in float64. `method="full"` is that whole pass, variant by variant: the oracle
and the fallback. Causal traces, ablations, dose curves and feature injections are sweeps. No peer shares
computation between the cells of a trace (`docs/benchmarks.md`); the idea is causality: a variant changes
nothing before its first edited layer and position.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mi_core.engine.edits import Edit, normalise
from mi_core.engine.plan import Method, choose_method, chunks, positions_of, remember_speed, token_layers
from mi_core.engine.replay import BaseRun, base_run
from mi_core.engine.run import check_tokens, is_out_of_memory, memory_errors, release_cache, run
from mi_core.engine.shared import Chunk
from mi_core.engine.variants import Base, Placing, Variant, changes_nothing, place_variants
from mi_core.errors import Cancelled, OutOfMemory
from mi_core.model.model import LoadedModel

Reader = Callable[[Tensor], Mapping[str, Tensor]]
Values = dict[str, np.ndarray]
OnChunk = Callable[[int, int, np.ndarray, Values], None]

LOGIT_BYTES = 128 * 2**20  # logits alive at once: [variants, d_vocab] never exists whole


@dataclass(frozen=True, eq=False, slots=True)
class SweepResult:
    """Readings of all variants.

    Attributes:
        values: reader's arrays, first axis variant; NaN (-1 for integers) where not done.
        done: [variant] whether it was computed (or equals the base by causality).
        base: the reader's values of the base run itself, first axis of length 1.
        method: how it was computed.
        seconds: wall time.
        cancelled: whether the user stopped it.
    """

    values: Values
    done: np.ndarray
    base: Values
    method: str
    seconds: float
    cancelled: bool = False


def sweep(
    model: LoadedModel,
    base: Base,
    variants: Sequence[Variant],
    *,
    read: Reader,
    method: Method = "auto",
    read_positions: Sequence[int] = (-1,),
    on_chunk: OnChunk | None = None,
    on_tick: Callable[[float], None] | None = None,
) -> SweepResult:
    """Run many variants of one forward pass.

    Args:
        model: the loaded model.
        base: tokens and edits that all variants share.
        variants: what differs.
        read: called with logits [variant, row, read, d_vocab] of a part of the variants (and once of the
            base alone, first axis 1); returns named tensors with first axis variant.
        method: "shared" (exact reuse), "full" (one whole pass per variant) or "auto".
        read_positions: positions whose logits are read; negative from the end. Readers see them in ascending
            order.
        on_chunk: called after each chunk with (done, total, indices, values of these); may raise Cancelled.
        on_tick: called after every layer with the done share, 0 to 1; may raise Cancelled.

    Returns:
        Values in the order of `variants`; partial ones when cancelled.

    Raises:
        SiteMissing, EditError: an edit does not fit; OutOfMemory: not even one variant fits.
    """
    started = time.perf_counter()
    _, n_pos = check_tokens(model, base.tokens)
    positions = positions_of(read_positions, n_pos)
    edits = tuple(normalise(edit, model.structure, n_pos) for edit in base.edits)
    chosen, _ = choose_method(model, method)
    start = None
    if chosen == "shared":
        with memory_errors(model):
            start = base_run(model, base.tokens, edits, positions)
    logits = _full(model, base, (), positions) if start is None else start.logits
    with torch.inference_mode():
        base_values = _numpy(read(logits[None]))
    collector = _Collector(base_values, len(variants), on_chunk, on_tick)
    cancelled = False
    try:
        if start is None:
            _sweep_full(model, base, variants, positions, read, collector)
        else:
            _sweep_shared(model, start, variants, positions, read, collector)
    except Cancelled:
        cancelled = True
    seconds = time.perf_counter() - started
    return SweepResult(collector.values, collector.done, base_values, chosen, seconds, cancelled)


class _Collector:
    """Gathers readings in variant order and reports progress."""

    def __init__(
        self, base: Values, n_variants: int, on_chunk: OnChunk | None, on_tick: Callable[[float], None] | None
    ) -> None:
        self.base, self.n_variants, self.on_chunk, self.on_tick = base, n_variants, on_chunk, on_tick
        self.done = np.zeros(n_variants, bool)
        self.values: Values = {}
        for name, array in base.items():
            fill = np.nan if array.dtype.kind == "f" else False if array.dtype.kind == "b" else -1
            self.values[name] = np.full((n_variants, *array.shape[1:]), fill, array.dtype)

    def put(self, indices: Sequence[int], values: Values) -> None:
        """Store values of some variants and tell the caller."""
        where = np.asarray(indices, np.int64)
        if not len(where):
            return
        for name, array in values.items():
            self.values[name][where] = array
        self.done[where] = True
        if self.on_chunk is not None:
            part = {name: self.values[name][where] for name in values}
            self.on_chunk(int(self.done.sum()), self.n_variants, where, part)

    def tick(self, share: float) -> None:
        """Report the done share between chunks."""
        if self.on_tick is not None:
            self.on_tick(share)


def _numpy(values: Mapping[str, Tensor]) -> Values:
    """Readings on the CPU; numpy has no bfloat16, and float32 holds it exactly."""
    half = torch.bfloat16
    exact = {name: value.float() if value.dtype == half else value for name, value in values.items()}
    return {name: value.detach().cpu().numpy() for name, value in exact.items()}


def _full(model: LoadedModel, base: Base, edits: Sequence[Edit], positions: list[int]) -> Tensor:
    """Logits [row, read, d_vocab] of one whole pass with the base's edits and some more."""
    n_pos = base.tokens.shape[1]
    logits = run(model, base.tokens, edits=(*base.edits, *edits), last=n_pos - positions[0]).logits
    return logits[:, [position - n_pos for position in positions]]


def _sweep_full(
    model: LoadedModel,
    base: Base,
    variants: Sequence[Variant],
    positions: list[int],
    read: Reader,
    collector: _Collector,
) -> None:
    """One whole forward pass per variant: deliberately simple."""
    for index, variant in enumerate(variants):
        logits = _full(model, base, variant.edits, positions)
        with torch.inference_mode():
            collector.put([index], _numpy(read(logits[None])))
        collector.tick((index + 1) / len(variants))


def _sweep_shared(
    model: LoadedModel,
    base: BaseRun,
    variants: Sequence[Variant],
    positions: list[int],
    read: Reader,
    collector: _Collector,
) -> None:
    placings, equal = place_variants(variants, model.structure, base.n_pos, positions)
    n_layers = model.dims.n_layers
    silent = {
        p.index
        for p in placings
        if p.entry < n_layers and changes_nothing(p, base.streams[p.entry], base.edits)
    }
    placings = [p for p in placings if p.index not in silent]
    collector.put([*equal, *sorted(silent)], collector.base)
    queue, done, total = chunks(model, base, placings), 0, max(1, len(placings))
    while queue:
        part = queue.pop(0)
        chunk_started = time.perf_counter()
        try:
            _one_chunk(model, base, part, positions, read, collector, (done / total, len(part) / total))
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            release_cache(model)
            if len(part) == 1:
                raise OutOfMemory(
                    "Not even one variant fits into memory", fix="Use a shorter prompt or fewer samples"
                ) from error
            queue[:0] = [part[: len(part) // 2], part[len(part) // 2 :]]
            continue
        done += len(part)
        work = token_layers(part, base.n_rows, base.n_pos, n_layers, min(positions))
        remember_speed(model, work, time.perf_counter() - chunk_started)


def _one_chunk(
    model: LoadedModel,
    base: BaseRun,
    part: list[Placing],
    positions: list[int],
    read: Reader,
    collector: _Collector,
    share: tuple[float, float],
) -> None:
    n_layers, layers_done = model.dims.n_layers, 0

    def tick() -> None:
        nonlocal layers_done
        layers_done += 1
        collector.tick(share[0] + share[1] * min(1.0, layers_done / n_layers))

    chunk = Chunk(model, base, part, positions, tick)
    hidden = chunk.run()
    per_variant = base.n_rows * hidden.shape[2] * model.dims.d_vocab * 4
    step = max(1, LOGIT_BYTES // per_variant)
    values: list[Values] = []
    with torch.inference_mode():
        for begin in range(0, len(chunk.order), step):
            values.append(_numpy(read(chunk.logits(hidden, slice(begin, begin + step)))))
    joined = {name: np.concatenate([v[name] for v in values]) for name in values[0]}
    collector.put([p.index for p in chunk.order], joined)
