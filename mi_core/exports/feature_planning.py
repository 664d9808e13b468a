"""The figures of the planning experiment and of routing under an injection: drawing, words and files."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mi_core.analyses.ablation_sweep_inputs import EFFECT_METRICS
from mi_core.charts import feature_planning as charts
from mi_core.charts.routing import describe_routing, routing_chart
from mi_core.charts.text import legible, number
from mi_core.exports.analysis_figure import analysis_figure
from mi_core.exports.captions import model_sentence, quoted
from mi_core.exports.figure import Figure
from mi_core.transcoders.planning_result import ARRAYS as PLANNING_ARRAYS
from mi_core.transcoders.planning_result import METRICS, PlanningResult
from mi_core.transcoders.routing_result import ARRAYS as ROUTING_ARRAYS
from mi_core.transcoders.routing_result import FeatureRoutingResult

if TYPE_CHECKING:
    import pandas as pd

REFERENCES = ("lindsey2025biology", "ameisen2025circuit")
SWEEP_READING = (
    "In each run the features are pushed at one token: their decoder rows, times the strength, are added to "
    "every layer that they write to, the suppressed ones with a minus, whether or not they are active. The "
    "line is what the model then says at the last token. The vertical rule marks that token, the output "
    "position: there the features write into the very state that is read, which needs no plan. A rise at an "
    "earlier token must have been carried to the output by attention. Where features are injected and "
    "suppressed, either is also shown alone: taking one word away can be enough to bring up another. The "
    "bands are the same with other features of the same layers in place of the injected ones, and with the "
    "push turned at random (all lengths kept): a rise inside a band is one that any push of that kind has. "
    "Read probabilities as they are, not as a multiple of a tiny baseline."
)
GRID_READING = (
    "Every cell is a run of its own: the features pushed at one token (column) with one strength (row). What "
    "is read, and from where, is as in the line figure; strengths are multiples of the decoder rows."
)
WAYS_READING = (
    "The change of the answer's logit, split by the way it takes. Direct: the push is added to the last "
    "state of the output position, with all that later layers add left as in the baseline, and read by the "
    "final norm and the unembedding. Mediated: the rest, through attention and MLPs that answer to the push. "
    "At all other tokens the direct part is 0, since only attention brings anything from there. The linear "
    "line holds attention patterns, norm scales and MLPs as in the baseline, as the attribution graph does: "
    "where it follows the total, attention as it stands carries the push; where it does not, later heads and "
    "MLPs answer to it."
)
OWN_READING = (
    "Each bar is a random draw of features, injected at the output position in place of the chosen ones: the "
    "token whose logit rose most, and its probability then. Where draws put a token of their own on top, a "
    "rise of the answer at the output position shows only that features can push words there."
)
ACTIVATION_READING = (
    "What the listed features are in the baseline. A push is added to this: injecting strength s is like "
    "raising the activation by s, and suppressing a feature that is 0 takes it below what it can ever be."
)
ROUTING_READING = (
    "For every head the attention from the reading token to the pushed token, with the push minus without. "
    "Layers up to the first one that is written cannot change. The strengths figure has the sum of the "
    "absolute changes of all heads; the rule is the largest such sum among random rotations of the push: "
    "any push of that length moves attention somewhere."
)


def sweep_figure(result: PlanningResult, metric: str) -> Figure:
    """A metric over the pushed token."""
    info = EFFECT_METRICS[metric]
    said = [
        _what(result), f"Line: {info.label} [{info.unit}] at the last token with the features pushed at one "
        f"token, strength {result.inputs.strength:g}, n = {len(result.positions)} tokens.",
        _baseline(result, metric), _best(result, metric), _controls(result),
    ]  # fmt: skip
    return _planning(
        result, f"Where the push acts: {info.label}", charts.sweep_chart(result, metric),
        {"figure": "sweep", "metric": metric}, said, SWEEP_READING, charts.describe_sweep(result, metric),
        lambda: _only(result, metric),
    )  # fmt: skip


def grid_figure(result: PlanningResult, metric: str) -> Figure:
    """A metric over strength and pushed token."""
    info = EFFECT_METRICS[metric]
    change = metric not in ("probability", "rank", "kl")
    cells = f"change of the {info.label}, pushed minus baseline, 0 = no change" if change else info.label
    said = [
        _what(result), f"Cells: {cells} [{info.unit}] at the last token, n = {len(result.doses)} strengths "
        f"x {len(result.positions)} tokens.", _baseline(result, metric),
    ]  # fmt: skip
    return _planning(
        result, f"Position and strength: {info.label}", charts.grid_chart(result, metric),
        {"figure": "grid", "metric": metric}, said, GRID_READING, charts.describe_grid(result, metric),
        lambda: _only(result, metric),
    )  # fmt: skip


def ways_figure(result: PlanningResult) -> Figure:
    """Direct and mediated parts of the change of the logit."""
    said = [
        _what(result), f"Change of the answer's logit [logits], strength {result.inputs.strength:g}, pushed "
        "minus baseline; 0 = no change.",
    ]  # fmt: skip
    if result.column is not None:
        direct, mediated = (
            found("logit")[result.dose, result.column]
            for found in (result.direct_effect, result.mediated_effect)
        )
        said.append(
            f"At the output position: direct {number(float(direct))}, mediated {number(float(mediated))}."
        )
    return _planning(
        result, "Direct and mediated effect", charts.ways_chart(result), {"figure": "ways"}, said,
        WAYS_READING, charts.describe_ways(result), lambda: ways_frame(result),
    )  # fmt: skip


def own_figure(result: PlanningResult) -> Figure:
    """What random draws push at the output position."""
    said = [
        _what(result), f"Bars: {charts.n_drawn(result)} draws of random features of the same layers at the "
        f"output position, strength {result.inputs.strength:g}; probability of the token whose logit rose "
        "most.",
        f"{result.own_spikes} of n = {charts.n_drawn(result)} draws put their own token on top.",
    ]  # fmt: skip
    return _planning(
        result, "What random features push at the output", charts.own_chart(result), {"figure": "own"}, said,
        OWN_READING, charts.describe_own(result), lambda: own_frame(result),
    )  # fmt: skip


def activations_figure(result: PlanningResult) -> Figure:
    """The listed features in the baseline."""
    said = [
        _what(result), f"Activations of n = {len(result.features)} features in the baseline; 0 = not active.",
    ]  # fmt: skip
    return _planning(
        result, "The features before the push", charts.activations_chart(result), {"figure": "activations"},
        said, ACTIVATION_READING, charts.describe_activations(result), lambda: activations_frame(result),
    )  # fmt: skip


def routing_figure(result: FeatureRoutingResult) -> Figure:
    """Every head's change of attention."""
    said = [
        _routed(result), f"Cells: attention with the push minus without, strength "
        f"{result.inputs.strength:g}; 0 = no change. Absolute changes of n = {result.change.size} heads add "
        f"up to {number(result.total)}{_rotations(result)}.",
    ]  # fmt: skip
    return _routing(
        result, "Attention to the pushed token", routing_chart(result.change), {"figure": "routing"}, said,
        describe_routing(result.change),
    )  # fmt: skip


