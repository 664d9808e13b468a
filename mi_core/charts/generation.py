"""The drawings of a generation: the two texts under each other, and KL along the default one."""

import math
from typing import Any

import numpy as np

from mi_core.analyses.generation_result import SERIES, GenerationResult
from mi_core.charts.colours import ColourScale
from mi_core.charts.lines import Line, lines
from mi_core.charts.text import legible, number
from mi_core.charts.token_layout import letters
from mi_core.charts.token_text import TokenRow, token_rows

Spec = dict[str, Any]

ROW_LETTERS = 48
"""Letters of a text per line: with its label it fits where `token_rows` draws."""


def generation_texts(result: GenerationResult, row: int) -> Spec:
    """Both continuations of one seed, the same steps under each other; changed tokens are coloured.

    Args:
        result: the numbers.
        row: which seed.
    """
    return token_rows(
        [_text_row(result, row, series, steps) for steps in _pieces(result, row) for series in SERIES],
        surprise_scale(result),
    )


def _text_row(result: GenerationResult, row: int, series: str, steps: range) -> TokenRow:
    ids = result.ids(series)[row, steps.start : steps.stop].tolist()
    own = [step for step, token_id in zip(steps, ids, strict=True) if token_id >= 0]
    values = [
        -float(result.log_probabilities(series)[row, step]) if result.changed[row, step] else math.nan
        for step in own
    ]
    label = f"{series} {steps.start + 1}" + (f" to {steps.stop}" if len(steps) > 1 else "")
    return TokenRow(label, [_shown(result, series, row, step) for step in own], values, start=steps.start)


def _shown(result: GenerationResult, series: str, row: int, step: int) -> str:
    return legible(result.visible(int(result.ids(series)[row, step])))


def _pieces(result: GenerationResult, row: int) -> list[range]:
    """Steps cut so that both texts fit into a line."""
    there = (result.default_ids[row] >= 0) | (result.edited_ids[row] >= 0)
    n_steps = int(there.sum())
    pieces: list[range] = []
    start, used = 0, dict.fromkeys(SERIES, 0)
    for step in range(n_steps):
        wide = {
            series: letters(_shown(result, series, row, step)) if result.ids(series)[row, step] >= 0 else 0
            for series in SERIES
        }
        if step > start and any(used[series] + wide[series] > ROW_LETTERS for series in SERIES):
            pieces.append(range(start, step))
            start, used = step, dict.fromkeys(SERIES, 0)
        used = {series: used[series] + wide[series] for series in SERIES}
    return [*pieces, range(start, n_steps)]


def surprise_scale(result: GenerationResult) -> ColourScale:
    """From 0 (certain) to the largest -log P of a changed token, at least 1 nat."""
    found = [-result.log_probabilities(series)[result.changed] for series in SERIES]
    values = np.concatenate(found)
    finite = values[np.isfinite(values)]
    return ColourScale("-log P of a changed token", "nats", (0.0, float(max([1.0, *finite]))))


def describe_texts(result: GenerationResult, row: int) -> str:
    """A sentence that stands for the two texts."""
    first = int(result.first_difference[row])
    said = "They are the same." if first < 0 else f"They first differ at step {first + 1}."
    default, edited = result.text("default", row), result.text("edited", row)
    return legible(f"Default: {default[:400]}. Edited: {edited[:400]}. {said}")


def kl_lines(result: GenerationResult) -> Spec:
    """KL(default || edited) at every step of the default continuation, a line per seed."""
    steps = range(1, result.inputs.steps + 1)
    named = len(result.seeds) > 1
    return lines(
        [
            Line(f"seed {seed}" if named else "", list(steps), result.kl[row].tolist())
            for row, seed in enumerate(result.seeds)
        ],
        x_title="step of the default continuation",
        y_title="KL(default || edited)",
        unit="nats",
    )


def describe_kl(result: GenerationResult) -> str:
    """A sentence that stands for the lines."""
    finite = result.kl[np.isfinite(result.kl)]
    largest = number(float(finite.max())) if len(finite) else "none"
    return (
        f"Lines of KL over {result.inputs.steps} steps for {len(result.seeds)} seeds; largest {largest} nats."
    )
