"""One cell of a causal trace: what the model says clean, corrupted and restored, and how samples spread."""

from typing import Any

import numpy as np

from mi_core.analyses.causal_trace_inputs import METRICS, Kind
from mi_core.analyses.causal_trace_result import CausalTraceResult
from mi_core.charts.causal_trace import answer_text, head_title, kind_title, quantity
from mi_core.charts.layers import (
    mark_layer,
    name_channel,
    number_channel,
    shown_index,
    shown_name,
    shown_number,
)
from mi_core.charts.panels import Strip
from mi_core.charts.text import isolated, legible, literal, number, token_label
from mi_core.charts.theme import DIVERGING

Spec = dict[str, Any]
Record = dict[str, Any]

POSITIVE, NEGATIVE, OTHER = DIVERGING[8], DIVERGING[2], "#9aa0a6"
# A panel is 100 wide: token texts end at 45, bars begin at 47, and the longest leaves room for its number.
PANEL, TEXT_END, BAR_START, BAR_LENGTH = 100, 45.0, 47.0, 33.0


def cell_name(result: CausalTraceResult, kind: Kind, row: int, layer: int) -> str:
    """A cell in words, for example "MLP, layer 3, 4 ·Tower*"."""
    if result.grids[kind].row_axis == "head":
        return f"{head_title(result)}, L{layer}H{row}"
    label = token_label(row, result.tokens[row].visible, marked=result.is_subject(row))
    return f"{kind_title(result, kind)}, layer {layer}, {label}"


def cell_tops(result: CausalTraceResult, kind: Kind, row: int, layer: int) -> Spec:
    """Most probable tokens of the clean, the corrupted and the patched run, side by side on one scale.

    Args:
        result: a trace.
        kind: grid of the cell.
        row: token position (or head), as in `grids[kind].rows`.
        layer: of the cell.

    Raises:
        InputError: the row was not traced.
    """
    bars = top_records(result, kind, row, layer)
    depth = max((bar["rank"] for bar in bars), default=0) + 1
    strip = Strip(3, PANEL)
    titles = [run for run, _, _ in _runs(result, kind, row, layer)]
    return {
        "height": 22 * depth + 70,
        "datasets": {"bars": bars, "panels": strip.frames(depth)},
        "resolve": {"axis": {"x": "independent", "y": "independent"}},
        "layer": [*_bar_layers(result, bars, depth, strip), _titles_layer(strip, titles, depth)],
    }


def _bar_layers(result: CausalTraceResult, bars: list[Record], depth: int, strip: Strip) -> list[Spec]:
    """Bars, token texts before them and numbers after them."""
    longest = max((bar["probability"] for bar in bars), default=1.0)
    place = [
        {"calculate": f"datum.panel * {strip.period} + {BAR_START}", "as": "start"},
        {"calculate": f"datum.start + {BAR_LENGTH} * datum.probability / {longest}", "as": "end"},
        {"calculate": f"datum.panel * {strip.period} + {TEXT_END}", "as": "text_end"},
        {"calculate": "datum.rank - 0.38", "as": "top"},
        {"calculate": "datum.rank + 0.38", "as": "bottom"},
    ]
    x, y = {"scale": strip.scale(), "axis": None}, _rank_channel(depth)
    before = {"baseline": "middle", "align": "right", "limit": {"expr": f"width * {TEXT_END / (3 * PANEL)}"}}
    after = {"baseline": "middle", "align": "left", "dx": 3}
    edges = {"x": number_channel("start", **x), "x2": {"field": "end"}, "y": {**y, "field": "top"}}
    edges["y2"] = {"field": "bottom"}
    at_start, at_end = number_channel("text_end", **x), number_channel("end", **x)
    layers = [
        mark_layer("bars", "rect", **edges, color=_role_colour(result), tooltip=_tooltip()),
        mark_layer("bars", "text", "token", look=before, x=at_start, y=y, text={"field": "token"}),
        mark_layer("bars", "text", "value", look=after, x=at_end, y=y, text={"field": "shown"}),
    ]
    return [{**each, "transform": place} for each in layers]


def _rank_channel(depth: int) -> Spec:
    scale = {"domain": [-0.6, depth - 0.4], "reverse": True, "nice": False, "zero": False}
    return number_channel("rank", scale=scale, axis=None)


def _titles_layer(strip: Strip, titles: list[str], depth: int) -> Spec:
    """Invisible points that carry the axis with the names of the runs."""
    x = number_channel("x", scale=strip.scale(), axis=strip.title_axis(titles))
    return mark_layer("panels", "point", look={"opacity": 0}, x=x, y={**_rank_channel(depth), "field": "y"})


def describe_cell(result: CausalTraceResult, kind: Kind, row: int, layer: int) -> str:
    """The text alternative of `cell_tops`."""
    parts = [f"Most probable next tokens, {cell_name(result, kind, row, layer)}."]
    records = top_records(result, kind, row, layer)
    for run, _, _ in _runs(result, kind, row, layer):
        tokens = [f"{r['token']} {r['shown']}" for r in records if r["run"] == run and r["rank"] < 3]
        parts.append(f"{run}: {', '.join(tokens) or 'not run'}.")
    return " ".join(parts)


