"""A survey of neurons drawn: the leading neurons of every layer, and the layers by themselves."""

from typing import Any

import numpy as np

from mi_core.analyses.attribution_inputs import neuron_name
from mi_core.analyses.neuron_inputs import Measure
from mi_core.analyses.neuron_survey_result import MEASURE_INFO, NeuronSurveyResult
from mi_core.charts.colours import ColourScale
from mi_core.charts.heatmap import Axis, Panel, describe, heatmap
from mi_core.charts.lines import Line, lines
from mi_core.charts.text import isolated, legible, number

Spec = dict[str, Any]

RANKS = 10
NOTED = 5  # contexts in a tooltip


def survey_heatmap(
    result: NeuronSurveyResult,
    measure: Measure = "peak",
    category: str | None = None,
    *,
    ranks: int = RANKS,
    chosen: tuple[int, int] | None = None,
) -> Spec:
    """Layers down, rank across; in every cell the neuron's number and the token that fires it most.

    Args:
        result: the survey.
        measure: what neurons are ranked by.
        category: for selectivity, the kind of text; None = each neuron's own best.
        ranks: columns.
        chosen: (layer, neuron) to outline, if it is in the figure.

    Returns:
        Specification without looks; clicks select `cell` with the fields layer and rank.
    """
    panel, rows, columns, colours = _parts(result, measure, category, ranks)
    place = None
    if chosen is not None and 0 <= chosen[0] < result.n_layers:
        found = [
            int(result.neurons[k]) for k in result.ranking(measure, chosen[0], category, len(columns.labels))
        ]
        place = (panel.key, chosen[0], found.index(chosen[1])) if chosen[1] in found else None
    return heatmap([panel], rows, columns, colours, chosen=place)


def describe_survey(result: NeuronSurveyResult, measure: Measure, category: str | None = None) -> str:
    """A sentence or two that stand for the figure where it cannot be seen."""
    panel, rows, columns, colours = _parts(result, measure, category, RANKS)
    return describe([panel], rows, columns, colours)


def _parts(
    result: NeuronSurveyResult, measure: Measure, category: str | None, ranks: int
) -> tuple[Panel, Axis, Axis, ColourScale]:
    ranks = min(ranks, result.inputs.top)
    values = np.full((result.n_layers, ranks), np.nan)
    texts = [[""] * ranks for _ in range(result.n_layers)]
    notes = [[""] * ranks for _ in range(result.n_layers)]
    numbers = result.measure(measure, category)
    for layer in range(result.n_layers):
        for rank, kept in enumerate(result.ranking(measure, layer, category, ranks)):
            values[layer, rank] = numbers[kept]
            texts[layer][rank] = _short(result, int(kept))
            notes[layer][rank] = _contexts(result, int(kept))
    info = MEASURE_INFO[measure]
    panel = Panel(
        measure,
        f"{info.label}{f' on {category}' if category else ''}",
        values,
        texts=tuple(map(tuple, texts)),
        notes=tuple(map(tuple, notes)),
        missing="no such neuron",
    )
    rows = Axis("layer", "Layer", tuple(f"L{layer}" for layer in range(result.n_layers)), whole=True)
    columns = Axis("rank", "Rank in the layer", tuple(str(rank) for rank in range(ranks)))
    return panel, rows, columns, _scale(measure, values)


def _short(result: NeuronSurveyResult, kept: int) -> str:
    """`382 ·Paris`: the neuron's number and its strongest token."""
    context = result.context(kept)
    name = str(int(result.neurons[kept]))
    return name if context is None else f"{name} {isolated(legible(context[0]))}"


def _contexts(result: NeuronSurveyResult, kept: int) -> str:
    """Neuron, and its strongest tokens with their activations."""
    shown = []
    for rank in range(min(NOTED, result.inputs.contexts)):
        context = result.context(kept, rank)
        if context is not None:
            value = number(float(result.context_values[kept, rank]))
            shown.append(f"{isolated(legible(context[0]))} {value}")
    name = neuron_name(int(result.layers[kept]), int(result.neurons[kept]))
    return f"{name}: {', '.join(shown)}"


def _scale(measure: Measure, values: np.ndarray) -> ColourScale:
    """Signed measures around zero, the others from zero on."""
    info = MEASURE_INFO[measure]
    finite = np.abs(values[np.isfinite(values)])
    largest = float(finite.max(initial=0.0)) or 1.0
    unit = "" if info.unit == "activation" else info.unit  # the label says it
    if measure in ("peak", "selectivity"):
        return ColourScale(info.label, unit, (-largest, largest), diverging=True)
    return ColourScale(info.label, unit, (0.0, largest))


def layer_lines(result: NeuronSurveyResult, *, chosen: int | None = None) -> Spec:
    """Per layer, the share of neurons and tokens above 0, and the share of neurons that never are.

    Args:
        result: the survey.
        chosen: layer to mark.
    """
    layers = [float(layer) for layer in range(result.n_layers)]
    silent = result.never_active / max(1, result.d_mlp)
    return lines(
        [
            Line("above 0 (of neurons x tokens)", layers, result.layer_share_active.tolist()),
            Line("neurons never above 0", layers, silent.tolist()),
        ],
        x_title="Layer",
        y_title="Share",
        chosen_x=None if chosen is None else float(chosen),
    )
