"""First-order estimates of a causal trace: the same heatmaps on the same scale, and a scatter of both."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mi_core.analyses.attribution_patching_agreement import Agreement
from mi_core.analyses.attribution_patching_result import AttributionPatchingResult
from mi_core.analyses.causal_trace_inputs import KIND_LABELS, METRICS, Kind
from mi_core.charts.causal_trace import DIVERGING_METRICS, Answered, kind_name, layer_axis, quantity
from mi_core.charts.colours import ColourScale, symmetric_bound
from mi_core.charts.heatmap import Axis, Panel, describe, heatmap
from mi_core.charts.scatter import Point, scatter
from mi_core.charts.text import number, token_label

Spec = dict[str, Any]


def estimate_heatmap(result: AttributionPatchingResult, metric: str, kinds: Sequence[Kind]) -> Spec:
    """Panels of estimates over tokens (or over heads, for the kind "head" alone).

    Args:
        result: the estimates.
        metric: one of `result.all_metrics`.
        kinds: which panels; "head" only by itself.

    Returns:
        Specification without looks; clicks select `cell` with fields kind, row and layer.
    """
    panels = estimate_panels(result, metric, kinds)
    return heatmap(panels, *_axes(result, kinds), estimate_scale(result, metric, panels))


def describe_estimate(result: AttributionPatchingResult, metric: str, kinds: Sequence[Kind]) -> str:
    """The text alternative of `estimate_heatmap`."""
    panels = estimate_panels(result, metric, kinds)
    said = describe(panels, *_axes(result, kinds), estimate_scale(result, metric, panels))
    return f"First-order estimates, not patched runs. {said}"


def position_kinds(result: AttributionPatchingResult) -> tuple[Kind, ...]:
    """The estimated kinds whose rows are token positions."""
    return tuple(kind for kind in result.kinds if kind != "head")


def estimate_panels(result: AttributionPatchingResult, metric: str, kinds: Sequence[Kind]) -> list[Panel]:
    """One panel per kind."""
    return [
        Panel(kind, f"{kind_name(kind, result.inputs.window)} (estimate)", result.grid(kind, metric))
        for kind in kinds
    ]


def _axes(result: AttributionPatchingResult, kinds: Sequence[Kind]) -> tuple[Axis, Axis]:
    columns = layer_axis(result.n_layers)
    if tuple(kinds) == ("head",):
        n_heads = result.grid("head", result.metrics[0]).shape[0]
        return Axis("row", "Head", tuple(f"H{head}" for head in range(n_heads))), columns
    labels = tuple(token_label(p, result.tokens[p].visible, marked=result.is_subject(p)) for p in result.rows)
    marked = tuple(index for index, p in enumerate(result.rows) if result.is_subject(p))
    return Axis("row", "Token", labels, ids=result.rows, marked=marked), columns


def estimate_scale(result: AttributionPatchingResult, metric: str, panels: Sequence[Panel]) -> ColourScale:
    """The trace's scale: from the corrupted run to the clean run, or symmetric about a true zero.

    Estimates that lie beyond it, as a continued straight line does, have the colour of its end.
    """
    corrupted, clean = (result.value(run, metric) for run in ("corrupted", "clean"))
    numbers = np.concatenate([panel.values.ravel() for panel in panels])
    # Heads have small effects, and the trace draws them up to the largest one.
    heads = all(panel.key == "head" for panel in panels)
    ends = (corrupted, float(numbers.max()) if heads else clean)
    if metric in DIVERGING_METRICS:
        bound = symmetric_bound(max((abs(end) for end in ends if math.isfinite(end)), default=0.0))
        ends = (-bound, bound)
    elif ends[0] == ends[1]:
        low, high = float(numbers.min()), float(numbers.max())
        ends = (low, high if high > low else low + max(abs(low), 1e-6))
    return ColourScale(
        f"{quantity(result, metric)}, estimated",
        METRICS[metric].unit,
        ends,
        diverging=metric in DIVERGING_METRICS,
        marks=tuple(
            (value, name)
            for value, name in ((corrupted, "corrupted"), (clean, "clean"))
            if math.isfinite(value)
        ),
    )


# --- estimate against exact ---


def agreement_scatter(result: Answered, found: Sequence[Agreement]) -> Spec:
    """A point per cell: exact effect across, estimated effect up; on the line they agree.

    Args:
        result: the trace, for the names of its tokens.
        found: one per kind, all of one metric.

    Returns:
        Specification without looks; clicks select `cell` with field index, counted over all kinds.
    """
    metric = found[0].metric
    named = f"effect on {quantity(result, metric)}"
    return scatter(
        agreement_points(found),
        x_title=f"exact {named}",
        y_title=f"estimated {named}",
        unit=METRICS[metric].unit,
        diagonal=True,
        notes=[agreement_line(one) for one in found],
    )


def agreement_points(found: Sequence[Agreement]) -> list[Point]:
    """The points of `agreement_scatter`, in its order."""
    return [
        Point(
            f"{KIND_LABELS[one.kind]}, layer {layer}, {'head' if one.kind == 'head' else 'token'} {row}",
            exact,
            estimate,
            KIND_LABELS[one.kind],
        )
        for one in found
        for row, layer, exact, estimate in zip(
            one.rows.tolist(), one.layers.tolist(), one.exact.tolist(), one.estimate.tolist(), strict=True
        )
    ]


def agreement_line(one: Agreement) -> str:
    """Correlations of a kind in words."""
    pearson, spearman = number(one.pearson), number(one.spearman)
    return f"{KIND_LABELS[one.kind]}: Pearson {pearson}, Spearman {spearman}, n = {one.n}"


def describe_agreement(found: Sequence[Agreement]) -> str:
    """The text alternative of `agreement_scatter`."""
    lines = "; ".join(agreement_line(one) for one in found)
    return (
        f"Scatter of estimated against exact effects, one point per cell, and the line of agreement. {lines}."
    )
