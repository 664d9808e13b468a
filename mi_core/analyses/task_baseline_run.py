"""How well a model does a task, before anything is changed.

    logit difference of a prompt = logit(right answer) - logit(wrong answer) at the last token, in logits
    accuracy = share of prompts whose difference is above 0 (as Wang et al. 2022)
    control = the same difference, same two answers, in the counterfactual prompt

Cost: one forward pass per prompt and one per counterfactual.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.causal_trace_result import Step
from mi_core.analyses.path_patching_rows import Group
from mi_core.analyses.task_baseline_result import FLOATS, TaskBaselineResult
from mi_core.analyses.task_groups import chunks_of, pick, task_groups
from mi_core.analyses.task_inputs import TaskInputs, chosen_task
from mi_core.analyses.task_notes import task_warnings
from mi_core.engine import run
from mi_core.metrics import exact_logits
from mi_core.model.model import LoadedModel
from mi_core.provenance import Provenance


def task_baseline(
    model: LoadedModel, inputs: TaskInputs, *, on_step: Callable[[Step], None] | None = None
) -> TaskBaselineResult:
    """Measure a model on a task.

    Args:
        model: the loaded model.
        inputs: which task.
        on_step: told after each batch; may raise Cancelled, which passes.

    Raises:
        InputError: the task cannot be put to this model.
    """
    started = time.perf_counter()
    task = chosen_task(model, inputs)
    n = len(task)
    values: dict[str, Any] = {name: np.full(n, np.nan) for name in FLOATS}
    top, done = np.zeros(n, np.int64), 0
    for group in task_groups(task):
        for part in chunks_of(group):
            for name, value in _measure(model, part).items():
                (top if name == "top_ids" else values[name])[part.index] = value
            done += len(part)
            if on_step is not None:
                on_step(Step(done, n, None, None, "prompts"))
    return TaskBaselineResult(
        inputs=inputs,
        provenance=Provenance.of(model, seed=inputs.seed),
        task=task,
        top_ids=top,
        top_tokens=tuple(model.tokenizer.decode([token]) for token in top.tolist()),
        **values,
        warnings=task_warnings(task),
        checks=(_check(values),),
        seconds=time.perf_counter() - started,
    )


def _measure(model: LoadedModel, group: Group) -> dict[str, np.ndarray]:
    logits = exact_logits(run(model, group.tokens, last=1).logits[:, -1])
    chances = torch.softmax(logits, -1)
    other = exact_logits(run(model, group.counterfactual, last=1).logits[:, -1])
    found = {
        "answer_logits": pick(logits, group.answers),
        "wrong_logits": pick(logits, group.wrong),
        "answer_probabilities": pick(chances, group.answers),
        "wrong_probabilities": pick(chances, group.wrong),
        "counterfactual_differences": pick(other, group.answers) - pick(other, group.wrong),
        "top_ids": logits.argmax(-1),
    }
    return {name: _numpy(value) for name, value in found.items()}


def _numpy(value: Tensor) -> np.ndarray:
    return (value.cpu() if value.dtype == torch.int64 else value.cpu().double()).numpy()


def _check(values: dict[str, np.ndarray]) -> Check:
    """A difference of logits is a difference of log-probabilities: two ways to the same number."""
    difference = values["answer_logits"] - values["wrong_logits"]
    with np.errstate(divide="ignore", invalid="ignore"):
        other = np.log(values["answer_probabilities"]) - np.log(values["wrong_probabilities"])
    sure = (values["answer_probabilities"] > 1e-30) & (values["wrong_probabilities"] > 1e-30)
    off = float(np.max(np.abs(difference - other)[sure], initial=0.0))
    return Check(
        "the logit difference is the log of the ratio of probabilities",
        bool(off < 1e-3),
        f"largest difference {off:.1e} over {int(sure.sum())} prompts.",
    )
