"""The figures of a prediction sweep: drawing, table, caption, checks and recipe together, ready to leave."""

from typing import TYPE_CHECKING

from mi_core.analyses.prediction_sweep_result import PredictionSweepResult
from mi_core.charts import prediction_sweep as charts
from mi_core.exports import captions_lens
from mi_core.exports.analysis_figure import analysis_figure
from mi_core.exports.figure import Figure
from mi_core.exports.references import LOGIT_LENS

if TYPE_CHECKING:
    import pandas as pd

ARRAYS = ("top_ids", "answer_ids", "answer_log_probability", "top_probabilities")


def sweep_figure(
    result: PredictionSweepResult, columns: range, *, chosen: tuple[int, int] | None = None
) -> Figure:
    """Layers by prompts; `columns` says which prompts, `chosen` is (layer, case index)."""
    return analysis_figure(
        result,
        analysis="prediction_sweep",
        title="Where the right answer appears",
        spec=charts.sweep_heatmap(result, columns, chosen=chosen),
        view={"figure": "sweep", "columns": [columns.start, columns.stop]},
        caption=captions_lens.sweep_caption(result, columns),
        how_to_read=captions_lens.SWEEP,
        description=charts.describe_sweep(result, columns),
        frame=lambda: sweep_table(result, columns),
        references=LOGIT_LENS,
        function="prediction_sweep",
        arrays=ARRAYS,
    )


def depth_figure(result: PredictionSweepResult) -> Figure:
    """How many prompts stabilise at which depth."""
    return analysis_figure(
        result,
        analysis="prediction_sweep",
        title="Crystallisation depth",
        spec=charts.depth_histogram(result),
        view={"figure": "depth"},
        caption=captions_lens.depth_caption(result),
        how_to_read=captions_lens.DEPTH,
        description=charts.describe_histogram(result),
        frame=lambda: depth_table(result),
        references=LOGIT_LENS,
        function="prediction_sweep",
        arrays=("top_ids", "answer_ids"),
    )


def sweep_table(result: PredictionSweepResult, columns: range) -> "pd.DataFrame":
    """The rows of the result's table that a grid shows."""
    import pandas as pd

    frame = result.to_frame()
    shown = [result.swept[column].index for column in columns]
    return pd.DataFrame(frame[frame["case"].isin(shown)]).reset_index(drop=True)


def depth_table(result: PredictionSweepResult) -> "pd.DataFrame":
    """One row per prompt: case, prompt, answer, appears, stabilises, depth (empty = never)."""
    import pandas as pd

    frame = pd.DataFrame(result.to_frame()).drop_duplicates("case")
    names = ["case", "prompt", "answer", "appears", "stabilises", "depth"]
    return pd.DataFrame(frame[names]).reset_index(drop=True)
