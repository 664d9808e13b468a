"""The figures of steering: drawing, table, caption and recipe together, ready to leave."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mi_core.analyses.ablation_sweep_inputs import EFFECT_METRICS
from mi_core.analyses.steering_convergence_result import ARRAYS as CONVERGENCE_ARRAYS
from mi_core.analyses.steering_convergence_result import SteeringConvergenceResult
from mi_core.analyses.steering_dose_result import ARRAYS as DOSE_ARRAYS
from mi_core.analyses.steering_dose_result import SteeringDoseResult
from mi_core.analyses.steering_layers_result import ARRAYS as LAYERS_ARRAYS
from mi_core.analyses.steering_layers_result import SteeringLayersResult
from mi_core.analyses.steering_routing_result import ARRAYS as ROUTING_ARRAYS
from mi_core.analyses.steering_routing_result import SteeringRoutingResult
from mi_core.charts import steering as charts
from mi_core.charts.routing import describe_routing, routing_chart
from mi_core.charts.text import legible, number
from mi_core.exports.analysis_figure import analysis_figure
from mi_core.exports.captions import model_sentence, quoted
from mi_core.exports.figure import Figure

if TYPE_CHECKING:
    import pandas as pd

Steered = SteeringDoseResult | SteeringLayersResult | SteeringConvergenceResult | SteeringRoutingResult

REFERENCES = ("turner2023activation", "rimsky2024steering")
DOSE_READING = (
    "The vector, times the coefficient, is added to the model's stream at one layer, and the run goes on "
    "from there. The curve is what the model then says at the last token; 0 on the horizontal axis is the"
    " model as it is. The band is the same done with random directions of the same length: an effect "
    "inside it is one that any push of that size has. Doses in between are read off straight lines "
    "between neighbours, and never outside the doses that were run (Turner et al., 2023)."
)
RATIO_READING = (
    "How long the added vector is, relative to the states that it is added to (median over the steered "
    "tokens of the length after that layer). The rule is the median distance between the states of two "
    "tokens of this prompt: an edit above it moves a state farther than from one token to another, and "
    "what the model does there says little about what it does on text."
)
LAYERS_READING = (
    "The same coefficient at each layer in turn. A vector made from prompts is each layer's own, so its "
    "length changes with the layer; the table has it relative to the state."
)
COSINE_READING = (
    "Row: the layer at which the vector is added. Column: the layer after which the last token's state is"
    " compared with the one of the unsteered run, the edit included. 1 = the same direction. A push "
    "counts as absorbed at the first later layer whose cosine reaches the threshold. A high cosine is not"
    " a return: look at the distance too."
)
DISTANCE_READING = (
    "The same states: how far the steered one is from the unsteered one, relative to the length of the "
    "latter. 0 = it is back. Left of the steered layer nothing has happened yet."
)
ROUTING_READING = (
    "For every head the attention that goes to the steered tokens, in the steered run minus in the "
    "baseline. Heads in the steered layer and below come before the edit and cannot change."
)


def dose_figure(result: SteeringDoseResult, metric: str) -> Figure:
    """The dose curve of one metric."""
    info = EFFECT_METRICS[metric]
    said = [
        _what(result, f"at layer {result.layer}"),
        f"Curve: {info.label} [{info.unit}] over coefficients.",
    ]
    if result.inputs.controls:
        n = result.inputs.controls
        said.append(f"Band: lowest to highest of {n} random directions of the same length.")
    if metric == result.inputs.metric and result.inputs.wished is not None:
        dose, wished = result.wished_dose, number(result.inputs.wished)
        found = (
            f"at coefficient {number(dose)}" if dose is not None else "nowhere within the doses that were run"
        )
        said.append(f"It reaches {wished} {found} (straight lines between doses).")
    return _figure(
        result, "steering_dose", DOSE_ARRAYS, f"Dose and response: {info.label}",
        charts.dose_chart(result, metric), {"figure": "dose", "metric": metric}, said, DOSE_READING,
        charts.describe_dose(result, metric), lambda: _only(result.to_frame(), metric),
    )  # fmt: skip


def ratio_figure(result: SteeringDoseResult) -> Figure:
    """How long the edit is."""
    off = ", ".join(f"{dose:g}" for dose in result.off)
    said = [
        _what(result, f"at layer {result.layer}"),
        f"Length of the vector {number(result.norm)}; 0 = nothing is added.",
        f"Off the prompt's own distribution: coefficients {off}." if off else "No dose is above the rule.",
    ]
    return _figure(
        result, "steering_dose", DOSE_ARRAYS, "How large the edit is", charts.ratio_chart(result),
        {"figure": "ratio"}, said, RATIO_READING, charts.describe_ratio(result),
        lambda: _ratios(result),
    )  # fmt: skip


def layers_figure(result: SteeringLayersResult, metric: str) -> Figure:
    """One metric, steered at each layer."""
    info = EFFECT_METRICS[metric]
    said = [
        _what(result, f"at one layer at a time, coefficient {result.inputs.coefficient:g}"),
        f"Line: {info.label} [{info.unit}]; rule: the baseline.",
    ]
    return _figure(
        result, "steering_layers", LAYERS_ARRAYS, f"Which layer: {info.label}",
        charts.layers_chart(result, metric), {"figure": "layers", "metric": metric}, said, LAYERS_READING,
        charts.describe_layers(result, metric), lambda: _only(result.to_frame(), metric),
    )  # fmt: skip


def convergence_figure(result: SteeringConvergenceResult, quantity: str) -> Figure:
    """The matrix of cosines or of relative distances."""
    cosine = quantity == "cosine"
    named = [f"L{layer}: {'none' if at is None else f'L{at}'}" for layer, at in enumerate(result.absorption)]
    said = [_what(result, f"at one layer at a time, coefficient {result.inputs.coefficient:g}")]
    if cosine:
        said.append(
            f"Steered layer: first later layer with a cosine of at least {result.inputs.threshold:g}: "
            f"{', '.join(named)}."
        )
    else:
        said.append("0 = the state is where it would have been; 1 = as far away as that state is long.")
    return _figure(
        result, "steering_convergence", CONVERGENCE_ARRAYS,
        "Direction: cosine with the unsteered run" if cosine else "Distance from the unsteered run",
        charts.convergence_chart(result, quantity), {"figure": "convergence", "quantity": quantity}, said,
        COSINE_READING if cosine else DISTANCE_READING, charts.describe_convergence(result, quantity),
        result.to_frame,
    )  # fmt: skip


def routing_figure(result: SteeringRoutingResult) -> Figure:
    """Every head's change of attention to the steered tokens."""
    who = (
        "the last token"
        if result.inputs.queries == "last"
        else "the last steered token and all after it (mean)"
    )
    said = [
        _what(result, f"at layer {result.layer}, coefficient {result.inputs.coefficient:g}"),
        f"Cells: attention from {who} to the steered tokens, steered minus baseline; 0 = no change. "
        f"Absolute changes add up to {number(result.total)}.",
    ]
    return _figure(
        result, "steering_routing", ROUTING_ARRAYS, "Attention to the steered tokens",
        routing_chart(result.change), {"figure": "routing"}, said, ROUTING_READING,
        describe_routing(result.change), result.to_frame,
    )  # fmt: skip


