"""The figures of attribution patching: estimated heatmaps, and their agreement with the exact trace."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mi_core.analyses.attribution_patching_agreement import Agreement
from mi_core.analyses.attribution_patching_result import AttributionPatchingResult
from mi_core.analyses.causal_trace_inputs import METRICS, Kind
from mi_core.analyses.causal_trace_result import CausalTraceResult
from mi_core.charts import attribution_patching as charts
from mi_core.charts.causal_trace import answer_text, clipped_cells, quantity
from mi_core.charts.text import legible, number
from mi_core.exports.analysis_figure import analysis_figure
from mi_core.exports.captions import model_sentence, quoted, window_clause
from mi_core.exports.figure import Figure

if TYPE_CHECKING:
    import pandas as pd

REFERENCES = ("nanda2023attribution", "syed2023attribution", "meng2022locating")

ESTIMATE_READING = (
    "Instead of running every patch, the slope of the metric at the corrupted run is taken once, by a "
    "backward pass, and continued in a straight line to the clean value of each cell (Nanda, 2023; Syed et "
    "al., 2023). It points to cells worth tracing. It is wrong where the model bends: whole states, early "
    "layers, strong noise, and softmaxes that are saturated in the corrupted run, whose slope is near zero. "
    "A continued line knows no bounds, so a probability can come out below 0 or above 1. Run the trace for "
    "the exact numbers."
)
AGREEMENT_READING = (
    "Each point is a cell of the causal trace: its exact effect across, its first-order estimate up. On the "
    "dashed line they agree. Pearson's correlation asks for a straight line, Spearman's only for the same "
    "order. Cells that causality fixes are zero in both and are left out."
)


def estimate_figure(
    result: AttributionPatchingResult, metric: str = "probability", *, kinds: Sequence[Kind] | None = None
) -> Figure:
    """Estimated panels over tokens, or the estimated heads for `kinds=("head",)`.

    Args:
        result: the estimates.
        metric: one of `result.all_metrics`.
        kinds: which panels; None = all with token rows.
    """
    shown = charts.position_kinds(result) if kinds is None else tuple(kinds)
    heads = shown == ("head",)
    return _figure(
        result,
        "First-order estimate: heads" if heads else "First-order estimate of the trace",
        charts.estimate_heatmap(result, metric, shown),
        {"figure": "heads" if heads else "estimate", "metric": metric, "kinds": list(shown)},
        caption=_estimate_caption(result, metric, shown),
        reading=ESTIMATE_READING,
        description=charts.describe_estimate(result, metric, shown),
        frame=lambda: _table(result, metric, shown),
    )


def agreement_figure(
    result: AttributionPatchingResult, exact: CausalTraceResult, found: Sequence[Agreement]
) -> Figure:
    """Estimate against exact.

    Args:
        result: the estimates.
        exact: the trace with the same inputs.
        found: their agreement, one per kind, all of one metric.
    """
    metric = found[0].metric
    return _figure(
        result,
        "How good was the first-order estimate?",
        charts.agreement_scatter(exact, found),
        {"figure": "agreement", "metric": metric, "kinds": [one.kind for one in found]},
        caption=_agreement_caption(result, found),
        reading=AGREEMENT_READING,
        description=charts.describe_agreement(found),
        frame=lambda: agreement_table(exact, found),
    )


def agreement_table(exact: CausalTraceResult, found: Sequence[Agreement]) -> "pd.DataFrame":
    """One row per number: both effects of every cell, then the correlations and the number of cells.

    Columns: kind, position, head, token, layer, metric, quantity, value, unit.
    """
    import pandas as pd

    rows = [row for one in found for row in (*_cell_rows(exact, one), *_summary_rows(one))]
    columns = ["kind", "position", "head", "token", "layer", "metric", "quantity", "value", "unit"]
    frame = pd.DataFrame(rows, columns=columns)
    return frame.astype(dict.fromkeys(("position", "head", "layer"), "Int64"))


def _cell_rows(exact: CausalTraceResult, one: Agreement) -> Iterator[dict[str, Any]]:
    heads, unit = one.kind == "head", METRICS[one.metric].unit
    cells = zip(
        one.rows.tolist(), one.layers.tolist(), one.estimate.tolist(), one.exact.tolist(), strict=True
    )
    for row, layer, estimate, value in cells:
        place = {"head": row} if heads else {"position": row, "token": exact.tokens[row].visible}
        shared = {"kind": one.kind, **place, "layer": layer, "metric": one.metric, "unit": unit}
        yield {**shared, "quantity": "estimated effect", "value": estimate}
        yield {**shared, "quantity": "exact effect", "value": value}


def _summary_rows(one: Agreement) -> Iterator[dict[str, Any]]:
    shared = {"kind": one.kind, "metric": one.metric}
    yield {**shared, "quantity": "Pearson correlation", "value": one.pearson, "unit": "correlation"}
    yield {**shared, "quantity": "Spearman correlation", "value": one.spearman, "unit": "correlation"}
    yield {**shared, "quantity": "cells", "value": one.n, "unit": "count"}


def _table(result: AttributionPatchingResult, metric: str, kinds: Sequence[Kind]) -> "pd.DataFrame":
    frame = result.to_frame()
    runs = frame["kind"].isin(["clean run", "corrupted run"])
    chosen = (frame["metric"] == metric) & (runs | frame["kind"].isin(list(kinds)))
    return frame.loc[chosen].reset_index(drop=True)


def _figure(
    result: AttributionPatchingResult,
    title: str,
    spec: Mapping[str, Any],
    view: Mapping[str, Any],
    *,
    caption: str,
    reading: str,
    description: str,
    frame: Any,
) -> Figure:
    return analysis_figure(
        result,
        analysis="attribution_patching",
        title=title,
        spec=spec,
        view=view,
        caption=caption,
        how_to_read=reading,
        description=description,
        frame=frame,
        references=REFERENCES,
        function="attribution_patching",
        arrays=("clean", "corrupted", *result.kinds),
    )


def _estimate_caption(result: AttributionPatchingResult, metric: str, kinds: Sequence[Kind]) -> str:
    panels = charts.estimate_panels(result, metric, kinds)
    scale = charts.estimate_scale(result, metric, panels)
    clipped, total = clipped_cells(panels, scale)
    beyond = ""
    if clipped:
        beyond = (
            f"{clipped} of {total} estimates ({100 * clipped / total:.2g} %) lie beyond the scale and are "
            "drawn in the colour of its end."
        )
    window = window_clause(result.inputs.window, result.inputs.window_convention, kinds)
    source, base = _runs(result)
    low, high = (result.value(run, metric) for run in ("corrupted", "clean"))
    parts = [
        f"First-order estimate (attribution patching) of the causal trace of {quoted(result.inputs.prompt)} "
        f"\u2192 {answer_text(result.answer)}; no cell was run. Each cell: the metric of the {base} run plus "
        f"its slope there times the step to the {source} value{window}{_mean(result)}.",
        f"Colour: {legible(quantity(result, metric))} [{METRICS[metric].unit}], the trace's scale: corrupted "
        f"run {number(low)}, clean run {number(high)}.",
        beyond,
        _corruption(result),
        model_sentence(result.provenance),
    ]
    return " ".join(part for part in parts if part)


def _agreement_caption(result: AttributionPatchingResult, found: Sequence[Agreement]) -> str:
    metric = found[0].metric
    fixed = sum(one.fixed for one in found)
    lines = "; ".join(charts.agreement_line(one) for one in found)
    return " ".join(
        [
            f"Estimated against exact effects on {legible(quantity(result, metric))} "
            f"[{METRICS[metric].unit}] in the causal trace of {quoted(result.inputs.prompt)}, one point per "
            f"cell; 0 = no effect. {lines}.",
            f"{fixed} cells that causality fixes (0 in both) are left out.",
            _corruption(result),
            model_sentence(result.provenance),
        ]
    )


def _runs(result: AttributionPatchingResult) -> tuple[str, str]:
    """Names of the run that values come from and of the run that is patched into."""
    return ("clean", "corrupted") if result.inputs.direction == "denoising" else ("corrupted", "clean")


def _mean(result: AttributionPatchingResult) -> str:
    return f", mean of {result.n_samples} noise samples" if result.n_samples > 1 else ""


def _corruption(result: AttributionPatchingResult) -> str:
    inputs = result.inputs
    if inputs.corrupted_prompt is not None:
        return f"Corrupted run: the prompt {quoted(inputs.corrupted_prompt)}."
    plural = "s" if result.n_samples > 1 else ""
    return (
        f"Corrupted run: the trace's own noise on the subject (marked *), {result.n_samples} sample{plural}, "
        f"seed {inputs.seed}."
    )
