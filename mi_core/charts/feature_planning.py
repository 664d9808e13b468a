"""The planning experiment and routing under an injection as charts.

Tokens are keyed by position. Blue raises, orange lowers; amounts are cividis. No statistics here but the mean
and the ends of a band.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from mi_core.analyses.ablation_sweep_inputs import EFFECT_METRICS
from mi_core.charts.bars import Bar, bars
from mi_core.charts.colours import ColourScale, symmetric_bound
from mi_core.charts.heatmap import Axis, Panel, describe, heatmap
from mi_core.charts.lines import Line, lines
from mi_core.charts.text import legible, number, token_label
from mi_core.transcoders.planning_result import METRICS, PARTS, PlanningResult
from mi_core.transcoders.routing_result import FeatureRoutingResult

Spec = dict[str, Any]
PUSHED = "token at which the features are pushed"


def token_names(result: PlanningResult) -> list[str]:
    """A name for every token; the output position says so."""
    names = [token_label(token.position, token.visible) for token in result.tokens]
    names[result.output] += " (output)"
    return names


def sweep_chart(result: PlanningResult, metric: str) -> Spec:
    """A metric over the pushed token at the chosen strength, with both controls and the baseline."""
    index, info = METRICS.index(metric), EFFECT_METRICS[metric]
    series = [
        Line(f"pushed, strength {result.inputs.strength:g}", result.positions, result.line(metric).tolist())
    ]
    series += [
        Line(f"{PARTS[part]} alone", result.positions, result.parts[index, part].tolist())
        for part in range(result.parts.shape[1])
    ]
    for name, block in (
        ("random features", result.random_features[index]),
        ("random rotations", result.random_rotations[index]),
    ):
        if len(block):
            series.append(_band(f"{name}: mean and range", result.positions, block))
    start = float(result.baseline[index])
    return lines(
        series, x_title=PUSHED, y_title=info.label, unit=info.unit, logarithmic=metric == "rank",
        reversed=metric == "rank", marks=[(start, "baseline")] if np.isfinite(start) else (),
        x_labels=token_names(result), chosen_x=result.output,
    )  # fmt: skip


def _band(name: str, x: Sequence[int], block: Float[np.ndarray, "draw x"]) -> Line:
    return Line(name, x, block.mean(0).tolist(), block.min(0).tolist(), block.max(0).tolist())


def describe_sweep(result: PlanningResult, metric: str) -> str:
    """The text alternative of `sweep_chart`."""
    info, line = EFFECT_METRICS[metric], result.line(metric)
    start = number(float(result.baseline[METRICS.index(metric)]))
    if not np.isfinite(line).any():
        return f"Line of the {info.label} over tokens; nothing was run."
    best = int(np.nanargmin(line) if metric == "rank" else np.nanargmax(line))
    place = token_names(result)[result.positions[best]]
    ends = f"best {number(float(line[best]))} at token {place}, baseline {start}"
    return legible(f"Line of the {info.label} over {len(line)} pushed tokens: {ends}.")


def grid_chart(result: PlanningResult, metric: str) -> Spec:
    """Strengths down, pushed tokens across."""
    return heatmap([_grid(result, metric)], *_grid_axes(result), _grid_scale(result, metric))


def describe_grid(result: PlanningResult, metric: str) -> str:
    """The text alternative of `grid_chart`."""
    return describe([_grid(result, metric)], *_grid_axes(result), _grid_scale(result, metric))


def _grid(result: PlanningResult, metric: str) -> Panel:
    plain = metric in ("probability", "rank", "kl")
    values = result.values[METRICS.index(metric)] if plain else result.total_effect(metric)
    return Panel("grid", "", values)


def _grid_axes(result: PlanningResult) -> tuple[Axis, Axis]:
    strengths = tuple(f"strength {dose:g}" for dose in result.doses)
    names = token_names(result)
    shown = tuple(names[position] for position in result.positions)
    marked = () if result.column is None else (result.column,)
    return (
        Axis("strength", "Strength", strengths, whole=True, marked=(result.dose,)),
        Axis("position", "Pushed token", shown, ids=result.positions, marked=marked),
    )


def _grid_scale(result: PlanningResult, metric: str) -> ColourScale:
    info, index = EFFECT_METRICS[metric], METRICS.index(metric)
    values, start = result.values[index], float(result.baseline[index])
    known = values[np.isfinite(values)]
    high = float(known.max(initial=start))
    if metric == "probability":
        return ColourScale(info.label, info.unit, (0.0, max(high, 1e-12)), marks=((start, "baseline"),))
    if metric == "rank":
        return ColourScale(info.label, info.unit, (max(high, 2.0), 1.0), logarithmic=True)
    if metric == "kl":
        return ColourScale(info.label, info.unit, (0.0, max(high, 1e-12)))
    effect = np.abs(known - start).max(initial=0.0)
    bound = symmetric_bound(float(effect))
    return ColourScale(f"change of {info.label}", info.unit, (-bound, bound), diverging=True)


def ways_chart(result: PlanningResult) -> Spec:
    """Change of the answer's logit by token: all of it, and its direct and mediated parts."""
    parts = (
        ("total", result.total_effect("logit")),
        ("direct: straight to the output", result.direct_effect("logit")),
        ("mediated: through later attention and MLPs", result.mediated_effect("logit")),
    )
    series = [Line(name, result.positions, found[result.dose].tolist()) for name, found in parts]
    if np.isfinite(result.frozen).any():
        held = (result.inputs.strength * result.frozen).tolist()
        series.append(Line("linear: attention, norms and MLPs held", result.positions, held))
    return lines(
        series, x_title=PUSHED, y_title="change of the logit", unit="logits", marks=[(0.0, "baseline")],
        x_labels=token_names(result), chosen_x=result.output,
    )  # fmt: skip


