"""Tasks by the name under which other sets of prompts are found; see `mi_core.analyses.tasks`."""

from mi_core.analyses.tasks import (
    GENERATORS,
    TASK_LABELS,
    Task,
    TaskPair,
    greater_than_task,
    induction_task,
    ioi_task,
    subject_verb_task,
)

__all__ = [
    "GENERATORS",
    "TASK_LABELS",
    "Task",
    "TaskPair",
    "greater_than_task",
    "induction_task",
    "ioi_task",
    "subject_verb_task",
]