def _only(frame: "pd.DataFrame", metric: str) -> "pd.DataFrame":
    return frame.loc[frame["metric"] == metric].dropna(axis="columns", how="all").reset_index(drop=True)


def _ratios(result: SteeringDoseResult) -> "pd.DataFrame":
    """One row per dose."""
    import pandas as pd  # a third of a second; only tables need it

    return pd.DataFrame({"dose": result.doses, "norm_ratio": result.ratio, "unit": "ratio"})


def _figure(
    result: Steered,
    function: str,
    arrays: tuple[str, ...],
    title: str,
    spec: Mapping[str, Any],
    view: Mapping[str, Any],
    said: list[str],
    reading: str,
    description: str,
    frame: Any,
) -> Figure:
    return analysis_figure(
        result, analysis=function, title=title, spec=spec, view=view,
        caption=" ".join([*said, model_sentence(result.provenance)]).strip(), how_to_read=reading,
        description=description, frame=frame, references=REFERENCES, function=function, arrays=arrays,
    )  # fmt: skip


def _what(result: Steered, where: str) -> str:
    n = len(result.positions)
    tokens = f"token {result.positions[0]}" if n == 1 else f"{n} tokens"
    site = {"resid_post": "the state", "attn_out": "the attention output", "mlp_out": "the MLP output"}
    read = f"answer {legible(result.answer.visible)}"
    if result.distractor is not None:
        read += f", distractor {legible(result.distractor.visible)}"
    return (
        f"Steering of {quoted(result.inputs.prompt)}, n = 1 prompt, {read}. Added to "
        f"{site[result.inputs.site]} of {tokens} {where}: {legible(result.made)}"
    )
