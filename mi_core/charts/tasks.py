"""A task over a set of prompts as figures: baseline by template, heads as a map, heads as ranked bars."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mi_core.analyses.head_ablation_result import HeadAblationResult
from mi_core.analyses.task_baseline_result import TaskBaselineResult
from mi_core.analyses.task_heads_result import DIRECT, TaskHeadsResult
from mi_core.charts.bars import Bar, bars
from mi_core.charts.colours import ColourScale, symmetric_bound
from mi_core.charts.heatmap import Axis, Panel, describe, heatmap

Spec = dict[str, Any]
Place = tuple[int, int]
Parts = tuple[list[Panel], Axis, Axis, ColourScale]

STRONGEST = 12
MAX_TEMPLATES = 20


def baseline_bars(result: TaskBaselineResult) -> Spec:
    """Mean logit difference of the set, of its counterfactuals and of every template, with bands."""
    whole = [
        ("all prompts", result.n, *result.difference()),
        ("counterfactuals", result.n, *result.control()),
    ]
    templates = result.by_template() if len(result.task.templates) > 1 else []
    items = [
        Bar(name, value, low=low, high=high, group=group, note=f"n = {n}")
        for group, rows in (("set", whole), ("template", templates[:MAX_TEMPLATES]))
        for name, n, value, low, high in rows
    ]
    return bars(items, title="right minus wrong answer", unit="logits")


def ablation_map(result: HeadAblationResult, *, chosen: Place | None = None) -> Spec:
    """Mean effect of every head: layers down, heads across. Clicks select `cell` with layer and head."""
    return _map(_ablation_parts(result), chosen)


def describe_ablation(result: HeadAblationResult) -> str:
    """The text alternative of `ablation_map`."""
    return describe(*_ablation_parts(result))


def ablation_bars(result: HeadAblationResult, *, chosen: Place | None = None) -> Spec:
    """The heads with the largest mean effect, with bands. Clicks select `cell` with index."""
    title = "effect on the logit difference (ablated \N{MINUS SIGN} baseline)"
    return _bars(result.strongest(STRONGEST), result.band(), title, "logits", chosen)


def heads_map(result: TaskHeadsResult, what: str, *, chosen: Place | None = None) -> Spec:
    """Mean direct effect, or mean attention to a role, of every head."""
    return _map(_heads_parts(result, what), chosen)


def describe_heads(result: TaskHeadsResult, what: str) -> str:
    """The text alternative of `heads_map`."""
    return describe(*_heads_parts(result, what))


def heads_bars(result: TaskHeadsResult, what: str, *, chosen: Place | None = None) -> Spec:
    """The heads with the largest direct effect or attention, with bands."""
    unit = "logits" if what == DIRECT else "share"
    return _bars(result.strongest(what, STRONGEST), result.band(what), heads_label(what), unit, chosen)


def heads_label(what: str) -> str:
    """The quantity's name for the eye."""
    return "direct effect on the logit difference" if what == DIRECT else f"attention from the end to {what}"


def _bars(
    places: Sequence[Place],
    band: tuple[np.ndarray, np.ndarray, np.ndarray],
    title: str,
    unit: str,
    chosen: Place | None,
) -> Spec:
    mean, low, high = band
    items = [
        Bar(f"L{place[0]}H{place[1]}", float(mean[place]), low=float(low[place]), high=float(high[place]))
        for place in places
    ]
    at = None if chosen is None or chosen not in places else list(places).index(chosen)
    return bars(items, title=title, unit=unit, chosen=at, diverging=unit == "logits")


def _map(parts: Parts, chosen: Place | None) -> Spec:
    outlined = None if chosen is None else ("heads", *chosen)
    return heatmap(*parts, chosen=outlined, show_values=len(parts[2].labels) <= 16)


def _ablation_parts(result: HeadAblationResult) -> Parts:
    mean, low, high = result.band()
    colours = ColourScale("effect (ablated \N{MINUS SIGN} baseline)", "logits", _around(mean), diverging=True)
    return [Panel("heads", "", mean, notes=_notes(low, high))], *_axes(mean), colours


def _heads_parts(result: TaskHeadsResult, what: str) -> Parts:
    mean, low, high = result.band(what)
    if what == DIRECT:
        colours = ColourScale(heads_label(what), "logits", _around(mean), diverging=True)
    else:
        colours = ColourScale(heads_label(what), "share", (0.0, 1.0))
    return [Panel("heads", "", mean, notes=_notes(low, high))], *_axes(mean), colours


def _around(mean: np.ndarray) -> tuple[float, float]:
    bound = symmetric_bound(float(np.abs(mean).max(initial=0.0)))
    return -bound, bound


def _axes(mean: np.ndarray) -> tuple[Axis, Axis]:
    layers, heads = mean.shape
    return (
        Axis("layer", "Layer", tuple(f"L{layer}" for layer in range(layers)), whole=True),
        Axis("head", "Head", tuple(str(head) for head in range(heads))),
    )


def _notes(low: np.ndarray, high: np.ndarray) -> tuple[tuple[str, ...], ...]:
    pairs = zip(low.tolist(), high.tolist(), strict=True)
    return tuple(tuple(f"95 % band {a:.3g} to {b:.3g}" for a, b in zip(*row, strict=True)) for row in pairs)
