"""The figure of recurrent feedback, and its table of lines."""

from typing import TYPE_CHECKING

from mi_core.analyses.recurrent_feedback_result import RecurrentFeedbackResult
from mi_core.charts import recurrent_feedback as drawings
from mi_core.charts.text import number
from mi_core.exports.analysis_figure import analysis_figure
from mi_core.exports.captions import model_sentence
from mi_core.exports.figure import Figure

if TYPE_CHECKING:
    import pandas as pd

READING = (
    "Each couplet's first line is continued greedily by the model as it is (baseline) and by the model with "
    "a block of layers run again (recurrent). Without feedback the block's output is its next input. With a "
    "strength, that many unit lengths of the mean embedding of the rhymes are added to the block's first "
    "input; every round then begins at the same input, so the depth changes nothing. A couplet is RESCUED if "
    "only the recurrent line ends in a rhyme, REGRESS if only the baseline does, OK if both do. Bars: "
    "probability of the target's first token right after the first line."
)


def recurrent_figure(result: RecurrentFeedbackResult) -> Figure:
    """P(target) of every couplet, before and after."""
    asked, (before, after) = result.inputs, result.hits.sum(1).tolist()
    alone = result.end == result.start + 1
    layers = f"layer {result.start}" if alone else f"layers {result.start} to {result.end - 1}"
    how = (
        f"{layers} run {asked.depth} times"
        if not asked.strength
        else f"{number(asked.strength)} x the rhyme direction added before {layers}, {asked.mode}"
    )
    caption = (
        f"Probability of the target's first token after the first line, n = {result.n_couplets} couplets; 0 "
        f"= impossible. Recurrent: {how}. Second lines that end in a rhyme: {before} as the model is, "
        f"{after} recurrent. {model_sentence(result.provenance)}"
    )
    return analysis_figure(
        result, analysis="recurrent_feedback", title="Recurrent feedback on couplets",
        spec=drawings.target_bars(result), view={"figure": "targets"}, caption=caption, how_to_read=READING,
        description=drawings.describe_bars(result), frame=result.to_frame, function="recurrent_feedback",
        arrays=("target_probabilities", "hits"),
    )  # fmt: skip


def lines_table(result: RecurrentFeedbackResult) -> "pd.DataFrame":
    """Both second lines of every couplet, as people read them."""
    import pandas as pd

    return pd.DataFrame(
        {
            "first line": [one.line.strip() for one in result.inputs.couplets[: result.n_couplets]],
            "target": [one.target for one in result.inputs.couplets[: result.n_couplets]],
            "baseline": list(result.lines[0]),
            "recurrent": list(result.lines[1]),
            "result": list(result.outcomes),
        }
    )
