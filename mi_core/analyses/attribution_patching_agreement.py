"""How well first-order estimates agree with the exact cells of the same causal trace.

    Pearson: correlation of estimated and exact effects;   Spearman: the same of their ranks (ties share one)

Cells that causality fixes are zero in both, and would only flatter the correlation: they are left out.
Cost: none worth naming.
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from mi_core.analyses.attribution_patching_result import AttributionPatchingResult
from mi_core.analyses.causal_trace_inputs import Kind
from mi_core.analyses.causal_trace_result import CausalTraceResult
from mi_core.errors import InputError

LEAST = 3
"""Cells below which a correlation says nothing."""


@dataclass(frozen=True, slots=True, eq=False)
class Agreement:
    """Estimated and exact effects of the cells of one kind.

    Attributes:
        kind: of restoration.
        metric: of the effects.
        rows: token position (or head) of every cell.
        layers: layer of every cell.
        estimate: estimated effects.
        exact: effects of the trace.
        fixed: cells that causality fixes, left out here.
        pearson: correlation; NaN where it has none (fewer than three cells, or no spread).
        spearman: rank correlation, likewise.
    """

    kind: Kind
    metric: str
    rows: Int[np.ndarray, "cell"]
    layers: Int[np.ndarray, "cell"]
    estimate: Float[np.ndarray, "cell"]
    exact: Float[np.ndarray, "cell"]
    fixed: int
    pearson: float
    spearman: float

    @property
    def n(self) -> int:
        """Cells that are compared."""
        return len(self.exact)


def agreement(
    estimate: AttributionPatchingResult, exact: CausalTraceResult, kind: Kind, metric: str = "probability"
) -> Agreement:
    """Compare the cells of one kind.

    Args:
        estimate: of the trace with the same inputs.
        exact: the trace; cells that are not done are left out.
        kind: one that both have.
        metric: one that has a slope.

    Raises:
        InputError: they are not of the same trace, or one lacks the kind or the metric.
    """
    if replace(estimate.inputs, kinds=exact.inputs.kinds) != exact.inputs:
        raise InputError(
            "Estimate and trace are of different settings", fix="Estimate the trace's own inputs"
        )
    one, other = estimate.effect(kind, metric), exact.effect(kind, metric)
    if one.shape != other.shape:
        raise InputError(f"The estimate has {one.shape} cells, the trace {other.shape}")
    done, free = exact.grids[kind].done, _free(exact, kind)
    chosen = done & free & np.isfinite(one) & np.isfinite(other)
    rows, layers = np.nonzero(chosen)
    x, y = one[chosen].astype(float), other[chosen].astype(float)
    return Agreement(
        kind=kind,
        metric=metric,
        rows=np.array(exact.grids[kind].rows, np.int64)[rows],
        layers=layers.astype(np.int64),
        estimate=x,
        exact=y,
        fixed=int((done & ~free).sum()),
        pearson=correlation(x, y),
        spearman=correlation(ranks(x), ranks(y)),
    )


def _free(exact: CausalTraceResult, kind: Kind) -> Bool[np.ndarray, "row layer"]:
    """Cells that a patch can reach the answer from."""
    grid, inputs = exact.grids[kind], exact.inputs
    free = np.ones(grid.done.shape, bool)
    last = len(exact.tokens) - 1
    if kind == "head":
        position = inputs.head_position
        if position is not None:
            free[:] = position >= exact.first_difference
            free[:, -1] &= position == last
        return free
    free[[row < exact.first_difference for row in grid.rows]] = False
    if kind == "state" or inputs.window == 1:  # after the last layer only the last token is read
        free[[row != last for row in grid.rows], -1] = False
    return free


def correlation(x: Float[np.ndarray, "cell"], y: Float[np.ndarray, "cell"]) -> float:
    """Pearson's correlation; NaN for fewer than three cells and where one side has no spread."""
    if len(x) < LEAST:
        return float("nan")
    x, y = x - x.mean(), y - y.mean()
    size = float(np.sqrt((x * x).sum() * (y * y).sum()))
    return float((x * y).sum() / size) if size > 0 else float("nan")


def ranks(values: Float[np.ndarray, "cell"]) -> Float[np.ndarray, "cell"]:
    """Rank of every value from 0; equal values share the mean of their ranks."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    first = np.cumsum(counts) - counts
    return (first + (counts - 1) / 2)[place]
