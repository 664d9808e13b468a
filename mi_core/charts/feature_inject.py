"""An intervention on features: tokens before and after, other features, and how large the push is."""

from typing import Any

import numpy as np

from mi_core.charts.bars import Bar, bars
from mi_core.charts.lines import Line, lines
from mi_core.charts.text import MINUS, number, token_label
from mi_core.transcoders.inject_result import InjectResult

Spec = dict[str, Any]

CHANGE = f"probability, edited {MINUS} baseline"
ACTIVATION_CHANGE = f"activation, edited {MINUS} baseline"
RATIO = "||delta|| / ||residual||"
SHOWN_TOKENS = 6
"""Tokens whose push is drawn: those with the largest."""
SHOWN_FEATURES = 40
"""Other features that are drawn; the table has all."""


def top_bars(result: InjectResult) -> Spec:
    """Signed bars of the change of probability of the top tokens of both runs.

    Returns:
        Specification without looks; clicks select `cell` with the field index.
    """
    return bars(_top(result), title=CHANGE, unit="probability")


def describe_top(result: InjectResult) -> str:
    """The text alternative of `top_bars`."""
    said = "; ".join(f"{bar.label} {number(bar.value)} ({bar.note})" for bar in _top(result))
    return f"Bars of the change of probability, edited minus baseline: {said}."


def _top(result: InjectResult) -> list[Bar]:
    read = {result.target.id: " (target)"}
    if result.distractor is not None:
        read[result.distractor.id] = " (distractor)"
    items = []
    for token, before, after, ranks in zip(
        result.top_ids.tolist(),
        *result.top_probabilities.tolist(),
        result.top_ranks.T.tolist(),
        strict=True,
    ):
        note = (
            f"token {token}: baseline {number(before)} (rank {ranks[0]}), edited {number(after)} "
            f"(rank {ranks[1]})"
        )
        items.append(Bar(result.vocabulary[token] + read.get(token, ""), after - before, note=note))
    return items


def feature_bars(result: InjectResult) -> Spec:
    """Signed bars of the other features whose activation changes most.

    Returns:
        Specification without looks; clicks select `cell` with the field index, into `feature_names`.
    """
    return bars(_features(result), title=ACTIVATION_CHANGE, unit="activation")


def describe_features(result: InjectResult) -> str:
    """The text alternative of `feature_bars`."""
    said = "; ".join(f"{bar.label} {number(bar.value)} ({bar.note})" for bar in _features(result))
    return f"Bars of the change of other features' activations, edited minus baseline: {said or 'none'}."


def _features(result: InjectResult) -> list[Bar]:
    items = []
    for at, (before, after) in zip(
        result.feature_names[:SHOWN_FEATURES],
        result.feature_activations.T.tolist()[:SHOWN_FEATURES],
        strict=True,
    ):
        token = token_label(at.position, result.tokens[at.position].visible)
        note = f"baseline {number(before)}, edited {number(after)}"
        items.append(Bar(f"{at.feature.text} at {token}", after - before, note=note))
    return items


def push_lines(result: InjectResult) -> Spec:
    """||delta|| / ||residual|| over the layers that are written to, a line per edited token.

    Returns:
        Specification without looks.
    """
    drawn = [
        Line(
            f"token {token_label(int(position), result.tokens[int(position)].visible)}",
            [float(layer) for layer in result.pushed_layers],
            result.delta_ratios[:, column].tolist(),
        )
        for column, position in shown_tokens(result)
    ]
    return lines(drawn, x_title="Layer that is written to", y_title=RATIO, unit="")


def describe_push(result: InjectResult) -> str:
    """The text alternative of `push_lines`."""
    said = []
    for column, position in shown_tokens(result):
        row = int(result.delta_ratios[:, column].argmax())
        said.append(
            f"token {position}: at most {number(float(result.delta_ratios[row, column]))} in layer "
            f"{result.pushed_layers[row]}"
        )
    return f"Lines of the length of what is added, divided by the length of the stream: {'; '.join(said)}."


def shown_tokens(result: InjectResult) -> list[tuple[int, int]]:
    """(column, position) of the tokens that are drawn, in the order of the prompt."""
    if not len(result.pushed_layers):
        return []
    highest = result.delta_ratios.max(0)
    largest = np.argsort(-highest, kind="stable")[:SHOWN_TOKENS].tolist()
    return [
        (column, int(result.pushed_positions[column])) for column in sorted(largest) if highest[column] > 0
    ]
