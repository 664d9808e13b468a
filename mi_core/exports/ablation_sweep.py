"""The figures of sweeps: heatmap, ranking, joint effect, dose curve."""

from typing import TYPE_CHECKING, Any

from mi_core.analyses.ablation_sweep_inputs import EFFECT_METRICS
from mi_core.analyses.ablation_sweep_result import AblationSweepResult, JointAblationResult
from mi_core.analyses.attention_dose_result import AttentionDoseResult
from mi_core.charts import ablation_sweep as charts
from mi_core.charts import attention_dose as dose_charts
from mi_core.charts.text import legible, number
from mi_core.exports.analysis_figure import analysis_figure
from mi_core.exports.captions import model_sentence, quoted
from mi_core.exports.figure import Figure

if TYPE_CHECKING:
    import pandas as pd

REFERENCES = ("wang2023interpretability", "heimersheim2024use")

_HOW = {
    "zero": "set to zero", "mean": "set to its mean over reference prompts",
    "resample": "set to its value in the second prompt", "cut": "cut before the softmax",
}  # fmt: skip

SWEEP_READING = (
    "Each cell is a run of its own in which one part was taken out; its colour is the metric of that run "
    "minus "
    "the metric of the baseline, at the last token. Blue: the number rose; orange: it fell. An orange "
    "P(answer) "
    "means that the part helped the answer. Parts can stand in for each other, so a part without effect may "
    "still do the work, and zero is a value that the model has never seen: mean and resample are milder. "
    "The noise floor is the median of |effect| over all cells: half of the parts do no more than that. "
    "The runs themselves have no randomness."
)
JOINT_READING = (
    "Each intervention of the list was done alone, and then all were done together. If they did not "
    "interact, "
    "the joint effect would be the sum of the single effects. A larger joint effect means that parts stand "
    "in "
    "for each other; a smaller one that they do their work one after the other. Probabilities and ranks do "
    "not "
    "add up even without interaction: read the logit for this."
)
DOSE_READING = (
    "The attention of one query to one key is changed after the softmax, and the rest of its row is scaled "
    "so "
    "that the row sums to 1 again. Each point is a run of its own; between the points the line is "
    "straight, and "
    "so is the level that is read off it. Factor 1 is the baseline; factor 0 is the cut edge."
)


def sweep_figure(
    result: AblationSweepResult, metric: str, *, chosen: tuple[int, int] | None = None
) -> Figure:
    """The heatmap of all effects."""
    return _sweep(
        result, metric, f"Effect of taking out each {charts.NAMES[result.inputs.what]}",
        charts.effect_heatmap(result, metric, chosen=chosen), "heatmap",
        charts.describe_effects(result, metric),
    )  # fmt: skip


def ranking_figure(
    result: AblationSweepResult, metric: str, *, chosen: tuple[int, int] | None = None
) -> Figure:
    """The largest effects as bars."""
    return _sweep(
        result, metric, "Largest effects", charts.effect_bars(result, metric, chosen=chosen), "ranking",
        charts.describe_ranking(result, metric),
    )  # fmt: skip


def joint_figure(result: JointAblationResult, metric: str) -> Figure:
    """Sum of single effects against the joint effect."""
    total, joint = result.sum_of_singles(metric), result.joint_effect(metric)
    unit, index = EFFECT_METRICS[metric].unit, result.metrics.index(metric)
    caption = (
        f"{quoted(result.inputs.prompt)} \N{RIGHTWARDS ARROW} {legible(result.answer.visible)}: effect "
        "(edited "
        f"minus baseline, 0 = none) on {EFFECT_METRICS[metric].label} [{unit}], "
        f"n = {len(result.interventions)} interventions. Baseline {number(float(result.baseline[index]))}; "
        f"sum of single effects {number(total)}, joint effect {number(joint)}. "
        f"{model_sentence(result.provenance)}"
    )
    return analysis_figure(
        result, analysis="joint_ablation", title="Sum of single effects and joint effect",
        spec=charts.joint_bars(result, metric), view={"metric": metric}, caption=caption,
        how_to_read=JOINT_READING, description=charts.describe_joint(result, metric),
        frame=lambda: _table(result, metric), references=REFERENCES, function="joint_ablation",
        arrays=("baseline", "single", "joint"),
    )  # fmt: skip


