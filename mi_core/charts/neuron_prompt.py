"""The leading neurons of a prompt drawn: a map of layers by tokens, and the neurons of one cell."""

from typing import Any

import numpy as np

from mi_core.analyses.attribution_inputs import neuron_name
from mi_core.analyses.neuron_prompt_result import NeuronPromptResult
from mi_core.charts.bars import Bar, bars
from mi_core.charts.colours import ColourScale
from mi_core.charts.grid import token_axis, window
from mi_core.charts.heatmap import Axis, Panel, describe, heatmap
from mi_core.charts.text import number, token_label

Spec = dict[str, Any]

WINDOW = 24
"""Tokens across at most; a longer prompt shows the ones around the chosen token."""

NOTED = 5


def prompt_map(result: NeuronPromptResult, position: int, *, chosen: tuple[int, int] | None = None) -> Spec:
    """Layers down, tokens across; in every cell the number of the leading neuron, coloured by activation.

    Tokens that do not count in surveys (the first, BOS) are shown without colour: their massive activations
    would be the only colour to be seen.

    Args:
        result: the neurons.
        position: token around which a long prompt is shown.
        chosen: (layer, position) of the cell to outline.

    Returns:
        Specification without looks; clicks select `cell` with the fields layer and position.
    """
    panel, rows, columns, colours = _parts(result, position)
    place = None if chosen is None else (panel.key, *chosen)
    return heatmap([panel], rows, columns, colours, chosen=place)


def describe_map(result: NeuronPromptResult, position: int) -> str:
    """A sentence or two that stand for the map."""
    panel, rows, columns, colours = _parts(result, position)
    return describe([panel], rows, columns, colours)


def _parts(result: NeuronPromptResult, position: int) -> tuple[Panel, Axis, Axis, ColourScale]:
    shown = window(len(result.tokens), position, WINDOW)
    values = result.values[:, shown.start : shown.stop, 0].astype(float)
    values[:, [index for index, at in enumerate(shown) if at < result.first]] = np.nan
    largest = float(np.abs(values[np.isfinite(values)]).max(initial=0.0)) or 1.0
    numbers = [[str(int(result.neurons[layer, at, 0])) for at in shown] for layer in range(result.n_layers)]
    notes = [[_note(result, layer, at) for at in shown] for layer in range(result.n_layers)]
    panel = Panel(
        "neurons",
        "",
        values,
        texts=tuple(map(tuple, numbers)),
        notes=tuple(map(tuple, notes)),
        missing="first token: does not count",
    )
    rows = Axis("layer", "Layer", tuple(f"L{layer}" for layer in range(result.n_layers)), whole=True)
    colours = ColourScale("activation", "", (-largest, largest), diverging=True)
    return panel, rows, token_axis(result.tokens, shown), colours


def _note(result: NeuronPromptResult, layer: int, position: int) -> str:
    leading = [
        f"{neuron_name(layer, int(neuron))} {number(float(value))}"
        for neuron, value in zip(
            result.neurons[layer, position, :NOTED], result.values[layer, position, :NOTED], strict=True
        )
    ]
    return ", ".join(leading)


def cell_bars(result: NeuronPromptResult, layer: int, position: int, *, chosen: int | None = None) -> Spec:
    """The leading neurons of one layer at one token; clicks select `cell` with the field index (the rank).

    Args:
        result: the neurons.
        layer: the layer.
        position: the token.
        chosen: neuron to outline.
    """
    neurons, share = result.neurons[layer, position].tolist(), result.share[layer, position]
    return bars(
        [
            Bar(
                neuron_name(layer, neuron),
                float(value),
                note=f"{100 * float(share[rank]):.3g} % of the squared length of the layer's activations",
            )
            for rank, (neuron, value) in enumerate(
                zip(neurons, result.values[layer, position].tolist(), strict=True)
            )
        ],
        title="activation",
        unit="",
        chosen=neurons.index(chosen) if chosen in neurons else None,
    )


def describe_cell(result: NeuronPromptResult, layer: int, position: int) -> str:
    """A sentence that stands for the bars."""
    token = token_label(position, result.tokens[position])
    return f"Layer {layer} at {token}: {_note(result, layer, position)}."
