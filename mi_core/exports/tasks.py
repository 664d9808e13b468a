"""The figures of tasks, ready to leave."""

from typing import TYPE_CHECKING

from mi_core.analyses.head_ablation_result import HeadAblationResult
from mi_core.analyses.task_baseline_result import TaskBaselineResult
from mi_core.analyses.task_heads_result import DIRECT, TaskHeadsResult
from mi_core.charts import tasks as charts
from mi_core.exports.analysis_figure import analysis_figure
from mi_core.exports.captions import model_sentence
from mi_core.exports.figure import Figure

if TYPE_CHECKING:
    import pandas as pd

REFERENCES = ("wang2023interpretability",)
BAND = "Bands are 95 %, Student's t over prompts, for each head by itself, not corrected for many heads."

BASELINE_READING = (
    "A prompt counts as right when the right answer's logit at the last token is above the wrong one's "
    "(Wang et al., 2023). The counterfactuals ask the same two answers of prompts in which what decides is "
    "gone or turned round: where it is gone, a difference near 0 says that neither answer is favoured anyway."
)
ABLATION_READING = (
    "Each cell replaces one head's output (z, before W_O) at every position of every prompt and reads how "
    "the logit difference changes: ablated minus baseline. Below 0 (orange): without the head the task goes "
    "worse. Above 0 (blue): the head worked against it. The effect is total: later heads that step in are "
    "part of it, so a small effect does not prove that a head does nothing (Wang et al., 2023)."
)
HEADS_READING = (
    "Read at the last token. Attention is a share of the head's weight. The direct effect is what the "
    "head's output adds to the logit difference through the final norm, its scale held, and the "
    "unembedding; what later layers make of it is not in it (Wang et al., 2023)."
)
MODES = {
    "zero": "zeros",
    "mean": "its mean over the set's prompts of the same template and length, position by position",
    "resample": "its output in the counterfactual prompt of the same pair",
}


def baseline_figure(result: TaskBaselineResult) -> Figure:
    """How well the model does the task."""
    share, low, high = result.accuracy()
    mean, *band = result.difference()
    caption = (
        f"Right minus wrong answer's logit at the last token, n = {result.n} prompts; 0 = neither is "
        "favoured. "
        f"Accuracy {share:.1%} (95 % Wilson band {low:.1%} to {high:.1%}); mean difference {mean:.3g} "
        f"logits ({band[0]:.3g} to {band[1]:.3g}). {result.task.note} {model_sentence(result.provenance)}"
    )
    return analysis_figure(
        result,
        analysis="task_baseline",
        title="Does the model do this task?",
        spec=charts.baseline_bars(result),
        view={"figure": "baseline"},
        caption=caption,
        how_to_read=BASELINE_READING,
        description=caption,
        frame=result.to_frame,
        references=REFERENCES,
        function="task_baseline",
        arrays=("answer_logits", "wrong_logits", "counterfactual_differences"),
    )


def ablation_figure(
    result: HeadAblationResult, *, ranked: bool = False, chosen: tuple[int, int] | None = None
) -> Figure:
    """Every head's effect, as a map or as ranked bars."""
    mean, low, high = result.baseline_band()
    draw = charts.ablation_bars if ranked else charts.ablation_map
    caption = (
        f"Mean change of the logit difference when one head's output is replaced by "
        f"{MODES[result.inputs.mode]}; n = {result.n} prompts, 0 = no change, baseline {mean:.3g} logits "
        f"({low:.3g} to {high:.3g}). {BAND} {result.task.note} {model_sentence(result.provenance)}"
    )
    return analysis_figure(
        result,
        analysis="head_ablation",
        title="Heads whose ablation changes most" if ranked else "Which heads does the task need?",
        spec=draw(result, chosen=chosen),
        view={"figure": "ranked" if ranked else "map"},
        caption=caption,
        how_to_read=ABLATION_READING,
        description=charts.describe_ablation(result),
        frame=result.to_frame,
        references=REFERENCES,
        function="head_ablation",
        arrays=("baseline", "effects"),
    )


def heads_figure(
    result: TaskHeadsResult, what: str, *, ranked: bool = False, chosen: tuple[int, int] | None = None
) -> Figure:
    """Every head's direct effect, or its attention to a role, as a map or as ranked bars."""
    draw = charts.heads_bars if ranked else charts.heads_map
    label = charts.heads_label(what)
    zero = (
        "0 = writes neither answer" if what == DIRECT else "0 = does not look there, 1 = looks nowhere else"
    )
    caption = (
        f"Mean {label}, n = {result.n} prompts; {zero}. {BAND} {result.task.note} "
        f"{model_sentence(result.provenance)}"
    )
    return analysis_figure(
        result,
        analysis="task_heads",
        title=f"Strongest heads: {label}" if ranked else f"{label[0].upper()}{label[1:]}",
        spec=draw(result, what, chosen=chosen),
        view={"figure": "ranked" if ranked else "map", "what": what},
        caption=caption,
        how_to_read=HEADS_READING,
        description=charts.describe_heads(result, what),
        frame=lambda: _rows(result, what),
        references=REFERENCES,
        function="task_heads",
        arrays=("attention", "direct", "differences"),
    )


def _rows(result: TaskHeadsResult, what: str) -> "pd.DataFrame":
    """The rows of the result's table with one quantity."""
    import pandas as pd

    frame = result.to_frame()
    wanted = "direct effect" if what == DIRECT else charts.heads_label(what)
    return pd.DataFrame(frame[frame["quantity"] == wanted]).reset_index(drop=True)
