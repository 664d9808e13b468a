"""Direct logit attribution as charts: parts as bars or as a waterfall, heads as a map, neurons, sources.

Positive is blue and negative orange everywhere; two prompts share one scale. A number comes from the result
alone.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from mi_core.analyses.attribution_inputs import head_name
from mi_core.analyses.attribution_result import AttributionResult
from mi_core.charts.attribution_bars import Series, paired_bars
from mi_core.charts.colours import ColourScale, symmetric_bound
from mi_core.charts.heatmap import Axis, Panel, describe, heatmap
from mi_core.charts.text import MINUS, number
from mi_core.charts.token_text import token_text

Spec = dict[str, Any]
Compare = Literal["both", "difference"]

NAMES = ("prompt", "control prompt")
DIFFERENCE = f"prompt {MINUS} control"
UNIT = "logits"


def quantity(result: AttributionResult) -> str:
    """What is split into parts."""
    if result.distractor is None:
        return f"logit of {result.target.visible}"
    return f"logit {result.target.visible} {MINUS} logit {result.distractor.visible}"


def parts_chart(
    result: AttributionResult,
    *,
    waterfall: bool = False,
    compare: Compare = "both",
    chosen: int | None = None,
) -> Spec:
    """A bar per part in forward order: embedding, attention and MLP of every layer, biases.

    Args:
        result: an attribution.
        waterfall: every bar begins where the one before ended; the last one is the whole.
        compare: both prompts in every row, or their difference.
        chosen: index of the part to outline.

    Returns:
        Specification without looks; clicks select `cell` with the field row, the index of the part.
    """
    labels = [part.name for part in result.parts]
    rows = _rows(result, result.values, compare)
    if not waterfall:
        series = [Series(name, values.tolist(), [0.0] * len(values)) for name, values in rows]
        return paired_bars(labels, series, title=_title(result), unit=UNIT, chosen=chosen)
    whole = [total for _, total in _rows(result, result.total[:, None], compare)]
    series = [
        Series(name, [*values.tolist(), *total.tolist()], [0.0, *values.cumsum().tolist()[:-1], 0.0])
        for (name, values), total in zip(rows, whole, strict=True)
    ]
    named = f"= {quantity(result)}"
    return paired_bars(
        [*labels, named], series, title=f"sum so far of the {quantity(result)}", unit=UNIT, connected=True,
        chosen=chosen,
    )  # fmt: skip


def _title(result: AttributionResult) -> str:
    return f"contribution to the {quantity(result)}"


def _rows(
    result: AttributionResult, values: Float[np.ndarray, "prompt item"], compare: Compare
) -> list[tuple[str, Float[np.ndarray, "item"]]]:
    """(name, values) of everything that is drawn in one row."""
    if result.n_prompts == 1:
        return [("", values[0])]
    if compare == "difference":
        return [(DIFFERENCE, result.contrast(values))]
    return list(zip(NAMES, values, strict=True))


def describe_parts(result: AttributionResult, compare: Compare = "both") -> str:
    """The text alternative of `parts_chart`."""
    names = [part.name for part in result.parts]
    said = [f"Bars of the contributions of {len(names)} parts to the {quantity(result)}."]
    for name, values in _rows(result, result.values, compare):
        order = np.argsort(-np.abs(values), kind="stable")[:3]
        largest = ", ".join(f"{names[index]} {number(float(values[index]))}" for index in order.tolist())
        said.append(f"{name.capitalize() + ': l' if name else 'L'}argest: {largest}.")
    return " ".join(said)


# --- heads ---


def head_map(result: AttributionResult, *, chosen: tuple[int, int] | None = None) -> Spec:
    """Layers down, heads across; both prompts and their difference on one scale.

    Args:
        result: an attribution with heads.
        chosen: (layer, head) to outline.

    Returns:
        Specification without looks; clicks select `cell` with fields kind, layer and head.
    """
    panels = head_panels(result)
    outlined = None if chosen is None else (panels[0].key, *chosen)
    return heatmap(panels, *_head_axes(result), head_scale(result, panels), chosen=outlined)


def head_panels(result: AttributionResult) -> list[Panel]:
    """One panel per prompt, and their difference."""
    if result.n_prompts == 1:
        return [Panel("prompt", "", result.heads[0])]
    return [
        Panel("prompt", NAMES[0], result.heads[0]),
        Panel("control", NAMES[1], result.heads[1]),
        Panel("difference", DIFFERENCE, result.contrast(result.heads)),
    ]


def _head_axes(result: AttributionResult) -> tuple[Axis, Axis]:
    layers = tuple(f"L{layer}" for layer in range(result.n_layers))
    return Axis("layer", "Layer", layers), Axis("head", "Head", tuple(map(str, range(result.n_heads))))


def head_scale(result: AttributionResult, panels: Sequence[Panel]) -> ColourScale:
    """Symmetric about zero, up to the largest contribution of all panels."""
    bound = symmetric_bound(max(float(np.abs(panel.values).max(initial=0)) for panel in panels))
    return ColourScale(_title(result), UNIT, (-bound, bound), diverging=True)


def describe_heads(result: AttributionResult) -> str:
    """The text alternative of `head_map`."""
    panels = head_panels(result)
    return describe(panels, *_head_axes(result), head_scale(result, panels))


# --- source tokens ---


def source_text(
    result: AttributionResult, layer: int, head: int, *, prompt: int = 0, chosen: int | None = None
) -> Spec:
    """The prompt's tokens, coloured by what the head brings from each of them.

    Args:
        result: an attribution in which this head was split.
        layer: its layer.
        head: its number.
        prompt: 0, or 1 for the control prompt.
        chosen: position to outline.

    Returns:
        Specification without looks; clicks select `cell` with the field position.
    """
    tokens = [token.visible for token in result.tokens[prompt]]
    values = result.sources_of(layer, head, prompt).tolist()
    return token_text(tokens, values, source_scale(result, layer, head), chosen=chosen)


def source_scale(result: AttributionResult, layer: int, head: int) -> ColourScale:
    """One scale for all prompts."""
    both = [result.sources_of(layer, head, prompt) for prompt in range(result.n_prompts)]
    bound = symmetric_bound(max(float(np.abs(values).max(initial=0)) for values in both))
    title = f"what {head_name(layer, head)} brings from each token to the {quantity(result)}"
    return ColourScale(title, UNIT, (-bound, bound), diverging=True)


def describe_sources(result: AttributionResult, layer: int, head: int, prompt: int = 0) -> str:
    """The text alternative of `source_text`."""
    values = result.sources_of(layer, head, prompt)
    order = np.argsort(-np.abs(values), kind="stable")[:3]
    tokens = result.tokens[prompt]
    largest = ", ".join(f"{i} {tokens[i].visible} {number(float(values[i]))}" for i in order.tolist())
    return (
        f"Text of {len(values)} tokens, coloured by what head {head_name(layer, head)} brings from each to "
        f"the {quantity(result)}. Largest: {largest}."
    )


# --- neurons ---


def neuron_bars(
    result: AttributionResult, indices: Sequence[int], *, compare: Compare = "both", chosen: int | None = None
) -> Spec:
    """Bars of some listed neurons, with their activations in the tooltip.

    Args:
        result: an attribution with neurons.
        indices: of `result.neuron_ids`, from top to bottom.
        compare: both prompts in every row, or their difference.
        chosen: row to outline.

    Returns:
        Specification without looks; clicks select `cell` with the field row, the place in `indices`.
    """
    wanted = list(indices)
    notes = [
        "activation "
        + ", control ".join(number(value) for value in result.neuron_activations[:, index].tolist())
        for index in wanted
    ]
    rows = _rows(result, result.neuron_values[:, wanted], compare)
    series = [Series(name, values.tolist(), [0.0] * len(wanted)) for name, values in rows]
    labels = [result.neuron_name(index) for index in wanted]
    return paired_bars(labels, series, title=_title(result), unit=UNIT, notes=notes, chosen=chosen)


def describe_neurons(result: AttributionResult, indices: Sequence[int]) -> str:
    """The text alternative of `neuron_bars`."""
    shown = ", ".join(
        f"{result.neuron_name(index)} {number(float(result.neuron_values[0, index]))}"
        for index in indices[:5]
    )
    return f"Bars of the contributions of {len(indices)} neurons to the {quantity(result)}: {shown}."
