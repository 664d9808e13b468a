"""The drawings of the next token: bars of the most probable ones, and the text coloured by surprise."""

import math
from typing import Any

from mi_core.analyses.next_token_result import NextTokenResult
from mi_core.charts.bars import Bar, bars
from mi_core.charts.colours import ColourScale
from mi_core.charts.text import isolated, legible, number
from mi_core.charts.token_text import token_text

Spec = dict[str, Any]

MAX_BARS = 30
"""Rows that are drawn; the table has all."""


def next_token_bars(result: NextTokenResult) -> Spec:
    """Probability of the most probable tokens, and of target and distractor wherever they rank."""
    return bars(
        [_bar(result, row) for row in drawn_rows(result)],
        title="Probability", unit="", diverging=False,
    )  # fmt: skip


def drawn_rows(result: NextTokenResult) -> list[int]:
    """Rows of the table that are drawn: the first ones, and always target and distractor."""
    return [row for row, role in enumerate(result.roles) if row < MAX_BARS or role != "top"]


def _bar(result: NextTokenResult, row: int) -> Bar:
    token, rank = result.visible(int(result.ids[row])), int(result.ranks[row])
    role = "" if result.roles[row] == "top" else f" ({result.roles[row]})"
    note = f"log-probability {number(float(result.log_probabilities[row]))} nats, rank {rank}"
    note += f", logit {number(float(result.logits[row]))}, id {int(result.ids[row])}"
    return Bar(f"{rank} {isolated(legible(token))}{role}", float(result.probabilities[row]), note=note)


def surprise_text(result: NextTokenResult, *, chosen: int | None = None) -> Spec:
    """The prompt, every token coloured by its surprise in nats; the first has none.

    Args:
        result: of a prompt.
        chosen: position to outline.
    """
    return token_text(
        [token.visible for token in result.tokens],
        result.surprise.tolist(),
        surprise_scale(result),
        chosen=chosen,
        notes=[_note(result, position) for position in range(len(result.tokens))],
    )


def surprise_scale(result: NextTokenResult) -> ColourScale:
    """From 0 (certain) to the largest surprise, at least 1 nat."""
    finite = [value for value in result.surprise.tolist() if math.isfinite(value)]
    return ColourScale("Surprise", "nats", (0.0, max([1.0, *finite])))


def _note(result: NextTokenResult, position: int) -> str:
    """What the model expected instead, for the tooltip."""
    if position == 0:
        return "first token: nothing predicts it"
    said = [
        f"{isolated(result.visible(token_id))} {math.exp(log_probability):.1%}"
        for token_id, log_probability in zip(
            result.alternative_ids[position].tolist(),
            result.alternative_log_probabilities[position].tolist(),
            strict=True,
        )
        if token_id >= 0
    ]
    own = math.exp(float(result.token_log_probabilities[position]))
    return f"P {own:.1%}, rank {int(result.token_ranks[position])}; other choices: {', '.join(said)}"


def describe_next(result: NextTokenResult) -> str:
    """A sentence that stands for the bars."""
    top = [
        f"{result.visible(int(result.ids[row]))} {result.probabilities[row]:.1%}"
        for row in drawn_rows(result)[:5]
    ]
    return legible(f"Most probable next tokens: {', '.join(top)}.")


def describe_surprise(result: NextTokenResult) -> str:
    """A sentence that stands for the coloured text."""
    if len(result.tokens) < 2:
        return "A single token, which nothing predicts."
    finite = result.surprise[1:]
    worst = int(finite.argmax()) + 1
    return legible(
        f"Prompt of {len(result.tokens)} tokens coloured by surprise; mean {number(result.mean_surprise)} "
        f"nats, largest {number(float(finite[worst - 1]))} at token {worst} {result.tokens[worst].visible}."
    )
