"""Prompt pairs of the task that Inputs name, as groups of tensors."""

from mi_core.analyses.path_patching_rows import Group
from mi_core.analyses.task_groups import task_groups
from mi_core.analyses.task_inputs import TaskFields, chosen_task
from mi_core.errors import InputError
from mi_core.model.model import LoadedModel


def groups_of(model: LoadedModel, inputs: TaskFields) -> list[Group]:
    """Prompts of a task, grouped by form.

    Raises:
        InputError: the task cannot be put to this model.
    """
    if model.tokenizer is None:
        raise InputError("A task needs a tokenizer, and this model has none")
    return task_groups(chosen_task(model, inputs))
