"""The dose curve of an attention edge."""

import math
from typing import Any

from mi_core.analyses.ablation_sweep_inputs import EFFECT_METRICS
from mi_core.analyses.attention_dose_result import AttentionDoseResult
from mi_core.charts.lines import Line, lines
from mi_core.charts.text import legible, number

Spec = dict[str, Any]


def dose_lines(result: AttentionDoseResult, metric: str) -> Spec:
    """Effect over levels, and a rule at the wished effect.

    Returns:
        Specification without looks; clicks select `cell` with the fields series and x.
    """
    wished, inputs = result.inputs.wished, result.inputs
    marks = [(0.0, "baseline")]
    if wished is not None and metric == inputs.metric and math.isfinite(wished):
        marks.append((wished, "wished"))
    return lines(
        [Line("", inputs.levels, result.effect(metric).tolist())],
        x_title=x_title(result), y_title=f"effect on {metric_label(result, metric)}",
        unit=EFFECT_METRICS[metric].unit, marks=marks,
        chosen_x=result.wished_dose if metric == inputs.metric else None,
    )  # fmt: skip


def attention_lines(result: AttentionDoseResult) -> Spec:
    """The attention that came out at every level."""
    return lines(
        [Line("", result.inputs.levels, result.attention.tolist())],
        x_title=x_title(result), y_title="attention of the edge", unit="share",
        marks=[(result.base_attention, "baseline")],
    )  # fmt: skip


def x_title(result: AttentionDoseResult) -> str:
    """What the levels are."""
    kind = "factor on" if result.inputs.kind == "scale" else "attention set at"
    return f"{kind} {result.edge}"


def metric_label(result: AttentionDoseResult, metric: str) -> str:
    """A metric with the token that it is about."""
    label = EFFECT_METRICS[metric].label
    short = metric in ("probability", "log_probability")
    return legible(label.replace("answer", result.answer.visible)) if short else label


def describe_dose(result: AttentionDoseResult, metric: str) -> str:
    """The text alternative of `dose_lines`."""
    effects = result.effect(metric).tolist()
    said = [
        f"{level:g}: {number(effect)}" for level, effect in zip(result.inputs.levels, effects, strict=True)
    ]
    return (
        f"Line of the effect on {metric_label(result, metric)} over the {x_title(result)}: {'; '.join(said)}."
    )
