"""A circuit drawn: heads by layer and class, paths between them by their patched effect; tests; paths."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from mi_core.analyses.attribution_inputs import head_name
from mi_core.analyses.circuit_test_result import RUNS, CircuitTestResult
from mi_core.analyses.head_classes_result import HeadClassesResult
from mi_core.analyses.head_classes_rules import QUANTITIES, Label
from mi_core.analyses.path_patching_names import Head
from mi_core.analyses.path_patching_result import PathPatchingResult
from mi_core.charts.bars import Bar, bars
from mi_core.charts.colours import ColourScale, symmetric_bound
from mi_core.charts.heatmap import Axis, Panel, describe, heatmap
from mi_core.charts.layers import cell_selection, mark_layer, number_channel, shown_name, shown_number
from mi_core.charts.scatter import Point, scatter
from mi_core.charts.text import number
from mi_core.charts.theme import NEGATIVE, POSITIVE

Spec = dict[str, Any]
Record = dict[str, Any]

COLUMNS: tuple[Label, ...] = (
    "previous token",
    "duplicate token",
    "induction",
    "S-inhibition",
    "unclear",
    "backup",
    "name mover",
    "negative name mover",
)
"""From left to right: what finds tokens, what steers, what writes."""
HUES: dict[str, str] = {
    "previous token": "#999999",
    "duplicate token": "#CC79A7",
    "induction": "#009E73",
    "S-inhibition": "#E69F00",
    "unclear": "#666666",
    "backup": "#56B4E9",
    "name mover": "#0072B2",
    "negative name mover": "#D55E00",
}
"""Okabe and Ito's colours (2008), told apart with every kind of colour vision; the class stands there too."""
HEIGHT_PER_LAYER = 74
PER_CLASS = 0.44


def circuit_drawing(result: HeadClassesResult, *, chosen: Head | None = None) -> Spec:
    """Heads as dots, layers upwards; paths as lines, as wide as their effect.

    Args:
        result: classes and paths.
        chosen: head to outline.

    Returns:
        Specification without looks; clicks select `cell` with the fields layer and head.
    """
    nodes, edges = _nodes(result), _edges(result)
    top = max((record["y"] for record in nodes), default=0.0) + 1.0
    x = number_channel("x", axis=None, scale={"domain": [-0.6, len(COLUMNS) - 0.4], "nice": False})
    ticks = {"title": "Layer", "values": list(range(result.n_layers)), "grid": False, "tickMinStep": 1}
    y = number_channel("y", axis=ticks, scale={"domain": [-0.6, top + 0.5], "nice": False, "zero": False})
    goal = [{"x": (len(COLUMNS) - 1) / 2, "y": top, "name": "logit difference"}] if nodes else []
    return {
        "height": round(HEIGHT_PER_LAYER * min(top + 1.5, 12)),
        "datasets": {
            "edges": edges,
            "nodes": nodes,
            "goal": goal,
            "chosen": [record for record in nodes if (record["layer"], record["head"]) == chosen],
        },
        "layer": [*_edge_layers(x, y), *_node_layers(x, y)],
    }


def _edge_layers(x: Spec, y: Spec) -> list[Spec]:
    colour = {"condition": {"test": "datum.value < 0", "value": NEGATIVE}, "value": POSITIVE}
    width = {
        "field": "size", "type": "quantitative", "legend": None,
        "scale": {"domain": [0, 1], "range": [0.8, 7], "clamp": True},
    }  # fmt: skip
    told = [
        shown_name("name", "path"),
        shown_number("value", "effect on the logit difference [logits]"),
        shown_name("range", "95 % band"),
    ]
    ends = {"x": x, "y": y, "x2": {"field": "x2"}, "y2": {"field": "y2"}}
    look = {"opacity": 0.75}
    return [mark_layer("edges", "rule", look=look, **ends, color=colour, strokeWidth=width, tooltip=told)]


def _node_layers(x: Spec, y: Spec) -> list[Spec]:
    colour = {"field": "hue", "type": "nominal", "scale": None, "legend": None}
    told = [shown_name("name", "head"), shown_name("label", "class"), shown_name("why", "numbers")]
    dot = {"size": 330, "opacity": 1, "cursor": "pointer", "filled": True}
    live = mark_layer("nodes", "circle", look=dot, x=x, y=y, color=colour, tooltip=told)
    text = {"text": {"field": "name"}}
    return [
        {**live, "params": cell_selection("layer", "head")},
        mark_layer("chosen", "point", "ring", look={"size": 560}, x=x, y=y),
        mark_layer("nodes", "text", "text-halo", look={"dy": -16}, x=x, y=y, **text),
        mark_layer("nodes", "text", "value", look={"dy": -16}, x=x, y=y, **text),
        mark_layer("nodes", "text", "text-halo", look={"dy": 18}, x=x, y=y, text={"field": "label"}),
        mark_layer("nodes", "text", "value", look={"dy": 18}, x=x, y=y, text={"field": "label"}),
        mark_layer("goal", "text", "value", x=x, y=y, text={"field": "name"}),
    ]


