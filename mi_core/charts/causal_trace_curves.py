"""Causal traces at one token: curves over the layers, and bars of what is left when modules are severed."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mi_core.analyses.causal_trace_inputs import KINDS, METRICS, Kind
from mi_core.analyses.causal_trace_result import CausalTraceResult
from mi_core.charts.causal_trace import kind_title, position_kinds, quantity
from mi_core.charts.layers import (
    cell_selection,
    dashes,
    mark_layer,
    name_channel,
    number_channel,
    shown_index,
    shown_name,
    shown_number,
)
from mi_core.charts.panels import thinning
from mi_core.charts.text import legible, literal, number, token_label
from mi_core.charts.theme import SHAPES

Spec = dict[str, Any]
Record = dict[str, Any]

CURVE_HEIGHT = 300
SEVERED: tuple[Kind, ...] = ("state", "state_attn_severed", "state_mlp_severed")


def recovery_curve(
    result: CausalTraceResult,
    metric: str = "probability",
    *,
    kinds: Sequence[Kind] | None = None,
    position: int | None = None,
) -> Spec:
    """Lines over layers at one token: 95 % bands for the noise, the best layer ringed, rules at the two runs.

    Args:
        result: a trace.
        metric: one of `result.metrics`.
        kinds: which lines; None = states and modules; what is left of a state when modules are severed has a
            figure of its own, `severed_bars`.
        position: token; None = the subject's last token.

    Returns:
        Specification without looks; clicks select `cell` with fields kind, row and layer, like the heatmap.
    """
    shown, at = kinds_at(result, kinds, position), position_or_last(result, position)
    points = [record for kind in shown for record in _points(result, kind, metric, at)]
    rules = _rules(result, metric)
    x, y = layer_axis_channel(result.n_layers), _value_channel(result, metric, points, rules)
    look = _looks(result, shown)
    low_to_high = {"y": {**y, "field": "low"}, "y2": {"field": "high"}}
    return {
        "height": CURVE_HEIGHT,
        "datasets": {"points": points, "best": _placed(_best(result, metric, points), y), "rules": rules},
        "layer": [
            *rule_layers(y),
            mark_layer(
                "points", "area", "band", look={"clip": True}, x=x, color=look["color"], **low_to_high
            ),
            mark_layer(
                "points", "line", "trend", x=x, y=y, color=look["color"], strokeDash=look["strokeDash"]
            ),
            _dots(result, metric, {"x": x, "y": y, "color": look["color"], "shape": look["shape"]}),
            mark_layer("best", "point", "best", x=x, y=y, color=look["color"]),
            *_best_labels(x, y),
        ],
    }


def describe_curve(
    result: CausalTraceResult, metric: str = "probability", position: int | None = None
) -> str:
    """The text alternative of `recovery_curve`."""
    at = position_or_last(result, position)
    points = [r for kind in kinds_at(result, None, position) for r in _points(result, kind, metric, at)]
    best = "; ".join(
        f"{b['what']}: best {number(b['value'])} at layer {b['layer']}" for b in _best(result, metric, points)
    )
    ends = " and ".join(rule["label"] for rule in _rules(result, metric))
    return (
        f"Lines of {quantity(result, metric)} over {result.n_layers} layers at token "
        f"{token_label(at, result.tokens[at].visible)}. {best}. Reference: {ends}."
    )


def severed_bars(
    result: CausalTraceResult, metric: str = "probability", *, position: int | None = None
) -> Spec:
    """Bars per layer: effect of a state as it is, with attention severed, and with MLPs severed, as in ROME.

    Args:
        result: a trace with the kind "state" and at least one severed kind.
        metric: one of `result.metrics`.
        position: token; None = the subject's last token.

    Raises:
        ValueError: no severed kind was traced.
    """
    kinds: list[Kind] = [kind for kind in SEVERED if kind in result.grids]
    if len(kinds) < 2:
        raise ValueError("the bars compare a state with its severed versions; none was traced")
    at = position_or_last(result, position)
    title = f"effect on {_named(result, metric)}"
    axis = {"title": "Layer", "labelAngle": 0, "values": _layer_ticks(result.n_layers)}
    bars = mark_layer(
        "bars", "bar",
        look={"cursor": "pointer"},
        x={"field": "layer", "type": "ordinal", "axis": axis, "scale": {"paddingInner": 0.25}},
        xOffset={"field": "kind", "sort": kinds, "scale": {"domain": kinds}},
        y=number_channel("effect", axis={"title": title, "tickCount": 5}),
        color={**_kind_channel(result, kinds), "scale": {"domain": list(SEVERED)}},
        tooltip=[*_place_tooltip(), shown_number("effect", title)],
    )  # fmt: skip
    bars["params"] = cell_selection("kind", "row", "layer")
    records = [record for kind in kinds for record in _points(result, kind, metric, at)]
    return {
        "height": CURVE_HEIGHT,
        "datasets": {"bars": records, "zero": [{"effect": 0}]},
        "layer": [bars, mark_layer("zero", "rule", "axis-line", y=number_channel("effect"))],
    }


def describe_severed(
    result: CausalTraceResult, metric: str = "probability", position: int | None = None
) -> str:
    """The text alternative of `severed_bars`."""
    at = position_or_last(result, position)
    parts = [f"Bars of the effect on {quantity(result, metric)} per layer at token "
             f"{token_label(at, result.tokens[at].visible)}."]  # fmt: skip
    for kind in SEVERED:
        points = _points(result, kind, metric, at) if kind in result.grids else []
        if points:
            top = max(points, key=lambda point: abs(point["effect"]))
            parts.append(f"{top['what']}: largest {number(top['effect'])} at layer {top['layer']}.")
    return " ".join(parts)


def position_or_last(result: CausalTraceResult, position: int | None) -> int:
    """The position, or the subject's last token where none was chosen."""
    return result.subject[1] - 1 if position is None else position


