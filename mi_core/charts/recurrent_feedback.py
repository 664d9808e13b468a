"""The drawing of recurrent feedback: P(target) of every couplet, before and after."""

from typing import Any

from mi_core.analyses.recurrent_feedback_result import RecurrentFeedbackResult
from mi_core.charts.bars import Bar, bars
from mi_core.charts.text import isolated, legible, number

Spec = dict[str, Any]

RUNS = ("baseline", "recurrent")


def target_bars(result: RecurrentFeedbackResult) -> Spec:
    """Two bars per couplet."""
    return bars(
        [
            Bar(
                f"{column + 1} {isolated(legible(couplet.target))} {run}",
                float(result.target_probabilities[index, column]),
                group=f"{column + 1} {legible(couplet.target)}: {result.outcomes[column]}",
                note=_note(result, index, column),
            )
            for column, couplet in enumerate(result.inputs.couplets[: result.n_couplets])
            for index, run in enumerate(RUNS)
        ],
        title="P(target) after the first line",
        unit="",
        diverging=False,
    )


def _note(result: RecurrentFeedbackResult, index: int, column: int) -> str:
    return f"rank {int(result.target_ranks[index, column])}; {legible(result.lines[index][column])}"


def describe_bars(result: RecurrentFeedbackResult) -> str:
    """A sentence that stands for the bars."""
    before, after = result.target_probabilities.mean(1).tolist()
    return (
        f"Bars of P(target) for {result.n_couplets} couplets; mean {number(before)} as the model is, "
        f"{number(after)} with the repeated block."
    )