def _nodes(result: HeadClassesResult) -> list[Record]:
    verdicts, seen = result.verdicts(), {}
    records: list[Record] = []
    for layer, head in result.drawn:
        verdict = verdicts[layer, head]
        place = seen.setdefault((layer, verdict.label), 0)
        seen[layer, verdict.label] += 1
        label = verdict.label if not verdict.habits else f"{verdict.label} ({', '.join(verdict.habits)})"
        column = COLUMNS.index(verdict.label)
        records.append(
            {
                "layer": layer, "head": head, "name": head_name(layer, head), "label": label,
                "why": "; ".join(verdict.reasons), "hue": HUES[verdict.label],
                "x": column, "y": layer, "slot": place,
            }
        )  # fmt: skip
    _spread(records, seen)
    return records


def _spread(records: list[Record], counts: dict[tuple[int, Label], int]) -> None:
    """Heads of one layer and class beside each other; neighbours a little up and down, for their names."""
    sizes = {(layer, COLUMNS.index(label)): count for (layer, label), count in counts.items()}
    for record in records:
        slot, size = record.pop("slot"), sizes[record["layer"], record["x"]]
        offset = slot - (size - 1) / 2
        record["x"] += PER_CLASS * offset
        record["y"] += 0.2 * ((slot % 2) - 0.5) if size > 1 else 0.0


def _edges(result: HeadClassesResult) -> list[Record]:
    """Paths whose whole band is beyond 0 and whose mean counts, the weakest first."""
    places = {(record["layer"], record["head"]): record for record in _nodes(result)}
    top = max((record["y"] for record in places.values()), default=0.0) + 1.0
    goal = {"x": (len(COLUMNS) - 1) / 2, "y": top - 0.15}
    found = []
    for start, end, name, value, low, high in drawn_paths(result):
        to = goal if end is None else places[end]
        found.append(
            {
                "name": name, "value": value, "range": f"{number(low)}, {number(high)}",
                "size": min(1.0, abs(value) / max(abs(float(result.baseline[0])), 1e-12)),
                "x": places[start]["x"], "y": places[start]["y"], "x2": to["x"], "y2": to["y"],
            }
        )  # fmt: skip
    return sorted(found, key=lambda record: abs(record["value"]))


def drawn_paths(
    result: HeadClassesResult,
) -> Iterator[tuple[Head, Head | None, str, float, float, float]]:
    """(sender, receiver or None for the logits, name, mean, low, high) of the paths that are drawn."""
    for index, start in enumerate(result.drawn):
        ends = result.outputs[index], result.output_lows[index], result.output_highs[index]
        value, low, high = (float(end) for end in ends)
        if _counts(result, value, low, high):
            yield start, None, f"{head_name(*start)} \u2192 logits", value, low, high
        for end, part, value, low, high in result.paths_from(index):
            if _counts(result, value, low, high):
                name = f"{head_name(*start)} \u2192 {head_name(*end)}.{part}"
                yield start, end, name, value, low, high


def _counts(result: HeadClassesResult, value: float, low: float, high: float) -> bool:
    return abs(value) >= result.least_effect and (low > 0 or high < 0)


def describe_circuit(result: HeadClassesResult) -> str:
    """The text alternative of `circuit_drawing`."""
    verdicts = result.verdicts()
    heads = ", ".join(f"{head_name(*place)} {verdicts[place].label}" for place in result.drawn)
    paths = sorted(drawn_paths(result), key=lambda path: -abs(path[3]))
    told = "; ".join(f"{name} {number(value)} logits" for _, _, name, value, _, _ in paths[:10])
    return f"Heads by layer: {heads or 'none'}. {len(paths)} paths, strongest first: {told or 'none'}."


# --- numbers of all heads ---


def quantity_map(result: HeadClassesResult, quantity: str, *, chosen: Head | None = None) -> Spec:
    """One number of all heads: layers down, heads across.

    Returns:
        Specification without looks; clicks select `cell` with the fields layer and head.
    """
    outlined = None if chosen is None else ("heads", *chosen)
    return heatmap(*_map_parts(result, quantity), chosen=outlined, show_values=result.n_heads <= 16)


