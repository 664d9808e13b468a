"""Steering as charts: dose curves, lengths of the edit, layers, convergence matrices, attention routing.

Numbers come from the results alone. Positive is blue and negative orange.
"""

from typing import Any

import numpy as np

from mi_core.analyses.ablation_sweep_inputs import EFFECT_METRICS
from mi_core.analyses.steering_convergence_result import SteeringConvergenceResult
from mi_core.analyses.steering_dose_result import SteeringDoseResult
from mi_core.analyses.steering_layers_result import SteeringLayersResult
from mi_core.charts.colours import ColourScale
from mi_core.charts.heatmap import Axis, Panel, describe, heatmap
from mi_core.charts.lines import Line, lines
from mi_core.charts.text import number

Spec = dict[str, Any]
DOSE = "coefficient"


def dose_chart(result: SteeringDoseResult, metric: str) -> Spec:
    """One metric over doses; the band holds all random directions."""
    info, index = EFFECT_METRICS[metric], result.index(metric)
    series = [Line("steered", result.doses, result.values[index].tolist())]
    if result.inputs.controls:
        low, high = result.band(metric)
        middle = result.controls[index].mean(0).tolist()
        name = "random directions: mean, lowest to highest"
        series.append(Line(name, result.doses, middle, low.tolist(), high.tolist()))
    marks = [(float(result.baseline[index]), "baseline")]
    chosen = None
    if result.inputs.metric == metric and result.inputs.wished is not None:
        marks.append((result.inputs.wished, "wished"))
        chosen = result.wished_dose
    return lines(
        series, x_title=DOSE, y_title=info.label, unit=info.unit, logarithmic=metric == "rank",
        reversed=metric == "rank", marks=marks, chosen_x=chosen,
    )  # fmt: skip


def describe_dose(result: SteeringDoseResult, metric: str) -> str:
    """The text alternative of `dose_chart`."""
    found, info = result.values[result.index(metric)], EFFECT_METRICS[metric]
    ends = [f"{number(float(found[i]))} at {result.doses[i]:g}" for i in (0, -1)]
    start = number(float(result.baseline[result.index(metric)]))
    said = (
        f"Lines of the {info.label} over {len(result.doses)} coefficients: "
        f"{ends[0]}, {ends[1]}; baseline {start}."
    )
    if result.inputs.controls:
        low, high = result.band(metric)
        said += f" Random directions lie between {number(float(low.min()))} and {number(float(high.max()))}."
    return said


def ratio_chart(result: SteeringDoseResult) -> Spec:
    """Length of the edit relative to the state; the rule is the prompt's own spread."""
    return lines(
        [Line("", result.doses, result.ratio.tolist())], x_title=DOSE,
        y_title="length of edit / length of state",
        marks=[(result.spread, "between two tokens of the prompt")],
    )  # fmt: skip


def describe_ratio(result: SteeringDoseResult) -> str:
    """The text alternative of `ratio_chart`."""
    return (
        "Line of the length of the edit over the length of the state, up to "
        f"{number(float(result.ratio.max()))}; two tokens of the prompt are {number(result.spread)} apart."
    )


def layers_chart(result: SteeringLayersResult, metric: str) -> Spec:
    """One metric, steered at each layer."""
    info, index = EFFECT_METRICS[metric], result.metrics.index(metric)
    return lines(
        [Line("", range(result.n_layers), result.values[index].tolist())], x_title="steered layer",
        y_title=info.label, unit=info.unit, logarithmic=metric == "rank", reversed=metric == "rank",
        marks=[(float(result.baseline[index]), "baseline")],
    )  # fmt: skip


def describe_layers(result: SteeringLayersResult, metric: str) -> str:
    """The text alternative of `layers_chart`."""
    index = result.metrics.index(metric)
    effect = np.abs(result.values[index] - result.baseline[index])
    label = EFFECT_METRICS[metric].label
    if not np.isfinite(effect).any():
        return f"Line of the {label} over steered layers; nothing was run."
    best = int(np.nanargmax(effect))
    return (
        f"Line of the {label} over {result.n_layers} steered layers; baseline "
        f"{number(float(result.baseline[index]))}, farthest at layer {best}: "
        f"{number(float(result.values[index, best]))}."
    )


def convergence_chart(result: SteeringConvergenceResult, quantity: str) -> Spec:
    """Steered layers down, observed layers across.

    Args:
        result: a convergence matrix.
        quantity: "cosine" or "distance".
    """
    return heatmap([_matrix(result, quantity)], *_layer_axes(result), _matrix_scale(result, quantity))


def describe_convergence(result: SteeringConvergenceResult, quantity: str) -> str:
    """The text alternative of `convergence_chart`."""
    scale = _matrix_scale(result, quantity)
    return describe([_matrix(result, quantity)], *_layer_axes(result), scale)


def _matrix(result: SteeringConvergenceResult, quantity: str) -> Panel:
    return Panel(quantity, "", result.cosine if quantity == "cosine" else result.distance)


def _layer_axes(result: SteeringConvergenceResult) -> tuple[Axis, Axis]:
    names = tuple(f"L{layer}" for layer in range(result.n_layers))
    return Axis("inject", "Steered layer", names), Axis("observe", "Observed layer", names)


def _matrix_scale(result: SteeringConvergenceResult, quantity: str) -> ColourScale:
    """Cosines from the lowest one to 1, with the threshold marked; distances from 0."""
    if quantity == "cosine":
        known = result.cosine[np.isfinite(result.cosine)]
        low = min(float(known.min(initial=1.0)), result.inputs.threshold - 0.05)
        marks = ((result.inputs.threshold, "threshold"),)
        return ColourScale("cosine with the unsteered state", "", (low, 1.0), marks=marks)
    known = result.distance[np.isfinite(result.distance)]
    high = max(float(known.max(initial=0.0)), 1e-6)
    return ColourScale("distance / length of the unsteered state", "", (0.0, high))