def routing_sweep_figure(result: FeatureRoutingResult) -> Figure:
    """Changes over strengths."""
    said = [
        _routed(result), f"Changes at n = {len(result.inputs.strengths)} strengths, pushed minus baseline, "
        "0 = no change: sum of absolute changes of all heads, and the three heads that change most at "
        f"strength {result.inputs.strength:g}.",
    ]  # fmt: skip
    return _routing(
        result, "Attention over strengths", charts.routing_sweep_chart(result), {"figure": "routing_sweep"},
        said, charts.describe_routing_sweep(result),
    )  # fmt: skip


# --- words ---


def _what(result: PlanningResult) -> str:
    inputs = result.inputs
    pushed = [f"injected {inputs.inject}" if inputs.inject.strip() else ""]
    pushed.append(f"suppressed {inputs.suppress}" if inputs.suppress.strip() else "")
    words = f"answer {result.answer.visible}"
    if result.distractor is not None:
        words += f", distractor {result.distractor.visible}"
    origin = "" if result.source == "lantern" else f" Read from a file of {result.source}."
    return legible(
        f"Features pushed in {quoted(inputs.prompt)}, {words}: {', '.join(filter(None, pushed))} "
        f"(transcoder {result.transcoder}).{origin}"
    )


def _baseline(result: PlanningResult, metric: str) -> str:
    return f"Baseline without a push: {number(float(result.baseline[METRICS.index(metric)]))}."


