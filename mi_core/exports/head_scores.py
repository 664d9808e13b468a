"""The figures of head scores, ready to leave."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mi_core.analyses.head_scores_inputs import SCORE_NAMES, SCORES
from mi_core.analyses.head_scores_result import HeadScoresResult
from mi_core.charts import head_scores as charts
from mi_core.exports.analysis_figure import analysis_figure
from mi_core.exports.captions import model_sentence
from mi_core.exports.figure import Figure

if TYPE_CHECKING:
    import pandas as pd

HOW_TO_READ = (
    "The model reads random tokens twice, R R, so that nothing but the repetition can be used. A head "
    "that looks from a token in the second copy to what followed it in the first is an induction head "
    "(Olsson et al., 2022); one that looks to the first copy itself is a duplicate-token head (Wang et "
    "al., 2023). Scores are mean shares of attention. Position 0, where heads rest, is nobody's query and "
    "no key of any score but its own. A label is a threshold, not a discovery, and a head without one may "
    "do what random tokens do not ask for."
)
REFERENCES = ("olsson2022context", "wang2023interpretability")


def map_figure(result: HeadScoresResult, score: str, *, chosen: tuple[int, int] | None = None) -> Figure:
    """All heads by one score."""
    return _figure(
        result, f"All heads by {charts.score_label(score)} score",
        charts.score_map(result, score, chosen=chosen), "map", score,
        caption=_caption(result, score),
    )  # fmt: skip


def strongest_figure(
    result: HeadScoresResult, score: str, *, chosen: tuple[int, int] | None = None
) -> Figure:
    """The strongest heads of one score, with their spread."""
    whiskers = " Whiskers: one standard deviation over sequences." if result.inputs.samples > 1 else ""
    return _figure(
        result, f"Strongest heads by {charts.score_label(score)} score",
        charts.strongest_heads(result, score, chosen=chosen), "strongest", score,
        caption=_caption(result, score) + whiskers,
    )  # fmt: skip


def _figure(
    result: HeadScoresResult, title: str, spec: Mapping[str, Any], figure: str, score: str, *, caption: str
) -> Figure:
    return analysis_figure(
        result,
        analysis="head_scores",
        title=title,
        spec=spec,
        view={"figure": figure, "score": score},
        caption=caption,
        how_to_read=HOW_TO_READ,
        description=charts.describe_scores(result, score),
        frame=lambda: score_table(result, score),
        references=REFERENCES,
        function="head_scores",
        arrays=("samples",),
    )


def score_table(result: HeadScoresResult, score: str) -> "pd.DataFrame":
    """The rows of the result's table with one score."""
    import pandas as pd

    frame = result.to_frame()
    return pd.DataFrame(frame[frame["score"] == score]).reset_index(drop=True)


def _caption(result: HeadScoresResult, score: str) -> str:
    meaning = SCORES[SCORE_NAMES.index(score)].meaning
    seed, samples = result.inputs.seed, result.inputs.samples
    seeds = f"seed {seed}" if samples == 1 else f"seeds {seed} to {seed + samples - 1}"
    bos = "a BOS token and " if result.bos else ""
    return (
        f"{meaning} Share of attention, 0 = none, 1 = all of it. Mean over {samples} sequences of "
        f"{bos}twice the same {result.length} random tokens ({seeds}). A head is called by a score from "
        f"{result.inputs.threshold:g} on. {model_sentence(result.provenance)}"
    )