def describe_quantity(result: HeadClassesResult, quantity: str) -> str:
    """The text alternative of `quantity_map`."""
    return describe(*_map_parts(result, quantity))


def _map_parts(result: HeadClassesResult, quantity: str) -> tuple[list[Panel], Axis, Axis, ColourScale]:
    label, unit = QUANTITIES[quantity]
    values = result.means[list(QUANTITIES).index(quantity)]
    verdicts = result.verdicts()
    notes = tuple(
        tuple(
            f"{verdicts[layer, head].label}; 95 % band {_range(result, quantity, layer, head)}"
            for head in range(result.n_heads)
        )
        for layer in range(result.n_layers)
    )
    return _grid(values, notes, label, unit)


def _range(result: HeadClassesResult, quantity: str, layer: int, head: int) -> str:
    band = result.band(quantity, layer, head)
    return f"{number(band.low)} to {number(band.high)}" if math.isfinite(band.low) else "none"


def _grid(
    values: np.ndarray, notes: tuple[tuple[str, ...], ...], label: str, unit: str
) -> tuple[list[Panel], Axis, Axis, ColourScale]:
    n_layers, n_heads = values.shape
    rows = Axis("layer", "Layer", tuple(f"L{layer}" for layer in range(n_layers)), whole=True)
    columns = Axis("head", "Head", tuple(str(head) for head in range(n_heads)))
    finite = np.abs(values[np.isfinite(values)])
    bound = symmetric_bound(float(finite.max()) if finite.size else 0.0)
    panel = Panel("heads", "", values, notes=notes, missing="none")
    return [panel], rows, columns, ColourScale(label, unit, (-bound, bound), diverging=True)


# --- path patching ---


def path_map(result: PathPatchingResult, receiver: int, *, chosen: Head | None = None) -> Spec:
    """Effects of all senders' paths into one receiver.

    Returns:
        Specification without looks; clicks select `cell` with the fields layer and head.
    """
    outlined = None if chosen is None else ("heads", *chosen)
    return heatmap(*_path_parts(result, receiver), chosen=outlined, show_values=result.n_heads <= 16)


def describe_paths(result: PathPatchingResult, receiver: int) -> str:
    """The text alternative of `path_map`."""
    return describe(*_path_parts(result, receiver))


def _path_parts(result: PathPatchingResult, receiver: int) -> tuple[list[Panel], Axis, Axis, ColourScale]:
    mean, low, high = (array[receiver] for array in result.bands())
    notes = tuple(
        tuple(
            f"95 % band {number(float(low[layer, head]))} to {number(float(high[layer, head]))}"
            if math.isfinite(mean[layer, head])
            else "no path: not an earlier layer"
            for head in range(result.n_heads)
        )
        for layer in range(result.n_layers)
    )
    return _grid(mean, notes, "patched - clean logit difference", "logits")


# --- tests of a circuit ---


def trial_bars(result: CircuitTestResult) -> Spec:
    """Logit differences of the model, the circuit, the rest, and random circuits."""
    rows = [(run, result.band(run), "95 % band over prompts") for run in RUNS]
    if len(result.controls):
        note = f"mean of {len(result.controls)} random circuits, 95 % band over these"
        rows.insert(2, ("random circuits alone", result.control_band(), note))
        rows.insert(4, ("model without random circuits", result.control_band(rests=True), note))
    items = [Bar(name, band.mean, band.low, band.high, note=note) for name, band, note in rows]
    return bars(items, title="logit difference", unit="logits")


def describe_trial(result: CircuitTestResult) -> str:
    """The text alternative of `trial_bars`."""
    told = "; ".join(f"{run} {number(result.band(run).mean)}" for run in RUNS)
    return f"Mean logit differences in logits: {told}."


def completeness_scatter(result: CircuitTestResult) -> Spec:
    """F(M without K) across, F(C without K) up, a point per part K; on the line the circuit is complete."""
    points = [
        Point("without " + (" ".join(part) or "nothing"), float(model.mean()), float(circuit.mean()))
        for part, model, circuit in zip(
            result.subsets, result.subset_model, result.subset_circuit, strict=True
        )
    ]
    return scatter(
        points,
        x_title="model without the part",
        y_title="circuit without the part",
        unit="logits",
        diagonal=True,
    )


def describe_completeness(result: CircuitTestResult) -> str:
    """The text alternative of `completeness_scatter`."""
    gaps = np.abs(result.subset_model.mean(-1) - result.subset_circuit.mean(-1))
    worst = number(float(gaps.max())) if len(gaps) else "none"
    return f"{len(gaps)} parts of the circuit taken out; largest distance from the line {worst} logits."
