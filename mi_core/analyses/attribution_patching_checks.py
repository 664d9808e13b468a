"""What can be tried on an estimate itself: the run that was differentiated, and a small step really made."""

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from mi_core.analyses.attribution_patching_result import AttributionPatchingResult
from mi_core.analyses.causal_trace_checks import TOLERANCE
from mi_core.analyses.causal_trace_inputs import KIND_LABELS, Kind
from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.causal_trace_prepare import Prepared
from mi_core.analyses.causal_trace_variants import SITE_OF, rows_of, window_layers
from mi_core.engine import Base, Edit, Variant, run, sweep
from mi_core.engine.place import Place

SHARE = 1e-2
"""The share of the whole step that is really made, forward and back."""

SLACK = 3e-2
"""How far slope and small step may differ, relative to the estimate: a small step is not quite straight."""

LEAST = 1e-2  # nats; below it rounding is no longer small beside the step


def patching_checks(
    prepared: Prepared, result: AttributionPatchingResult, read: Mapping[str, float]
) -> tuple[Check, ...]:
    """Try all that applies.

    Args:
        prepared: the trace's two runs.
        result: the estimates.
        read: every metric as the runs gave it that were differentiated, mean over rows.
    """
    return (_same_run(prepared, result, read), *_small_steps(prepared, result))


def _same_run(prepared: Prepared, result: AttributionPatchingResult, read: Mapping[str, float]) -> Check:
    """The slope belongs to the very run that the trace patches into: same noise, same answer."""
    gaps = [
        abs(read[metric] - result.baseline(metric)) / max(1.0, abs(result.baseline(metric)))
        for metric in result.metrics
    ]
    name = "corrupted" if result.inputs.direction == "denoising" else "clean"
    return Check(
        f"the slopes are those of the trace's own {name} run",
        max(gaps) <= TOLERANCE[prepared.model.dtype],
        f"{', '.join(result.metrics)} differ by at most {max(gaps):.1e}.",
    )


def _small_steps(prepared: Prepared, result: AttributionPatchingResult) -> Iterator[Check]:
    """The strongest cell of every kind: a small part of the step, really made by the engine's sweep."""
    if prepared.model.dtype not in (torch.float64, torch.float32):
        return  # half precisions round a small step away
    metric = "log_probability"
    cells: dict[Kind, tuple[int, int]] = {kind: _strongest(result, kind, metric) for kind in result.kinds}
    steps = {kind: _Step(prepared, kind, *cell) for kind, cell in cells.items()}
    base = prepared.base if prepared.base.edits else Base(prepared.base.tokens[:1])
    variants = [Variant(step.edits(sign * SHARE)) for step in steps.values() for sign in (1.0, -1.0)]
    found = sweep(
        prepared.model, base, variants, read=prepared.reader, read_positions=prepared.read_positions
    )
    values = found.values[metric].mean(axis=-1).reshape(-1, 2)
    slopes = (values[:, 0] - values[:, 1]) / (2 * SHARE)
    for (kind, cell), slope in zip(cells.items(), slopes.tolist(), strict=True):
        estimate = float(result.effect(kind, metric)[cell])
        off = abs(slope - estimate) / max(abs(estimate), LEAST)
        yield Check(
            f"{KIND_LABELS[kind]}: a small step, really made, has this slope",
            off <= SLACK,
            f"Strongest cell ({_name(result, kind, *cell)}): {SHARE:g} of the step, forward and back, "
            f"has a slope of {slope:.4g} nats; the estimate is {estimate:.4g}.",
        )


def _strongest(result: AttributionPatchingResult, kind: Kind, metric: str) -> tuple[int, int]:
    """Row index and layer of the largest estimated effect."""
    effect = np.abs(result.effect(kind, metric))
    row, layer = np.unravel_index(int(effect.argmax()), effect.shape)
    return int(row), int(layer)


def _name(result: AttributionPatchingResult, kind: Kind, row: int, layer: int) -> str:
    return f"layer {layer}, {f'head {row}' if kind == 'head' else f'token {result.rows[row]}'}"


class _Step:
    """From the base run towards the source run, at one cell."""

    def __init__(self, prepared: Prepared, kind: Kind, row: int, layer: int) -> None:
        self.kind, self.row, inputs, shape = kind, row, prepared.inputs, prepared.shape
        self.site, self.layers = SITE_OF[kind], range(layer, layer + 1)
        if kind in ("attn", "mlp"):
            self.layers = window_layers(layer, inputs.window, shape.n_layers, inputs.window_convention)
        if kind == "head":
            one = inputs.head_position
            span = (shape.first_difference, shape.n_tokens) if one is None else (one, one + 1)
            self.positions = tuple(range(*span))
        else:
            self.positions = (rows_of(kind, inputs, shape)[row],)
        edits = prepared.base.edits
        tokens = prepared.base.tokens if edits else prepared.base.tokens[:1]
        places = [(self.site, each) for each in self.layers]
        own = run(prepared.model, tokens, capture=places, edits=edits, last=1)
        self.vectors = [self._difference(prepared, place, own[place]) for place in places]

    def _difference(self, prepared: Prepared, place: Place, base: Tensor) -> Tensor:
        source = prepared.source_run[place].double()
        if prepared.inputs.direction == "noising":
            source = source.mean(0, keepdim=True)
        chosen = (source.to(base.device) - base.double())[:, list(self.positions)]
        return chosen[:, :, self.row : self.row + 1] if self.kind == "head" else chosen

    def edits(self, share: float) -> tuple[Edit, ...]:
        """A part of the step as edits."""
        heads = (self.row,) if self.kind == "head" else None
        return tuple(
            Edit(self.site, layer, "add", positions=self.positions, heads=heads, value=share * vector)
            for layer, vector in zip(self.layers, self.vectors, strict=True)
        )
