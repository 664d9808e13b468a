"""Sweeps of ablations as heatmap and bars, and the joint effect of a list. No statistics here."""

from typing import Any

import numpy as np

from mi_core.analyses.ablation_sweep_inputs import EFFECT_METRICS, What
from mi_core.analyses.ablation_sweep_result import AblationSweepResult, JointAblationResult
from mi_core.charts.bars import Bar, bars
from mi_core.charts.colours import ColourScale, symmetric_bound
from mi_core.charts.heatmap import Axis, Panel, describe, heatmap
from mi_core.charts.text import MINUS, legible, number, token_label

Spec = dict[str, Any]

SHOWN = 24
"""Bars of a ranking; the table has all cells."""

NAMES: dict[What, str] = {
    "heads": "head", "modules": "attention or MLP", "edges": "edge", "keys": "key from a layer on",
}  # fmt: skip
_COLUMNS: dict[What, str] = {
    "heads": "Head", "modules": "Module", "edges": "Key of the cut edge", "keys": "Unread key",
}  # fmt: skip
_MODULES = {"attn": "attention", "mlp": "MLP"}


def effect_heatmap(
    result: AblationSweepResult, metric: str, *, chosen: tuple[int, int] | None = None
) -> Spec:
    """Rows down (layers, or the chosen heads), what is taken out across.

    Args:
        result: the sweep.
        metric: one of `result.metrics`.
        chosen: (row, column) to outline.

    Returns:
        Specification without looks; clicks select `cell` with the fields row and part (the column).
    """
    panels, rows, columns, colours = _parts(result, metric)
    outlined = None if chosen is None else ("effects", *chosen)
    small = result.done.shape[1] <= 16 and result.done.shape[0] <= 32
    return heatmap(panels, rows, columns, colours, chosen=outlined, show_values=small)


def describe_effects(result: AblationSweepResult, metric: str) -> str:
    """The text alternative of `effect_heatmap`."""
    return describe(*_parts(result, metric))


def effect_bars(result: AblationSweepResult, metric: str, *, chosen: tuple[int, int] | None = None) -> Spec:
    """The largest effects, and the noise floor.

    Returns:
        Specification without looks; clicks select `cell` with the field index, in `result.ranked`.
    """
    cells, effects = result.ranked(metric)[:SHOWN], result.effect(metric)
    texts, floor = result.units.texts, result.floor(metric)
    marks = [(floor, "noise floor")] if np.isfinite(floor) and floor > 0 else []
    return bars(
        [Bar(cell_name(result, *cell), float(effects[cell]), note=texts[cell[0]][cell[1]]) for cell in cells],
        title=f"effect on {metric_name(result, metric)}", unit=EFFECT_METRICS[metric].unit,
        chosen=cells.index(chosen) if chosen in cells else None, marks=marks,
    )  # fmt: skip


def describe_ranking(result: AblationSweepResult, metric: str) -> str:
    """The text alternative of `effect_bars`."""
    effects = result.effect(metric)
    said = [
        f"{cell_name(result, *cell)} {number(float(effects[cell]))}" for cell in result.ranked(metric)[:5]
    ]
    shown = min(SHOWN, int(result.done.sum()))
    return (
        f"Bars of the {shown} largest effects on {metric_name(result, metric)}: {'; '.join(said)}. "
        f"Noise floor {number(result.floor(metric))}."
    )


def joint_bars(result: JointAblationResult, metric: str) -> Spec:
    """Single effects, their sum, and the joint effect.

    Returns:
        Specification without looks; clicks select `cell` with the field index; the singles come first.
    """
    singles = [
        Bar(text, float(effect), group="each alone")
        for text, effect in zip(result.interventions, result.single_effects(metric), strict=True)
    ]
    together = [
        Bar("sum of single effects", result.sum_of_singles(metric), group="all together"),
        Bar("joint effect", result.joint_effect(metric), group="all together"),
    ]
    title = f"effect on {_metric_name(metric, result.answer.visible)}"
    return bars([*singles, *together], title=title, unit=EFFECT_METRICS[metric].unit)


def describe_joint(result: JointAblationResult, metric: str) -> str:
    """The text alternative of `joint_bars`."""
    return (
        f"Bars of {len(result.interventions)} single effects on "
        f"{_metric_name(metric, result.answer.visible)}, their sum "
        f"{number(result.sum_of_singles(metric))} and the joint effect {number(result.joint_effect(metric))}."
    )


def metric_name(result: AblationSweepResult, metric: str) -> str:
    """A metric with the token that it is about."""
    return _metric_name(metric, result.answer.visible)


def _metric_name(metric: str, answer: str) -> str:
    label = EFFECT_METRICS[metric].label
    return legible(label.replace("answer", answer)) if metric in ("probability", "log_probability") else label


def cell_name(result: AblationSweepResult, row: int, column: int) -> str:
    """What is taken out in a cell."""
    units, what = result.units, result.inputs.what
    if what == "heads":
        return f"{units.rows[row]}{units.columns[column]}"
    if what == "modules":
        return f"{units.rows[row]} {_MODULES[units.columns[column]]}"
    key = token_label(column, result.tokens[column].visible)
    if what == "edges":
        return f"{len(result.tokens) - 1} \N{RIGHTWARDS ARROW} {key} in {units.rows[row]}"
    return f"{key} from {units.rows[row]} on"


def _parts(result: AblationSweepResult, metric: str) -> tuple[list[Panel], Axis, Axis, ColourScale]:
    effects, units, what = result.effect(metric), result.units, result.inputs.what
    finite = np.abs(effects[np.isfinite(effects)])
    bound = symmetric_bound(float(finite.max()) if finite.size else 0.0)
    notes = tuple(
        tuple(_note(result, row, column) for column in range(effects.shape[1]))
        for row in range(effects.shape[0])
    )
    panel = Panel("effects", "", effects, notes=notes)
    row_title = "From layer" if what == "keys" else "Head" if result.inputs.heads else "Layer"
    rows = Axis("row", row_title, units.rows, whole=True)
    labels = tuple(_column(result, column) for column in range(effects.shape[1]))
    floor = result.floor(metric)
    marks = ((floor, "floor"),) if np.isfinite(floor) and 0 < floor < bound else ()
    scale = ColourScale(
        f"Effect on {metric_name(result, metric)} (edited {MINUS} baseline)", EFFECT_METRICS[metric].unit,
        (-bound, bound), diverging=True, marks=marks,
    )  # fmt: skip
    return [panel], rows, Axis("part", _COLUMNS[what], labels), scale


def _column(result: AblationSweepResult, column: int) -> str:
    if result.inputs.what in ("edges", "keys"):
        return token_label(column, result.tokens[column].visible)
    name = result.units.columns[column]
    return _MODULES.get(name, name)


def _note(result: AblationSweepResult, row: int, column: int) -> str:
    """The intervention, and the top token that it leads to."""
    text = result.units.texts[row][column]
    if not result.done[row, column]:
        return text
    return f"{text}; top token {result.vocabulary[int(result.top_ids[row, column])]}"
