"""What has to be said about a task before its figures, and how its pairs are written into records."""

from collections.abc import Mapping
from typing import Any

from mi_core.analyses.plain import inputs_from_dict, inputs_to_dict
from mi_core.analyses.task_bands import FEW_PROMPTS
from mi_core.analyses.tasks import Task
from mi_core.errors import InputError


def task_warnings(task: Task) -> tuple[str, ...]:
    """Sentences about the size of the set."""
    if len(task) < FEW_PROMPTS:
        return (f"Only {len(task)} prompts: the bands are rough.",)
    return ()


def task_to_dict(task: Task) -> dict[str, Any]:
    """Plain JSON values."""
    return inputs_to_dict(task)


def task_from_dict(values: Mapping[str, Any]) -> Task:
    """The inverse of `task_to_dict`.

    Raises:
        InputError: no task.
    """
    if not isinstance(values, Mapping):
        raise InputError("The record has no task")
    return inputs_from_dict(Task, values, "task")