def _best(result: PlanningResult, metric: str) -> str:
    if metric != "probability" or result.best < 0:
        return ""
    position, value = result.positions[result.best], result.line(metric)[result.best]
    where = "the output position itself" if position == result.output else f"token {position}"
    shown = legible(result.tokens[position].visible)
    return f"Highest: {number(float(value))} at {where} ({shown})."


def _controls(result: PlanningResult) -> str:
    parts = []
    for name, block in (
        ("random features of the same layers", result.random_features),
        ("random rotations of the push", result.random_rotations),
    ):
        if block.shape[1] and np.isfinite(block[0]).any():
            parts.append(f"{block.shape[1]} {name} (highest {number(float(np.nanmax(block[0])))})")
    return f"Bands: lowest to highest of {' and '.join(parts)}, as probabilities." if parts else ""


def _routed(result: FeatureRoutingResult) -> str:
    inputs = result.inputs
    pushed = [f"injected {inputs.inject}" if inputs.inject.strip() else ""]
    pushed.append(f"suppressed {inputs.suppress}" if inputs.suppress.strip() else "")
    origin = "" if result.source == "lantern" else f" Read from a file of {result.source}."
    return legible(
        f"Attention from token {result.query} to token {result.position} of {quoted(inputs.prompt)} with "
        f"{', '.join(filter(None, pushed))} at token {result.position} (transcoder {result.transcoder})."
        f"{origin}"
    )


def _rotations(result: FeatureRoutingResult) -> str:
    if not len(result.controls):
        return ""
    low, high = float(result.control_totals.min()), float(result.control_totals.max())
    return f" ({len(result.controls)} random rotations: {number(low)} to {number(high)})"


# --- tables ---


def _only(result: PlanningResult, metric: str) -> "pd.DataFrame":
    frame = result.to_frame()
    return frame.loc[frame["metric"] == metric].reset_index(drop=True)


def ways_frame(result: PlanningResult) -> "pd.DataFrame":
    """Total, direct and mediated change of the logit, one number per row."""
    import pandas as pd  # a third of a second; only tables need it

    parts = {
        "total": result.total_effect("logit"),
        "direct": result.direct_effect("logit"),
        "mediated": result.mediated_effect("logit"),
    }
    rows = [
        {"way": way, "strength": dose, "position": position, "value": float(found[row, column]),
         "unit": "logits"}
        for way, found in parts.items()
        for row, dose in enumerate(result.doses)
        for column, position in enumerate(result.positions)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def own_frame(result: PlanningResult) -> "pd.DataFrame":
    """One row per random draw."""
    import pandas as pd

    return pd.DataFrame({
        "drawn": result.drawn, "token": result.risen, "before": result.risen_before,
        "after": result.risen_after, "rank": result.risen_rank, "unit": "probability",
    })  # fmt: skip


def activations_frame(result: PlanningResult) -> "pd.DataFrame":
    """One row per feature and token."""
    import pandas as pd

    rows = [
        {"feature": feature, "position": position, "token": result.tokens[position].visible,
         "value": float(result.activations[row, column]), "unit": "activation"}
        for row, feature in enumerate(result.features)
        for column, position in enumerate(result.positions)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def _planning(
    result: PlanningResult,
    title: str,
    spec: Mapping[str, Any],
    view: Mapping[str, Any],
    said: list[str],
    reading: str,
    description: str,
    frame: "Callable[[], pd.DataFrame]",
) -> Figure:
    caption = " ".join(part for part in (*said, model_sentence(result.provenance)) if part)
    return analysis_figure(
        result, analysis="planning", title=title, spec=spec, view=view, caption=caption, how_to_read=reading,
        description=description, frame=frame, references=REFERENCES, function="planning",
        arrays=PLANNING_ARRAYS,
    )  # fmt: skip


def _routing(
    result: FeatureRoutingResult,
    title: str,
    spec: Mapping[str, Any],
    view: Mapping[str, Any],
    said: list[str],
    description: str,
) -> Figure:
    caption = " ".join(part for part in (*said, model_sentence(result.provenance)) if part)
    return analysis_figure(
        result, analysis="feature_routing", title=title, spec=spec, view=view, caption=caption,
        how_to_read=ROUTING_READING, description=description, frame=result.to_frame, references=REFERENCES,
        function="feature_routing", arrays=ROUTING_ARRAYS,
    )  # fmt: skip
