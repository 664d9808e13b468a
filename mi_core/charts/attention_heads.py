"""Heads by one number, and how a result is looked at: what all figures of attention share.

Layers go down, heads across. A and B share one scale; differences and effects are blue above zero, orange
below.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mi_core.analyses.attention_inputs import HEAD_METRICS, METRIC_NAMES
from mi_core.analyses.attention_result import AttentionResult, Side
from mi_core.charts.colours import ColourScale, symmetric_bound
from mi_core.charts.heatmap import Axis, Panel, describe, heatmap
from mi_core.charts.text import MINUS

Spec = dict[str, Any]

SIDE_TITLES: dict[Side, str] = {"a": "A", "b": "B", "difference": f"A {MINUS} B"}


@dataclass(frozen=True, slots=True)
class View:
    """How one result is looked at.

    Attributes:
        side: A, B or A minus B.
        mask_first: leave key 0 out.
    """

    side: Side = "a"
    mask_first: bool = False


PLAIN = View()


def head_map(
    result: AttentionResult, metric: str, view: View = PLAIN, *, chosen: tuple[int, int] | None = None
) -> Spec:
    """One number per head: layers down, heads across.

    Args:
        result: what was looked at.
        metric: one of `HEAD_METRICS`.
        view: which prompt.
        chosen: (layer, head) to outline.

    Returns:
        Specification without looks; clicks select `cell` with the fields layer and head.
    """
    panels, rows, columns, colours = _head_parts(result, metric, view)
    outlined = None if chosen is None else ("heads", *chosen)
    small = result.n_heads <= 16
    return heatmap(panels, rows, columns, colours, chosen=outlined, show_values=small)


def describe_heads(result: AttentionResult, metric: str, view: View = PLAIN) -> str:
    """The text alternative of `head_map`."""
    panels, rows, columns, colours = _head_parts(result, metric, view)
    if np.isnan(panels[0].values).all():
        return f"No head has a number for {head_metric_label(result, metric)} on this prompt."
    return describe(panels, rows, columns, colours)


def _head_parts(
    result: AttentionResult, metric: str, view: View
) -> tuple[list[Panel], Axis, Axis, ColourScale]:
    values = result.metric(metric, view.side, mask_first=view.mask_first)
    title = SIDE_TITLES[view.side] if result.compared else ""
    rows = Axis("layer", "Layer", tuple(f"L{layer}" for layer in range(result.n_layers)), whole=True)
    names = tuple(str(head) for head in range(result.n_heads))
    panel = Panel("heads", title, values, missing="no query has such a key")
    return [panel], rows, Axis("head", "Head", names), metric_scale(result, metric, view)


def head_metric_label(result: AttentionResult, metric: str) -> str:
    """A number per head by the name that fits this prompt."""
    info = HEAD_METRICS[METRIC_NAMES.index(metric)]
    if metric == "first_token" and not result.starts_with_bos:
        return "first token (no BOS here)"
    if metric == "effect" and result.answer is not None:
        return f"effect on {target_text(result)}"
    return info.label


def target_text(result: AttentionResult) -> str:
    """The logit, or the difference of two, that is read."""
    if result.answer is None:
        return "the target"
    target = f"logit of {result.answer.visible[0]}"
    return target if result.distractor is None else f"{target} {MINUS} {result.distractor.visible[0]}"


def metric_scale(result: AttentionResult, metric: str, view: View) -> ColourScale:
    """Colours of a number per head; A and B share them."""
    info = HEAD_METRICS[METRIC_NAMES.index(metric)]
    sides: tuple[Side, ...] = ("a", "b") if view.side != "difference" and result.compared else (view.side,)
    values = [result.metric(metric, side, mask_first=view.mask_first) for side in sides]
    signed = info.signed or view.side == "difference"
    return scale_of(head_metric_label(result, metric), info.unit, values, signed=signed)


def shade_levels(values: np.ndarray, colours: ColourScale) -> list[list[int]]:
    """Colours of numbers per head as steps 0 to 254 along a scale; -1 where there is no number."""
    low, high = colours.domain
    steps = np.clip(np.round(254 * (values - low) / (high - low)), 0, 254)
    return np.where(np.isnan(values), -1, np.nan_to_num(steps)).astype(int).tolist()


def scale_of(title: str, unit: str, values: Sequence[np.ndarray], *, signed: bool) -> ColourScale:
    """From 0 to the largest number, or symmetric about a white zero; NaN does not count."""
    numbers = np.concatenate([value.ravel() for value in values])
    largest = float(np.abs(numbers[np.isfinite(numbers)]).max(initial=0.0))
    if signed:
        bound = symmetric_bound(largest)
        return ColourScale(title, unit, (-bound, bound), diverging=True)
    return ColourScale(title, unit, (0.0, largest if largest > 0 else 1.0))