def kinds_at(
    result: CausalTraceResult, kinds: Sequence[Kind] | None, position: int | None
) -> tuple[Kind, ...]:
    """The kinds that were traced at a position, in the order asked for; None = all but the severed ones."""
    at = position_or_last(result, position)
    traced: list[Kind] = [kind for kind in position_kinds(result, kinds) if at in result.grids[kind].rows]
    whole: list[Kind] = [kind for kind in traced if kind not in SEVERED[1:]]
    return tuple(whole if kinds is None and whole else traced)


def _points(result: CausalTraceResult, kind: Kind, metric: str, position: int) -> list[Record]:
    """One record per finished layer; without noise samples there is no band and its ends are the value."""
    row = result.grids[kind].row_of(position)
    values, effects = result.grid(kind, metric)[row], result.effect(kind, metric)[row]
    low, high = (np.where(np.isfinite(end[row]), end[row], values) for end in result.interval(kind, metric))
    shared = {
        "kind": kind,
        "what": kind_title(result, kind),
        "row": position,
        "name": token_label(position, result.tokens[position].visible, marked=result.is_subject(position)),
    }
    numbers = zip(values.tolist(), effects.tolist(), low.tolist(), high.tolist(), strict=True)
    return [
        {**shared, "layer": index, "value": value, "effect": effect, "low": start, "high": end}
        for index, (value, effect, start, end) in enumerate(numbers)
        if math.isfinite(value)
    ]


def _rules(result: CausalTraceResult, metric: str) -> list[Record]:
    """The two runs between which a patch moves; "top token changed" has no such ends."""
    runs = ((result.corrupted, "corrupted"), (result.clean, "clean")) if metric != "top1_flip" else ()
    values = [(result.value(run, metric), name) for run, name in runs]
    finite = [(value, name) for value, name in values if math.isfinite(value)]
    highest = max((value for value, _ in finite), default=0.0)
    return [{"value": v, "label": f"{name} {number(v)}", "upper": v == highest} for v, name in finite]


def _best(result: CausalTraceResult, metric: str, points: Sequence[Record]) -> list[Record]:
    """Of every kind the point that lies farthest towards the run that the patches come from."""
    sign = -1 if result.ceiling(metric) < result.baseline(metric) else 1
    best: dict[str, Record] = {}
    for point in points:
        if point["kind"] not in best or sign * point["value"] > sign * best[point["kind"]]["value"]:
            best[point["kind"]] = point
    return [{**point, "label": f"L{point['layer']}  {number(point['value'])}"} for point in best.values()]


def _placed(best: Sequence[Record], y: Spec) -> list[Record]:
    """The best points with a side for their labels; of two that would overlap the second goes below."""
    low, high = y["scale"]["domain"]
    placed: list[Record] = []
    for point in sorted(best, key=lambda point: -point["value"]):
        near = {
            other["side"]
            for other in placed
            if abs(other["layer"] - point["layer"]) <= 2
            and abs(other["value"] - point["value"]) < 0.09 * (high - low)
        }
        free = [side for side in ("above", "below") if side not in near]
        placed.append({**point, "side": free[0] if free else "none"})
    return placed


