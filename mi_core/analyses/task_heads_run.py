"""What heads do at the last token of a task's prompts: where they look, and what they write directly.

    attention   A[head, end, role]: weight from the last token to IO, S1, S2, ... (shares, 0 to 1)
    direct      z[head, end] W_O . (W_U[right] - W_U[wrong]), through the final norm with its scale frozen

The direct effect is the part of the logit difference that a head writes itself; what later layers make of its
output is not in it. Sources: Wang et al. 2022, section 3; Elhage et al. 2021. With a softcap (Gemma 2) it is
about the logits before the cap. 95 % bands are over prompts (`task_bands`).

Cost: one forward pass per prompt; only the last token's values are kept.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mi_core.analyses.attention_weighing import head_contributions, head_directions
from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.causal_trace_result import Step
from mi_core.analyses.path_patching_rows import Group
from mi_core.analyses.task_groups import chunks_of, task_groups
from mi_core.analyses.task_heads_result import TaskHeadsResult
from mi_core.analyses.task_inputs import TaskFields, TaskInputs, chosen_task
from mi_core.analyses.task_notes import task_warnings
from mi_core.engine import readout, run
from mi_core.model.model import LoadedModel
from mi_core.provenance import Provenance

READOUT_TOLERANCE = {torch.float64: 1e-5, torch.float32: 1e-4}  # norms compute in float32 in many families
HALF_TOLERANCE = 0.1


def task_heads(
    model: LoadedModel, inputs: TaskInputs, *, on_step: Callable[[Step], None] | None = None
) -> TaskHeadsResult:
    """Look at every head at the last token of a task's prompts.

    Args:
        model: the loaded model.
        inputs: which task.
        on_step: told after each batch; may raise Cancelled, which passes.

    Raises:
        InputError: the task cannot be put to this model.
        SiteMissing: this model's attention cannot be looked into.
        ModelError: its logits are no linear function of the last residual, or weights are not in memory.
    """
    started = time.perf_counter()
    for site in ("pattern", "z", "resid_post"):
        model.structure.require(site, 0)
    task = chosen_task(model, inputs)
    n, shape, roles = len(task), (model.dims.n_layers, model.dims.n_heads), task.role_names
    attention, direct = np.full((len(roles), *shape, n), np.nan), np.full((*shape, n), np.nan)
    differences, errors, done = np.full(n, np.nan), [0.0], 0
    with model.lock, torch.inference_mode():  # norms are called as functions: no other hooks meanwhile
        for group in task_groups(task):
            for part in chunks_of(group):
                looked, wrote, total, error = _look(model, part, roles)
                attention[..., part.index], direct[..., part.index] = looked, wrote
                differences[part.index] = total
                errors.append(error)
                done += len(part)
                if on_step is not None:
                    on_step(Step(done, n, None, None, "prompts"))
    return TaskHeadsResult(
        inputs=inputs,
        provenance=Provenance.of(model, seed=inputs.seed),
        task=task,
        attention=attention,
        direct=direct,
        differences=differences,
        warnings=task_warnings(task),
        checks=(_readout_check(max(errors), model.dtype),),
        seconds=time.perf_counter() - started,
    )


def _look(
    model: LoadedModel, part: Group, roles: tuple[str, ...]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Attention [role, layer, head, row], direct effect [layer, head, row], logit difference [row], error."""
    n_layers, keys = model.dims.n_layers, [part.roles[role] for role in roles]

    def keep(place: tuple[str, int | None], value: Tensor) -> Tensor:
        return value[:, :, -1, keys].clone() if place[0] == "pattern" else value[:, -1].clone()

    found: Any = run(
        model,
        part.tokens,
        capture=["pattern", "z", ("resid_post", n_layers - 1)],
        last=1,
        reduce=keep,
    )
    looked = [found["pattern", layer].cpu().double().permute(2, 1, 0) for layer in range(n_layers)]
    directions, total, error = _directions(model, found["resid_post", n_layers - 1], part)
    wrote = []
    for layer in range(n_layers):
        z = found["z", layer]
        way = head_directions(model, layer, z, directions)
        wrote.append(head_contributions(z.to(way.device), way).cpu())
    return torch.stack(looked, 1).numpy(), torch.stack(wrote).numpy(), total, error


def _directions(model: LoadedModel, residual: Tensor, part: Group) -> tuple[Tensor, np.ndarray, float]:
    """From each row's last residual to its own logit difference: [row, d_model]; and that difference."""
    tokens = sorted({*part.answers.tolist(), *part.wrong.tolist()})
    place = {token: index for index, token in enumerate(tokens)}
    out = readout(model, residual, tokens)
    rows = torch.arange(len(part), device=out.directions.device)
    right, wrong = (
        torch.tensor([place[token] for token in ids.tolist()], device=rows.device)
        for ids in (part.answers, part.wrong)
    )
    directions = out.directions[rows, :, right] - out.directions[rows, :, wrong]
    total = (out.logits[rows, right] - out.logits[rows, wrong]).cpu().numpy()
    return directions, total, out.error


def _readout_check(error: float, dtype: torch.dtype) -> Check:
    return Check(
        "the frozen way to the logits gives the model's own",
        error <= READOUT_TOLERANCE.get(dtype, HALF_TOLERANCE),
        f"largest relative difference {error:.1e}.",
    )


def task_seconds(model: LoadedModel, inputs: TaskFields, *, passes: int = 1) -> float | None:
    """How long forward passes over a task take, in seconds; None while the model's speed is unknown."""
    if not model.token_layers_per_second:
        return None
    tokens = sum(len(pair.ids) for pair in chosen_task(model, inputs).pairs)
    return passes * tokens * model.dims.n_layers / model.token_layers_per_second
