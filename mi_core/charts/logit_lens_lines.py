"""Lines over layers at one position: tracked tokens, and what attention and MLPs change."""

from typing import Any, Literal

import numpy as np

from mi_core.analyses.logit_lens_result import LogitLensResult
from mi_core.analyses.logit_lens_steps_result import LogitLensStepsResult
from mi_core.charts.lines import Line, lines
from mi_core.charts.text import number

Spec = dict[str, Any]
Measure = Literal["rank", "probability", "log_probability"]

MEASURES: dict[Measure, tuple[str, str]] = {
    "rank": ("rank (1 = top)", ""),
    "probability": ("probability", ""),
    "log_probability": ("log-probability", "nats"),
}
"""Measure -> axis title and unit."""


def word_lines(
    result: LogitLensResult, position: int, measure: Measure = "rank", *, chosen_layer: int | None = None
) -> Spec:
    """Every followed token over the layers.

    Args:
        result: the numbers.
        position: one of `result.positions`.
        measure: ranks go on a logarithmic axis with 1 on top.
        chosen_layer: layer to mark.

    Returns:
        Specification without looks; clicks select `cell` with fields series and x (the layer).
    """
    title, unit = MEASURES[measure]
    series = [
        Line(word_name(result, index), list(result.layers), values)
        for index, values in enumerate(_values(result, position, measure))
    ]
    return lines(
        series,
        x_title="Layer",
        y_title=title,
        unit=unit,
        logarithmic=measure == "rank",
        reversed=measure == "rank",
        chosen_x=chosen_layer,
    )


def _values(result: LogitLensResult, position: int, measure: Measure) -> list[list[float]]:
    """Per word, the measure at every layer."""
    column = result.column_of(position)
    if measure == "rank":
        return result.word_rank[:, column].astype(float).T.tolist()
    logs = result.word_log_probability[:, column].T
    return (np.exp(logs) if measure == "probability" else logs).tolist()


def word_name(result: LogitLensResult, index: int) -> str:
    """A followed token with its id, and what it is; two words never share a name."""
    word = result.words[index]
    role = "" if word.role == "tracked" else f", {word.role}"
    return f"{word.visible} (id {word.id}{role})"


def describe_words(result: LogitLensResult, position: int, measure: Measure = "rank") -> str:
    """The text alternative of `word_lines`."""
    parts = [
        f"{word_name(result, index)} goes from {number(values[0])} in layer {result.layers[0]} to "
        f"{number(values[-1])} in layer {result.layers[-1]}."
        for index, values in enumerate(_values(result, position, measure))
    ]
    return f"Lines of the {MEASURES[measure][0]} over layers. {' '.join(parts)}"


def step_lines(
    result: LogitLensStepsResult, *, first_layer: int = 0, chosen_layer: int | None = None
) -> Spec:
    """Change of the target's log-probability by each component, layer by layer.

    Args:
        result: the numbers.
        first_layer: where the axis begins; the first layers often change more than all others together.
        chosen_layer: layer to mark.

    Returns:
        Specification without looks; clicks select `cell` with fields series and x (the layer).
    """
    layers = list(range(min(first_layer, result.n_layers - 1), result.n_layers))
    change = result.change()[layers, :, 0]
    series = [Line(name, layers, change[:, index].tolist()) for index, name in enumerate(result.components)]
    return lines(
        series,
        x_title="Layer",
        y_title=f"change of log P({result.words[0].visible})",
        unit="nats",
        marks=((0.0, "no change"),),
        chosen_x=chosen_layer,
    )


def describe_steps(result: LogitLensStepsResult) -> str:
    """The text alternative of `step_lines`."""
    change = result.change()[..., 0]
    parts = []
    for index, name in enumerate(result.components):
        best = int(change[:, index].argmax())
        parts.append(f"{name} raises it most in layer {best}, by {number(float(change[best, index]))} nats.")
    target = result.words[0].visible
    return f"Lines of the change of the log-probability of {target} by layer. {' '.join(parts)}"
