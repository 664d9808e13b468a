"""The character-count helix drawn: variance over layers, the path of the means, cosines, ringing."""

from typing import Any

import numpy as np

from mi_core.analyses.character_helix_result import CharacterHelixResult
from mi_core.charts.colours import ColourScale, colour_channel
from mi_core.charts.heatmap import Axis, Panel, describe, heatmap
from mi_core.charts.layers import mark_layer, number_channel, shown_index, shown_number
from mi_core.charts.lines import Line, lines
from mi_core.charts.text import number

Spec = dict[str, Any]

HEIGHT = 440
COUNT = "Characters since the line's start"
PATHS = ((1, 2), (2, 3), (1, 3))
"""Pairs of components that are drawn against each other."""


def variance_lines(result: CharacterHelixResult, *, chosen: int | None = None) -> Spec:
    """Shares of the leading components over layers, with those of the shuffled control.

    Args:
        result: the numbers.
        chosen: layer to mark.

    Returns:
        Specification without looks; clicks select `cell` with the fields series and x (the layer).
    """
    layers = [float(layer) for layer in range(result.n_layers)]
    series = []
    for count in _shown(result):
        name = "component 1" if count == 1 else f"components 1 to {count}"
        series.append(Line(name, layers, result.share(count).tolist()))
        series.append(Line(f"{name}, shuffled", layers, result.share(count, control=True).tolist()))
    return lines(
        series,
        x_title="Layer",
        y_title="Share of the means' variance",
        chosen_x=None if chosen is None else float(chosen),
    )


def _shown(result: CharacterHelixResult) -> list[int]:
    """Numbers of components whose share is drawn."""
    return sorted({count for count in (1, 3, result.inputs.components) if count <= result.inputs.components})


def path(result: CharacterHelixResult, layer: int, pair: tuple[int, int] = (1, 2)) -> Spec:
    """The means of one layer on two components, joined in the order of their counts and coloured by them.

    Args:
        result: the numbers.
        layer: the layer.
        pair: components, from 1.

    Returns:
        Specification without looks.
    """
    across, up = (result.projections[layer, :, component - 1] for component in pair)
    points = [
        {"x": float(x), "y": float(y), "value": int(count), "n": int(n)}
        for x, y, count, n in zip(across, up, result.counts, result.n, strict=True)
    ]
    x, y = _axis("x", across, pair[0]), _axis("y", up, pair[1])
    first, last = float(result.counts[0]), float(result.counts[-1])
    colours = ColourScale(COUNT, "", (first, last))
    tooltip = [
        shown_index("value", COUNT.lower()),
        shown_number("x", f"PC{pair[0]}"),
        shown_number("y", f"PC{pair[1]}"),
        shown_index("n", "tokens"),
    ]
    return {
        "height": HEIGHT,
        "datasets": {"points": points},
        "layer": [
            mark_layer("points", "line", "axis-line", x=x, y=y, order=number_channel("value")),
            mark_layer("points", "point", "dot", x=x, y=y, color=colour_channel(colours), tooltip=tooltip),
        ],
    }


def _axis(field: str, values: np.ndarray, component: int) -> Spec:
    low, high = float(values.min()), float(values.max())
    air = 0.05 * (high - low) or 0.5
    scale = {"domain": [low - air, high + air], "nice": False, "zero": False}
    return number_channel(field, scale=scale, axis={"title": f"PC{component} [activation]", "tickCount": 6})


def cosine_heatmap(result: CharacterHelixResult, layer: int) -> Spec:
    """Centred cosines of all pairs of counts in one layer."""
    return heatmap(*_cosine_parts(result, layer))


def describe_cosine(result: CharacterHelixResult, layer: int) -> str:
    """A sentence or two that stand for the heatmap where it cannot be seen."""
    panels, rows, columns, colours = _cosine_parts(result, layer)
    return describe(panels, rows, columns, colours)


def _cosine_parts(result: CharacterHelixResult, layer: int) -> tuple[list[Panel], Axis, Axis, ColourScale]:
    labels, ids = tuple(map(str, result.counts)), tuple(map(int, result.counts))
    values = result.cosine_similarity[layer].astype(np.float64)
    return (
        [Panel("cosine", "", values, missing="the mean lies on the centre")],
        Axis("row", COUNT, labels, ids=ids),
        Axis("column", COUNT, labels, ids=ids),
        ColourScale("Cosine of centred means", "", (-1.0, 1.0), diverging=True),
    )


def ring_lines(result: CharacterHelixResult, layer: int) -> Spec:
    """Mean cosine of two counts over their distance, in one layer."""
    distances, means = result.ring(layer)
    return lines(
        [Line("", distances.astype(float).tolist(), means.tolist())],
        x_title="Distance of two counts, characters",
        y_title="Mean centred cosine",
        marks=((0.0, ""),),
    )


def describe_path(result: CharacterHelixResult, layer: int, pair: tuple[int, int]) -> str:
    """A sentence that stands for the path."""
    shares = result.explained_variance[layer]
    return (
        f"Path of {len(result.counts)} means in layer {layer} over components {pair[0]} and {pair[1]}, which "
        f"hold {number(float(shares[pair[0] - 1]))} and {number(float(shares[pair[1] - 1]))} of the variance."
    )
