"""The prediction sweep: layers down, prompts across, the top token in the cell; and a histogram of depths.

A black disc in a white ring marks the layer where the right answer first is the top token, a white dot the
layer from which on it stays there; where both are the same layer, the dot stands in the disc.
"""

from typing import Any

import numpy as np

from mi_core.analyses.prediction_sweep_result import PredictionSweepResult
from mi_core.charts.colours import ColourScale
from mi_core.charts.heatmap import Axis, Panel, heatmap
from mi_core.charts.histogram import Series, histogram
from mi_core.charts.layers import mark_layer, number_channel
from mi_core.charts.text import isolated, legible, number

Spec = dict[str, Any]

ASIDE, ABOVE = 0.4, 0.24  # marks sit in the cell's upper right corner, beside its text
MAX_NAME = 120


def sweep_heatmap(
    result: PredictionSweepResult, columns: range, *, chosen: tuple[int, int] | None = None
) -> Spec:
    """Some of the prompts, every layer.

    Args:
        result: the numbers.
        columns: which of `result.swept`.
        chosen: (layer, case index) of the cell to outline.

    Returns:
        Specification without looks; clicks select `cell` with fields kind, layer and case.
    """
    cell = None if chosen is None else ("sweep", *chosen)
    spec = heatmap([_panel(result, columns)], _layers(result), _prompts(result, columns), SCALE, chosen=cell)
    spec["datasets"] = {**spec["datasets"], "appears": _marks(result.appears, columns)}
    spec["datasets"]["stabilises"] = _marks(result.stabilises, columns)
    x, y = number_channel("x", axis=None), number_channel("y", axis=None)
    spec["layer"] = [
        *spec["layer"],
        mark_layer("appears", "point", "best", look={"stroke": "#ffffff", "fill": "#000000"}, x=x, y=y),
        mark_layer("stabilises", "point", "dot", look={"color": "#ffffff", "stroke": "#000000"}, x=x, y=y),
    ]
    return spec


SCALE = ColourScale("P(right answer)", "probability", (0.0, 1.0))


def _panel(result: PredictionSweepResult, columns: range) -> Panel:
    chosen = list(columns)
    values = np.exp(result.answer_log_probability[:, chosen])
    texts = tuple(tuple(result.visible(token) for token in row) for row in result.top_ids[:, chosen].tolist())
    notes = tuple(
        tuple(
            f"top token {text} {number(share)}, right answer {result.swept[column].pieces[0]} has rank {rank}"
            for text, share, column, rank in zip(row, shares, chosen, ranks, strict=True)
        )
        for row, shares, ranks in zip(
            texts,
            result.top_probabilities[:, chosen].tolist(),
            result.answer_rank[:, chosen].tolist(),
            strict=True,
        )
    )
    return Panel("sweep", "", values, texts=texts, notes=notes)


def _layers(result: PredictionSweepResult) -> Axis:
    return Axis("layer", "Layer", tuple(f"L{layer}" for layer in range(result.n_layers)))


def _prompts(result: PredictionSweepResult, columns: range) -> Axis:
    cases = [result.swept[column] for column in columns]
    labels = tuple(f"{one.index} {isolated(legible(one.pieces[0]))}" for one in cases)
    names = tuple(legible(result.inputs.cases[one.index].prompt)[-MAX_NAME:] for one in cases)
    return Axis("case", "Prompt", labels, ids=tuple(one.index for one in cases), names=names)


def _marks(layers: np.ndarray, columns: range) -> list[dict[str, float]]:
    """Where a mark stands; nothing for a prompt that has none."""
    return [
        {"x": place + ASIDE, "y": float(layers[column]) - ABOVE}
        for place, column in enumerate(columns)
        if not np.isnan(layers[column])
    ]


def describe_sweep(result: PredictionSweepResult, columns: range) -> str:
    """The text alternative of `sweep_heatmap`."""
    return (
        f"Heatmap of P(right answer): {result.n_layers} rows (layers) by {len(columns)} columns (prompts). "
        f"{_counts(result)}"
    )


def depth_histogram(result: PredictionSweepResult) -> Spec:
    """How many prompts stabilise at which depth, one bin per layer."""
    half = 0.5 / result.n_layers
    edges = [layer / result.n_layers - half for layer in range(result.n_layers + 1)]
    median = result.median_depth()
    marks = [] if np.isnan(median) else [(median, "median")]
    return histogram(
        edges,
        [Series("prompts", result.depth_counts().tolist())],
        x_title="crystallisation depth (layer / layers)",
        unit="",
        y_title="prompts",
        marks=marks,
    )


def describe_histogram(result: PredictionSweepResult) -> str:
    """The text alternative of `depth_histogram`."""
    counts = result.depth_counts().tolist()
    told = ", ".join(f"layer {layer}: {count}" for layer, count in enumerate(counts) if count)
    return f"Histogram of the layer at which the answer stabilises: {told or 'no prompt'}. {_counts(result)}"


def _counts(result: PredictionSweepResult) -> str:
    return (
        f"{result.n_stable} of {result.n_prompts} answers stabilise, {result.n_lost} appear and are lost, "
        f"{result.n_never} never appear."
    )