def _runs(
    result: CausalTraceResult, kind: Kind, row: int, layer: int
) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """(name, token ids, probabilities) of the three runs, in the order of the panels."""
    grid = result.grids[kind]
    index = grid.row_of(row)
    return [
        ("clean run", result.clean.top_ids, result.clean.top_probabilities),
        ("corrupted run", result.corrupted.top_ids, result.corrupted.top_probabilities),
        (f"{_patched(result)} run", grid.top_ids[index, layer], grid.top_probabilities[index, layer]),
    ]


def _patched(result: CausalTraceResult) -> str:
    return "restored" if result.inputs.direction == "denoising" else "patched"


def top_records(result: CausalTraceResult, kind: Kind, row: int, layer: int) -> list[Record]:
    """One record per token and run, most probable first; none for a cell that was not run."""
    return [
        {
            "panel": panel,
            "run": run,
            "rank": rank,
            "id": token_id,
            "token": isolated(legible(result.visible(token_id))),
            "probability": probability,
            "shown": number(probability),
            "role": _role(result, token_id),
        }
        for panel, (run, ids, probabilities) in enumerate(_runs(result, kind, row, layer))
        for rank, (token_id, probability) in enumerate(zip(ids.tolist(), probabilities.tolist(), strict=True))
        if token_id >= 0
    ]


def _role(result: CausalTraceResult, token_id: int) -> str:
    if token_id == result.answer.ids[0]:
        return "answer"
    distractor = result.distractor
    return "distractor" if distractor is not None and token_id == distractor.ids[0] else "other"


def _role_colour(result: CausalTraceResult) -> Spec:
    names = {"answer": f"answer {legible(answer_text(result.answer))}"}
    if result.distractor is not None:
        names["distractor"] = f"distractor {legible(answer_text(result.distractor))}"
    label = f"{literal(names)}[datum.value]"
    legend = {"values": list(names), "title": None, "labelExpr": label, "symbolType": "square"}
    scale = {"domain": ["answer", "distractor", "other"], "range": [POSITIVE, NEGATIVE, OTHER]}
    return name_channel("role", scale=scale, legend=legend)


def _tooltip() -> list[Spec]:
    return [
        shown_name("run", "run"),
        shown_name("token", "token"),
        shown_index("id", "token id"),
        shown_number("probability", "probability"),
    ]


def cell_samples(
    result: CausalTraceResult, kind: Kind, row: int, layer: int, metric: str = "probability"
) -> Spec:
    """A strip with a point per noise sample for the clean, corrupted and patched run, and their means.

    Args:
        result: a trace.
        kind: grid of the cell.
        row: token position (or head).
        layer: of the cell.
        metric: a stored metric; shares have no value per sample.

    Raises:
        InputError: the row was not traced.
        ValueError: the metric has no value per sample.
    """
    if METRICS[metric].derived:
        raise ValueError(f"{metric} is computed from means and has no value per sample")
    samples, means = sample_records(result, kind, row, layer, metric)
    runs = [mean["run"] for mean in means]
    return {
        "height": 36 * len(runs) + 80,
        "datasets": {"samples": samples, "means": means},
        "layer": _sample_layers(f"{legible(quantity(result, metric))} [{METRICS[metric].unit}]", runs),
    }


def _sample_layers(title: str, runs: list[str]) -> list[Spec]:
    x = number_channel("value", scale={"zero": False, "nice": True}, axis={"title": title, "tickCount": 6})
    axis = {"title": None, "domain": False, "ticks": False, "grid": True}
    y = name_channel("run", sort=runs, scale={"padding": 0.8}, axis=axis)
    run = shown_name("run", "run")
    of_sample = [run, shown_index("sample", "noise sample"), shown_number("value", title)]
    of_mean = [run, shown_number("value", f"mean {title}")]
    above = {"align": "center", "baseline": "bottom", "dy": -9}
    return [
        mark_layer("samples", "point", "sample", look={"color": POSITIVE}, x=x, y=y, tooltip=of_sample),
        mark_layer("means", "tick", "mean", x=x, y=y, tooltip=of_mean),
        mark_layer("means", "text", "value", look=above, x=x, y=y, text={"field": "shown"}),
    ]


def sample_records(
    result: CausalTraceResult, kind: Kind, row: int, layer: int, metric: str
) -> tuple[list[Record], list[Record]]:
    """(one record per sample, one record per mean) of the three runs."""
    grid, index = result.grids[kind], result.grids[kind].row_of(row)
    patched_mean = float(result.grid(kind, metric)[index, layer])
    runs = {
        "clean": (result.clean.samples[metric], result.value(result.clean, metric)),
        "corrupted": (result.corrupted.samples[metric], result.value(result.corrupted, metric)),
        _patched(result): (grid.samples[metric][index, layer], patched_mean),
    }
    samples = [
        {"run": run, "sample": number_of, "value": value}
        for run, (values, _) in runs.items()
        for number_of, value in enumerate(values.tolist())
        if np.isfinite(value)
    ]
    means = [
        {"run": run, "value": mean, "shown": number(mean)}
        for run, (_, mean) in runs.items()
        if np.isfinite(mean)
    ]
    return samples, means


def describe_samples(
    result: CausalTraceResult, kind: Kind, row: int, layer: int, metric: str = "probability"
) -> str:
    """The text alternative of `cell_samples`."""
    _, means = sample_records(result, kind, row, layer, metric)
    listed = ", ".join(f"{mean['run']} {mean['shown']}" for mean in means)
    return (
        f"{result.n_samples} noise samples of {quantity(result, metric)}, "
        f"{cell_name(result, kind, row, layer)}; means: {listed}."
    )
