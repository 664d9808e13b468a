"""The pairs of a task as tensors that run side by side."""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mi_core.analyses.path_patching_rows import Group
from mi_core.analyses.tasks import Task

ROWS_AT_ONCE = 32
"""Prompts of one pass; every head is a variant of all of them."""


def task_groups(task: Task) -> list[Group]:
    """One group per template and length; roles stand at the same positions in all its prompts."""
    return [_group(task, places) for places in task.groups()]


def _group(task: Task, places: tuple[int, ...]) -> Group:
    pairs = [task.pairs[place] for place in places]
    return Group(
        tokens=torch.tensor([pair.ids for pair in pairs]),
        counterfactual=torch.tensor([pair.counterfactual_ids for pair in pairs]),
        answers=torch.tensor([pair.answer_id for pair in pairs]),
        wrong=torch.tensor([pair.wrong_id for pair in pairs]),
        roles=dict(pairs[0].roles),
        index=np.array(places, dtype=np.int64),
    )


def chunks_of(group: Group) -> Iterator[Group]:
    """The group in parts of at most `ROWS_AT_ONCE` prompts."""
    for first in range(0, len(group), ROWS_AT_ONCE):
        part = slice(first, first + ROWS_AT_ONCE)
        yield Group(
            group.tokens[part],
            group.counterfactual[part],
            group.answers[part],
            group.wrong[part],
            group.roles,
            group.index[part],
        )


def pick(values: Float[Tensor, "row d_vocab"], tokens: Int[Tensor, " row"]) -> Float[Tensor, " row"]:
    """Every row's value of its own token."""
    return values.gather(-1, tokens.to(values.device)[:, None])[:, 0]
