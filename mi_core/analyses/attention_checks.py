"""Identities that the attention of a prompt must satisfy, tried on these very numbers."""

import math
from collections.abc import Iterator, Sequence

import torch

from mi_core.analyses.attention_inputs import AttentionInputs
from mi_core.analyses.attention_side import SideNumbers
from mi_core.analyses.causal_trace_parts import Check
from mi_core.model.model import LoadedModel

ROW_TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5, torch.float16: 5e-3, torch.bfloat16: 4e-2}
"""Largest distance of a row's sum from 1 that rounding explains."""

SUM_TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}
"""The same for sums of contributions, relative to the largest; z itself was rounded by the model."""


def attention_checks(
    model: LoadedModel, inputs: AttentionInputs, sides: Sequence[SideNumbers]
) -> tuple[Check, ...]:
    """All identities that apply; with two prompts the worse one counts.

    Args:
        model: what was looked at.
        inputs: what was asked for.
        sides: one prompt or two.
    """
    return tuple(_checks(model, inputs, sides))


def _checks(model: LoadedModel, inputs: AttentionInputs, sides: Sequence[SideNumbers]) -> Iterator[Check]:
    rows = max(side.row_error for side in sides)
    yield Check(
        "rows of attention sum to 1",
        rows <= ROW_TOLERANCE[model.dtype],
        f"Over all layers, heads and queries they are at most {rows:.1e} away from it.",
    )
    future = max(side.future for side in sides)
    yield Check(
        "no token reads a later one",
        future == 0.0,
        f"The largest weight on a later token is {future:.1e}.",
    )
    sums = _largest(side.sum_error for side in sides)
    if not math.isnan(sums):
        yield Check(
            "contributions of the keys add up to the head's",
            sums <= SUM_TOLERANCE[model.dtype],
            f"Read the same way from the head's output z at every query, they differ by at most "
            f"{sums:.1e} of the largest contribution.",
        )
    slack = _largest(-side.norm_slack for side in sides)
    if not math.isnan(slack):
        yield Check(
            "no head moves more than its parts",
            slack <= SUM_TOLERANCE[model.dtype],
            "At every query the norms of what the keys give sum to at least the norm of what the head "
            "writes.",
        )
    read = _largest(side.read_error for side in sides)
    if not math.isnan(read):
        yield Check(
            "the frozen way to the logits gives the model's own",
            True,  # `readout` refuses where it does not
            f"Largest error {read:.1e}, relative to the largest logit (at least 1).",
        )


def _largest(numbers: Iterator[float]) -> float:
    """The largest number; NaN if any is missing."""
    found = list(numbers)
    return math.nan if any(math.isnan(number) for number in found) else max(found)
