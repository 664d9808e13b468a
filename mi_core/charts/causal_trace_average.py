"""Averages of causal traces: six token roles by layer, as heatmaps and as lines with 95 % bands."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mi_core.analyses.causal_trace_average_types import ROLES, CausalTraceAverageResult
from mi_core.analyses.causal_trace_inputs import METRICS, Kind
from mi_core.charts.causal_trace import kind_name, layer_axis
from mi_core.charts.colours import ColourScale, symmetric_bound
from mi_core.charts.heatmap import Axis, Panel, describe, heatmap
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
from mi_core.charts.panels import Strip
from mi_core.charts.text import legible, literal
from mi_core.charts.theme import SHAPES

Spec = dict[str, Any]
Record = dict[str, Any]

LINES_HEIGHT = 340
# The two sites that these figures are about get the two strongest looks.
_LOOK_ORDER = (ROLES[2], ROLES[5], ROLES[0], ROLES[1], ROLES[3], ROLES[4])


def role_heatmap(
    result: CausalTraceAverageResult,
    *,
    kinds: Sequence[Kind] | None = None,
    share: bool = False,
    chosen: tuple[str, int, int] | None = None,
) -> Spec:
    """Average indirect effects, a panel per kind, on one scale with white at zero.

    Args:
        result: an average.
        kinds: which panels; None = all.
        share: draw the share of the total effect instead of the effect.
        chosen: (kind, role index, layer) of the cell to outline.

    Returns:
        Specification without looks; clicks select `cell` with fields kind, row (index of the role) and layer.
    """
    panels = role_panels(result, kinds, share=share)
    return heatmap(
        panels,
        role_axis(result),
        layer_axis(result.n_layers),
        role_scale(result, panels, share=share),
        chosen=chosen,
    )


def describe_roles(
    result: CausalTraceAverageResult, kinds: Sequence[Kind] | None = None, *, share: bool = False
) -> str:
    """The text alternative of `role_heatmap` and `role_lines`."""
    panels = role_panels(result, kinds, share=share)
    scale = role_scale(result, panels, share=share)
    return describe(panels, role_axis(result), layer_axis(result.n_layers), scale)


def role_panels(
    result: CausalTraceAverageResult, kinds: Sequence[Kind] | None = None, *, share: bool = False
) -> list[Panel]:
    """One panel per kind: its average effect, or its share of the total effect."""
    shown = tuple(result.sums) if kinds is None else tuple(kinds)
    numbers = result.share if share else result.average
    return [Panel(kind, kind_name(kind, result.inputs.window), numbers(kind)) for kind in shown]


def role_axis(result: CausalTraceAverageResult) -> Axis:
    """The six roles, each with the number of prompts that have a token in it."""
    counts = result.prompts_per_role().tolist()
    labels = tuple(f"{short_role(role)}, n = {n}" for role, n in zip(ROLES, counts, strict=True))
    names = tuple(f"{role}, n = {n}" for role, n in zip(ROLES, counts, strict=True))
    last_subject = ROLES.index("last subject token")
    return Axis("row", "Token role", labels, marked=(last_subject,), names=names, whole=True)


def short_role(role: str) -> str:
    """A role without the word token, which the axis says."""
    return role.replace(" tokens", "").replace(" token", "")


def effect_title(result: CausalTraceAverageResult, *, share: bool = False) -> tuple[str, str]:
    """(quantity, unit) of what is averaged; AIE = average indirect effect."""
    if share:
        return "share of the total effect", ""
    metric = METRICS[result.inputs.metric]
    return f"AIE on {metric.label}", metric.unit


def role_scale(
    result: CausalTraceAverageResult, panels: Sequence[Panel], *, share: bool = False
) -> ColourScale:
    """White at zero, symmetric, up to the largest effect; shares reach to 1 at least."""
    known = [abs(v) for panel in panels for v in panel.values.ravel().tolist() if math.isfinite(v)]
    bound = symmetric_bound(max([*known, 1.0 if share else 0.0]))
    title, unit = effect_title(result, share=share)
    marks = ((0.0, "no effect"), (1.0, "total effect")) if share else ((0.0, "no effect"),)
    return ColourScale(title, unit, (-bound, bound), diverging=True, marks=marks)


def role_lines(
    result: CausalTraceAverageResult, *, kinds: Sequence[Kind] | None = None, share: bool = False
) -> Spec:
    """Lines over layers with 95 % bands, a panel per kind on one scale, a line per role.

    Args:
        result: an average.
        kinds: which panels; None = all.
        share: draw the share of the total effect instead of the effect.

    Returns:
        Specification without looks; clicks select `cell` with fields kind, row (index of the role) and layer.
    """
    shown = tuple(result.sums) if kinds is None else tuple(kinds)
    strip = Strip(len(shown), result.n_layers)
    points = [r for panel, kind in enumerate(shown) for r in _points(result, kind, panel, strip, share=share)]
    low, high = _reach(points)
    return {
        "height": LINES_HEIGHT,
        "datasets": {"points": points, "panels": _frames(strip, low, high), "zero": [{"value": 0}]},
        "resolve": {"axis": {"x": "independent", "y": "independent"}},
        "layer": _line_layers(result, strip, shown, (low, high), share=share),
    }


def _points(
    result: CausalTraceAverageResult, kind: Kind, panel: int, strip: Strip, *, share: bool
) -> list[Record]:
    """One record per role and layer; without a band its ends are the value."""
    values = result.share(kind) if share else result.average(kind)
    low, high = result.share_interval(kind) if share else result.interval(kind)
    prompts, tokens = result.prompts_per_role().tolist(), result.tokens_per_role().tolist()
    return [
        {
            "kind": kind,
            "what": kind_name(kind, result.inputs.window),
            "row": role,
            "role": ROLES[role],
            "layer": layer,
            "x": strip.at(panel, layer),
            "value": value,
            "low": float(low[role, layer]) if np.isfinite(low[role, layer]) else value,
            "high": float(high[role, layer]) if np.isfinite(high[role, layer]) else value,
            "prompts": prompts[role],
            "tokens": tokens[role],
        }
        for (role, layer), value in ((place, float(v)) for place, v in np.ndenumerate(values))
        if math.isfinite(value)
    ]


def _reach(points: Sequence[Record]) -> tuple[float, float]:
    """Ends of the vertical scale: all bands and zero, with some air."""
    numbers = [0.0, *(point[end] for point in points for end in ("low", "high"))]
    low, high = min(numbers), max(numbers)
    air = 0.05 * (high - low) or 0.5
    return low - air, high + air


def _frames(strip: Strip, low: float, high: float) -> list[Record]:
    return [{"x": frame["x"], "x1": frame["x1"], "y": low, "y1": high} for frame in strip.frames(1)]


def _line_layers(
    result: CausalTraceAverageResult,
    strip: Strip,
    kinds: Sequence[Kind],
    reach: tuple[float, float],
    *,
    share: bool,
) -> list[Spec]:
    title, unit = effect_title(result, share=share)
    named = f"{title} [{unit}]" if unit else title
    layers = [str(index) for index in range(result.n_layers)]
    scale = {"domain": list(reach), "nice": False, "zero": False}
    x = number_channel("x", scale=strip.scale(), axis={**strip.axis(layers, "Layer"), "domain": True})
    y = number_channel("value", scale=scale, axis={"title": named, "tickCount": 5, "grid": False})
    bare = {"scale": strip.scale(), "axis": None}, {"scale": scale, "axis": None}
    looks = _role_looks(result)
    line = {"x": number_channel("x", **bare[0]), "y": number_channel("value", **bare[1]),
            "color": looks["color"], "detail": name_channel("kind")}  # fmt: skip
    frame = {"x": number_channel("x", **bare[0]), "x2": {"field": "x1"},
             "y": number_channel("y", **bare[1]), "y2": {"field": "y1"}}  # fmt: skip
    dots = mark_layer("points", "point", "dot", look={"cursor": "pointer"}, x=x, y=y, color=looks["color"],
                      shape=looks["shape"], tooltip=_tooltip(named))  # fmt: skip
    band = {**line, "y": number_channel("low", **bare[1]), "y2": {"field": "high"}}
    titles = [legible(kind_name(kind, result.inputs.window)) for kind in kinds]
    above = {"scale": strip.scale(), "axis": strip.title_axis(titles)}
    return [
        mark_layer("panels", "rect", "frame", **frame),
        mark_layer("zero", "rule", "reference", y=number_channel("value", **bare[1])),
        mark_layer("points", "area", "band", **band),
        mark_layer("points", "line", "trend", **line, strokeDash=looks["strokeDash"]),
        {**dots, "params": cell_selection("kind", "row", "layer")},
        mark_layer("panels", "point", look={"opacity": 0}, x=number_channel("x", **above), y=frame["y"]),
    ]


def _role_looks(result: CausalTraceAverageResult) -> dict[str, Spec]:
    """Colour, shape and dash of every role, the same in all panels; the legend has the number of prompts."""
    counts = zip(ROLES, result.prompts_per_role().tolist(), strict=True)
    names = {role: f"{short_role(role)}, n = {count}" for role, count in counts}
    legend = {
        "title": None,
        "values": list(ROLES),
        "labelExpr": f"{literal(names)}[datum.value]",
        "columns": {"expr": "width < 250 ? 2 : 3"},
    }
    domain = list(_LOOK_ORDER)
    return {
        "color": name_channel("role", scale={"domain": domain}, legend=legend),
        "shape": name_channel("role", scale={"domain": domain, "range": list(SHAPES)}, legend=legend),
        "strokeDash": dashes("role", domain),
    }


def _tooltip(title: str) -> list[Spec]:
    return [
        shown_name("what", "panel"),
        shown_name("role", "role"),
        shown_index("layer", "layer"),
        shown_number("value", title),
        shown_number("low", "95 % from"),
        shown_number("high", "95 % to"),
        shown_index("prompts", "prompts"),
        shown_index("tokens", "tokens"),
    ]
