"""Prompt pairs of a task as groups of tensors."""

import numpy as np
import torch

from mi_core.analyses.path_patching_rows import Group
from mi_core.batch.tasks import GENERATORS, Task, TaskPair
from mi_core.errors import InputError
from mi_core.model.model import LoadedModel


def groups_of(model: LoadedModel, task: str, n: int, seed: int) -> list[Group]:
    """Prompts of a task, grouped by form.

    Raises:
        InputError: there is no such task, or it cannot be made for this tokenizer.
    """
    if task not in GENERATORS:
        raise InputError(
            f"There is no task called {task!r:.60}", fix=f"Choose one of {', '.join(GENERATORS)}"
        )
    if model.tokenizer is None:
        raise InputError("A task needs a tokenizer, and this model has none")
    return grouped(GENERATORS[task](model.tokenizer, n, seed))


def grouped(task: Task) -> list[Group]:
    """One group per template, length and places of the roles."""
    return [_group(task, places) for places in task.groups()]


def _group(task: Task, places: tuple[int, ...]) -> Group:
    pairs: list[TaskPair] = [task.pairs[place] for place in places]
    return Group(
        tokens=torch.tensor([pair.ids for pair in pairs]),
        counterfactual=torch.tensor([pair.counterfactual_ids for pair in pairs]),
        answers=torch.tensor([pair.answer_id for pair in pairs]),
        wrong=torch.tensor([pair.wrong_id for pair in pairs]),
        roles=dict(pairs[0].roles),
        index=np.array(places),
    )