def _best_labels(x: Spec, y: Spec) -> list[Spec]:
    """Layer and value beside the rings, on a halo that keeps lines from crossing them."""
    looks = {
        "above": {"align": "left", "baseline": "bottom", "dx": 5, "dy": -4},
        "below": {"align": "left", "baseline": "top", "dx": 5, "dy": 5},
    }
    return [
        {
            **mark_layer("best", "text", style, look=look, x=x, y=y, text={"field": "label"}),
            "transform": [{"filter": f"datum.side === '{side}'"}],
        }
        for side, look in looks.items()
        for style in ("text-halo", "value")
    ]


def rule_layers(y: Spec) -> list[Spec]:
    """Dashed lines across the figure with their names at the right end, from the data set "rules"."""
    right = {"x": {"value": {"expr": "width"}}, "y": y, "text": {"field": "label"}}
    above = mark_layer(
        "rules", "text", "note", look={"align": "right", "baseline": "bottom", "dy": -2}, **right
    )
    below = mark_layer("rules", "text", "note", look={"align": "right", "baseline": "top", "dy": 3}, **right)
    return [
        mark_layer("rules", "rule", "reference", y=y),
        {**above, "transform": [{"filter": "datum.upper"}]},
        {**below, "transform": [{"filter": "!datum.upper"}]},
    ]


def _dots(result: CausalTraceResult, metric: str, encoding: Spec) -> Spec:
    band = [shown_number("low", "95 % from"), shown_number("high", "95 % to")] if result.n_samples > 1 else []
    tooltip = [*_place_tooltip(), shown_number("value", _named(result, metric)), *band]
    dots = mark_layer("points", "point", "dot", look={"cursor": "pointer"}, tooltip=tooltip, **encoding)
    return {**dots, "params": cell_selection("kind", "row", "layer")}


def _place_tooltip() -> list[Spec]:
    return [shown_name("what", "panel"), shown_name("name", "token"), shown_index("layer", "layer")]


def _named(result: CausalTraceResult, metric: str) -> str:
    return f"{legible(quantity(result, metric))} [{METRICS[metric].unit}]"


def layer_axis_channel(n_layers: int) -> Spec:
    """Layers on a numeric axis: every one of a few, else round numbers."""
    scale = {"domain": [-0.5, n_layers - 0.5], "nice": False, "zero": False}
    axis = {"values": _layer_ticks(n_layers), "format": "d", "title": "Layer", "grid": False}
    return number_channel("layer", scale=scale, axis=axis)


def _layer_ticks(n_layers: int) -> list[int]:
    """Ticks for a figure as wide as two panels or more."""
    step = thinning(n_layers, 1 if n_layers <= 24 else 2)
    return list(range(0, n_layers, step))


def _value_channel(
    result: CausalTraceResult, metric: str, points: Sequence[Record], rules: Sequence[Record]
) -> Spec:
    """Vertical scale that holds all points, their bands and the two runs, with some air for labels."""
    values = [point[end] for point in points for end in ("low", "high")] + [rule["value"] for rule in rules]
    if METRICS[metric].unit in ("probability", "share of samples"):
        values = [min(1.0, max(0.0, value)) for value in values]  # a symmetric band may reach beyond 0 and 1
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    margin = 0.1 * (high - low) or 0.5
    scale = {"domain": [low - margin, high + margin], "nice": False, "zero": False}
    return number_channel("value", scale=scale, axis={"title": _named(result, metric), "tickCount": 5})


def _looks(result: CausalTraceResult, kinds: Sequence[Kind]) -> dict[str, Spec]:
    """Colour, dash and shape of every kind, the same whichever others are drawn."""
    channel = _kind_channel(result, kinds)
    shapes = {"domain": list(KINDS), "range": list(SHAPES)}
    return {
        "color": channel,
        "strokeDash": dashes("kind", KINDS),
        "shape": {**channel, "scale": shapes},
    }


def _kind_channel(result: CausalTraceResult, kinds: Sequence[Kind]) -> Spec:
    names = {kind: kind_title(result, kind) for kind in kinds}
    legend: Spec = {"values": list(kinds), "title": None, "labelExpr": f"{literal(names)}[datum.value]"}
    if sum(len(name) for name in names.values()) > 50:  # would not fit under a one-column figure
        legend["columns"] = {"expr": "width < 260 ? 2 : 6"}
    return name_channel("kind", scale={"domain": list(KINDS)}, legend=legend)
