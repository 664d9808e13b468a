"""What the model says about a graph: the heads that carry an edge, and predicted against actual effects."""

from typing import TYPE_CHECKING

import numpy as np

from mi_core.charts.colours import ColourScale, symmetric_bound
from mi_core.charts.heatmap import Axis, Panel, describe, heatmap
from mi_core.charts.scatter import Point, scatter
from mi_core.charts.text import legible, number
from mi_core.exports.analysis_figure import analysis_figure
from mi_core.exports.captions import model_sentence, quoted
from mi_core.exports.figure import Figure
from mi_core.transcoders.graph_removals_target import SUM

if TYPE_CHECKING:
    from mi_core.transcoders.graph_heads import HeadLoadingsResult
    from mi_core.transcoders.graph_removals import GraphEffectsResult

REFERENCES = ("ameisen2025circuit",)
NAME_LENGTH, LISTED = 28, 5  # characters of a target's name on an axis; logits that a caption lists
LOADINGS_READING = (
    "An edge between two tokens goes through attention. Left: the part of the edge that each head brings "
    "to the target's token, counted at the last head on the way. Right: the same edge, counted at the "
    "first head on the way, which takes it away from the source's token. In both, the heads and the part "
    "that passes no head add up to the edge. Blue parts have the sign of what adds to the target, orange "
    "ones take away."
)
EFFECTS_READING = (
    "Each point is a node that is taken away in the real model. Across: the change of the target that the "
    "graph predicts, over all paths from the node. Up: the change that the model shows. Both are edited "
    "minus baseline, in logits: below zero, the node had pushed the target up. On the line the "
    "graph tells the truth; far from it, attention, norms or features that were not active answer in ways "
    "that no graph of this prompt contains."
)


def loadings_figure(result: "HeadLoadingsResult") -> Figure:
    """Heads of an edge, at its end and at its beginning."""
    panels, rows, columns, colours = _loadings(result)
    name = f"{result.inputs.source} \u2192 {result.inputs.target}"
    heads = float(result.loadings.sum())
    return analysis_figure(
        result,
        analysis="head_loadings",
        title=f"Heads that carry {legible(name)}",
        spec=heatmap(panels, rows, columns, colours, show_values=result.loadings.shape[1] <= 16),
        view={"figure": "loadings", "edge": name},
        caption=(
            f"Head loadings of the edge {legible(name)} on {quoted(result.inputs.prompt)}, n = 1 prompt "
            f"[{result.unit}]; 0 = the head carries none of it. Edge {number(result.edge)} = heads "
            f"{number(heads)} + no head {number(result.direct)}. {model_sentence(result.provenance)}"
        ).strip(),
        how_to_read=LOADINGS_READING,
        description=describe(panels, rows, columns, colours),
        frame=result.to_frame,
        references=REFERENCES,
        function="head_loadings",
        arrays=("loadings", "departures"),
    )


def _loadings(result: "HeadLoadingsResult") -> tuple[list[Panel], Axis, Axis, ColourScale]:
    n_layers, n_heads = result.loadings.shape
    both = np.abs(np.concatenate([result.loadings, result.departures]))
    bound = symmetric_bound(float(both.max(initial=0.0)))
    panels = [
        Panel("arrives", "brings it to the target's token", result.loadings),
        Panel("departs", "takes it from the source's token", result.departures),
    ]
    rows = Axis("layer", "Layer", tuple(f"L{layer}" for layer in range(n_layers)), whole=True)
    columns = Axis("head", "Head", tuple(str(head) for head in range(n_heads)))
    return (
        panels,
        rows,
        columns,
        ColourScale("part of the edge", result.unit, (-bound, bound), diverging=True),
    )


def effects_figure(result: "GraphEffectsResult") -> Figure:
    """Predicted against actual effect of taking each node away."""
    points = [
        Point(name, float(predicted), float(actual), group=_group(name))
        for name, predicted, actual in zip(result.inputs.nodes, result.predicted, result.actual, strict=True)
    ]
    frozen = "attention frozen" if result.inputs.freeze == "attention" else "nothing frozen"
    on, article = _cut(result.target_name), "the " if result.inputs.effect_on == SUM else ""
    return analysis_figure(
        result,
        analysis="graph_effects",
        title=f"Predicted against actual effect of every shown node on {article}{on}",
        spec=scatter(
            points, x_title=f"predicted change of {on}", y_title=f"actual change of {on}", unit=result.unit,
            diagonal=True, notes=_notes(result),
        ),
        view={"figure": "effects", "freeze": result.inputs.freeze, "effect_on": result.inputs.effect_on},
        caption=(
            f"Change of {_target(result)} when a node is taken away (edited \u2212 baseline, in logits), "
            f"predicted by the graph and measured with {frozen}, on "
            f"{quoted(result.inputs.prompt)}; n = {len(points)} nodes of 1 prompt; 0 = no effect. "
            f"{'; '.join(_notes(result))}. {model_sentence(result.provenance)}"
        ).strip(),
        how_to_read=EFFECTS_READING,
        description=f"Scatter of predicted against actual effects on {on}. {'; '.join(_notes(result))}.",
        frame=result.to_frame,
        references=REFERENCES,
        function="graph_effects",
        arrays=("predicted", "actual"),
    )  # fmt: skip


def _cut(name: str) -> str:
    """A target's name, short enough for an axis."""
    shown = legible(name)
    return shown if len(shown) <= NAME_LENGTH else shown[: NAME_LENGTH - 1] + "\u2026"


def _target(result: "GraphEffectsResult") -> str:
    """What changes, in words; of a weighted sum the largest weights are told."""
    name = legible(result.target_name)
    if result.inputs.effect_on != SUM:
        difference = result.inputs.distractor is not None or "-" in result.inputs.effect_on
        return f"the logit difference {name}" if difference else f"the logit of {name} (minus the mean logit)"
    order = np.argsort(-result.logit_weights, kind="stable")
    largest = [
        f"{number(float(result.logit_weights[index]))} {legible(result.logit_names[index])}"
        for index in order[:LISTED]
    ]
    more = f" + {len(order) - LISTED} more" if len(order) > LISTED else ""
    return f"the {name} ({' + '.join(largest)}{more}; weights as in the graph)"


def _group(name: str) -> str:
    """The kind of a node, from its name."""
    if name.startswith("T@"):
        return "token"
    return "error" if "E@" in name else "feature"


def _notes(result: "GraphEffectsResult") -> list[str]:
    done = int(np.isfinite(result.actual).sum())
    stopped = "" if done == len(result.inputs.nodes) else f" of {len(result.inputs.nodes)}, stopped early"
    return [f"Pearson r = {number(result.correlation)}, n = {done}{stopped}"]