def describe_ways(result: PlanningResult) -> str:
    """The text alternative of `ways_chart`."""
    mediated, direct = (
        found("logit")[result.dose] for found in (result.mediated_effect, result.direct_effect)
    )
    if not np.isfinite(mediated).any():
        return "Lines of the change of the logit; nothing is known."
    best = int(np.nanargmax(mediated))
    place = token_names(result)[result.positions[best]]
    said = (
        f"Lines of the change of the logit: mediated up to {number(float(mediated[best]))} at token {place}"
    )
    there = "" if result.column is None else f", direct {number(float(direct[result.column]))} at the output"
    return legible(f"{said}{there}.")


def own_chart(result: PlanningResult) -> Spec:
    """Which token each random draw raises at the output position, and how far."""
    items = [
        Bar(
            f"{risen} ({drawn})", float(after),
            note=f"before {number(float(before))}, rank then {rank:.0f}" if np.isfinite(rank) else "",
        )
        for drawn, risen, before, after, rank in zip(
            result.drawn, result.risen, result.risen_before, result.risen_after, result.risen_rank,
            strict=True,
        )
        if np.isfinite(after)  # one that was not run has none
    ]  # fmt: skip
    return bars(items, title="probability of the draw's own token", unit="probability", diverging=False)


def n_drawn(result: PlanningResult) -> int:
    """How many of the random draws were run."""
    return int(np.isfinite(result.risen_after).sum())


def describe_own(result: PlanningResult) -> str:
    """The text alternative of `own_chart`."""
    return (
        f"Bars of {n_drawn(result)} random draws at the output position; {result.own_spikes} put their own "
        "token on top."
    )


def activations_chart(result: PlanningResult) -> Spec:
    """What the listed features are in the baseline: features down, tokens across."""
    return heatmap([Panel("activation", "", result.activations)], *_feature_axes(result), _amount(result))


def describe_activations(result: PlanningResult) -> str:
    """The text alternative of `activations_chart`."""
    panel = Panel("activation", "", result.activations)
    return describe([panel], *_feature_axes(result), _amount(result))


def _feature_axes(result: PlanningResult) -> tuple[Axis, Axis]:
    return Axis("feature", "Feature", result.features, whole=True), _grid_axes(result)[1]


def _amount(result: PlanningResult) -> ColourScale:
    known = result.activations[np.isfinite(result.activations)]
    return ColourScale("activation, baseline", "", (0.0, max(float(known.max(initial=0.0)), 1e-6)))


def routing_sweep_chart(result: FeatureRoutingResult, heads: int = 3) -> Spec:
    """Changes over strengths: all heads together, and those that change most at the chosen strength."""
    strengths = result.inputs.strengths
    series = [Line("all heads: sum of |change|", strengths, result.totals.tolist())]
    series += [
        Line(f"L{layer}H{head}", strengths, result.sweep[:, layer, head].tolist())
        for layer, head in result.top_heads[:heads]
        if np.isfinite(result.sweep[:, layer, head]).any()
    ]
    marks = [(0.0, "baseline")]
    if len(result.controls):
        marks.append((float(result.control_totals.max()), "highest total of random rotations"))
    return lines(
        series, x_title="strength", y_title="change of attention", unit="share", marks=marks,
        chosen_x=result.inputs.strength,
    )  # fmt: skip


def describe_routing_sweep(result: FeatureRoutingResult) -> str:
    """The text alternative of `routing_sweep_chart`."""
    layer, head = result.top_heads[0]
    return (
        f"Lines over {len(result.inputs.strengths)} strengths: total up to "
        f"{number(float(result.totals.max(initial=0.0)))}; L{layer}H{head} changes most."
    )