def dose_figure(result: AttentionDoseResult, metric: str) -> Figure:
    """The dose curve of an edge."""
    spec, said = dose_charts.dose_lines(result, metric), dose_charts.describe_dose(result, metric)
    return _dose(result, "Dose curve of the edge", spec, {"metric": metric}, said, metric)


def attention_figure(result: AttentionDoseResult) -> Figure:
    """The attention that came out at every level."""
    said = f"Line of the measured attention of {result.edge} over the {dose_charts.x_title(result)}."
    spec = dose_charts.attention_lines(result)
    return _dose(result, "Attention that came out", spec, {"what": "attention"}, said, "attention")


def _sweep(
    result: AblationSweepResult, metric: str, title: str, spec: Any, drawn: str, description: str
) -> Figure:
    return analysis_figure(
        result, analysis="ablation_sweep", title=title, spec=spec,
        view={"metric": metric, "drawn": drawn}, caption=_sweep_caption(result, metric),
        how_to_read=SWEEP_READING, description=description, frame=lambda: _table(result, metric),
        references=REFERENCES, function="ablation_sweep", arrays=("baseline", "values", "top_ids", "done"),
    )  # fmt: skip


def _sweep_caption(result: AblationSweepResult, metric: str) -> str:
    inputs, index = result.inputs, result.metrics.index(metric)
    where = " at the last token only" if inputs.positions == "last" and inputs.how != "cut" else ""
    unread = " (nobody reads it, the token itself neither)" if inputs.what == "keys" else ""
    listed = f" The baseline already has {quoted(inputs.interventions)}." if inputs.interventions else ""
    undone = int((~result.done).sum())
    parts = [
        f"{quoted(inputs.prompt)} \N{RIGHTWARDS ARROW} {legible(result.answer.visible)}: one "
        f"{charts.NAMES[inputs.what]} at a time{unread} {_HOW[inputs.how]}{where}; n = {result.done.sum()} "
        "runs.",
        f"Effect = edited minus baseline on {charts.metric_name(result, metric)} "
        f"[{EFFECT_METRICS[metric].unit}]; 0 = no effect; baseline {number(float(result.baseline[index]))}.",
        f"Noise floor (median of |effect|): {number(result.floor(metric))}.",
        result.reference_note,
        f"{undone} hatched cells were not run." if undone else "",
    ]
    return " ".join(part for part in parts if part) + f"{listed} {model_sentence(result.provenance)}"


def _dose(
    result: AttentionDoseResult, title: str, spec: Any, view: dict[str, str], said: str, metric: str
) -> Figure:
    return analysis_figure(
        result, analysis="attention_dose", title=title, spec=spec, view=view,
        caption=_dose_caption(result, metric), how_to_read=DOSE_READING, description=said,
        frame=lambda: _table(result, metric), references=REFERENCES, function="attention_dose",
        arrays=("baseline", "values", "attention"),
    )  # fmt: skip


def _dose_caption(result: AttentionDoseResult, metric: str) -> str:
    inputs = result.inputs
    query = len(result.tokens) - 1 if inputs.query is None else inputs.query
    reader, read = (legible(result.tokens[position].visible) for position in (query, inputs.key))
    measured = "attention, mean over the chosen heads [share]"
    what = measured if metric == "attention" else f"effect on {EFFECT_METRICS[metric].label}"
    unit = (
        "" if metric == "attention" else f" [{EFFECT_METRICS[metric].unit}], edited minus baseline, 0 = none"
    )
    wished, dose = "", result.wished_dose
    if inputs.wished is not None and metric == inputs.metric:
        found = "no level in this range has it" if dose is None else f"at level {number(dose)}"
        wished = f" Wished effect {number(inputs.wished)}: {found}."
    return (
        f"{quoted(inputs.prompt)} \N{RIGHTWARDS ARROW} {legible(result.answer.visible)}: {result.edge}, "
        "token "
        f"{query} ({reader}) reading token {inputs.key} ({read}). Shown: {what}{unit}; n = "
        f"{len(inputs.levels)} "
        f"levels. Attention at baseline {number(result.base_attention)}.{wished} "
        f"{model_sentence(result.provenance)}"
    )


def _table(
    result: AblationSweepResult | JointAblationResult | AttentionDoseResult, metric: str
) -> "pd.DataFrame":
    frame = result.to_frame()
    return frame.loc[frame["metric"] == metric].reset_index(drop=True)
