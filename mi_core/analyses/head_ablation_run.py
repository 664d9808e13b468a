"""Which heads does a task need? Every head's output is replaced, one head at a time, over all prompts.

    effect of head h on prompt p = logit difference with h's z replaced, minus logit difference without
    zero        z = 0 at every position
    mean        z[pos] = mean of z[pos] over the prompts of the same template and length (this one among them)
    resample    z[pos] = z[pos] in the counterfactual prompt of the same pair

z is what a head has gathered, before W_O. The effect is total: whatever later heads make of the change is
in it, backup included. Prompts of one template have every role at one position, so a mean over them is a mean
over one role (Wang et al. 2022, arXiv 2211.00593, take it over counterfactuals; here it is over the set
itself). 95 % bands are over prompts (`task_bands`).

Cost: layers * heads variants of each prompt, shared by `sweep`, and one pass more for mean and resample.
"""

import time
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.causal_trace_result import Step
from mi_core.analyses.head_ablation_result import HeadAblationResult
from mi_core.analyses.path_patching_rows import Group, heads_written
from mi_core.analyses.task_bands import FEW_PROMPTS
from mi_core.analyses.task_groups import chunks_of, task_groups
from mi_core.analyses.task_inputs import HeadAblationInputs, TaskFields, chosen_task
from mi_core.analyses.task_notes import task_warnings
from mi_core.engine import Base, Edit, Variant, run, sweep
from mi_core.errors import Cancelled
from mi_core.model.model import LoadedModel
from mi_core.provenance import Provenance

Written = list[Float[Tensor, "one_or_row pos head d_head"]]

WHOLE_PASS_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3}
HALF_TOLERANCE = 0.2


def head_ablation(
    model: LoadedModel, inputs: HeadAblationInputs, *, on_step: Callable[[Step], None] | None = None
) -> HeadAblationResult:
    """Ablate every head over a task.

    Args:
        model: the loaded model.
        inputs: task and mode.
        on_step: told after every layer; may raise Cancelled, which passes.

    Raises:
        InputError: the task cannot be put to this model.
        SiteMissing: this model's heads cannot be reached.
    """
    started = time.perf_counter()
    model.structure.require("z", 0)
    task = chosen_task(model, inputs)
    n, shape = len(task), (model.dims.n_layers, model.dims.n_heads)
    effects, baseline = np.full((*shape, n), np.nan), np.full(n, np.nan)
    done, check = 0, None
    for group in task_groups(task):
        means = _means(model, group) if inputs.mode == "mean" else None
        for part in chunks_of(group):
            written = _replacements(model, part, inputs.mode, means)
            own = _ablate(model, part, written, _reporter(on_step, done, len(part), n, started))
            baseline[part.index] = own[0]
            effects[:, :, part.index] = own[1].reshape(*shape, -1)
            if check is None:
                check = _check(model, part, written, own[0], own[1].reshape(*shape, -1))
            done += len(part)
    return HeadAblationResult(
        inputs=inputs,
        provenance=Provenance.of(model, seed=inputs.seed),
        task=task,
        baseline=baseline,
        effects=effects,
        warnings=_warnings(inputs, task.groups(), baseline) + task_warnings(task),
        checks=() if check is None else (check,),
        seconds=time.perf_counter() - started,
    )


def head_ablation_seconds(model: LoadedModel, inputs: TaskFields) -> float | None:
    """How long it will take, in seconds; None while the model's speed is unknown."""
    if not model.token_layers_per_second:
        return None
    dims = model.dims
    tokens = sum(len(pair.ids) for pair in chosen_task(model, inputs).pairs)
    layers = (
        dims.n_heads * dims.n_layers * (dims.n_layers + 1) / 2
    )  # a head of layer l redoes the layers from l on
    return tokens * layers / model.token_layers_per_second


def _reporter(
    on_step: Callable[[Step], None] | None, done: int, size: int, n: int, started: float
) -> Callable[[float], None]:
    def tick(share: float) -> None:
        if on_step is None:
            return
        passed = (done + share * size) / n
        left = (time.perf_counter() - started) / passed * (1 - passed) if passed > 0 else None
        on_step(Step(int(1000 * passed), 1000, left, None, "heads over the set"))

    return tick


def _means(model: LoadedModel, group: Group) -> Written:
    """Mean of every layer's z over the group, [1, pos, head, d_head], summed in float32 at least."""

    def total(_place: object, value: Tensor) -> Tensor:
        return value.sum(0, keepdim=True, dtype=torch.promote_types(value.dtype, torch.float32))

    parts = [run(model, part.tokens, capture=["z"], last=1, reduce=total) for part in chunks_of(group)]
    layers = range(model.dims.n_layers)
    return [
        torch.cat([part["z", layer] for part in parts]).sum(0, keepdim=True) / len(group) for layer in layers
    ]


def _replacements(model: LoadedModel, part: Group, mode: str, means: Written | None) -> Written | None:
    """What z becomes, per layer; None = zero."""
    return heads_written(model, part.counterfactual) if mode == "resample" else means


def _variant(layer: int, head: int, written: Written | None) -> Variant:
    if written is None:
        return Variant((Edit("z", layer, "zero", heads=(head,)),))
    return Variant((Edit("z", layer, "set", heads=(head,), value=written[layer][:, :, head : head + 1]),))


def _ablate(
    model: LoadedModel, part: Group, written: Written | None, tick: Callable[[float], None]
) -> tuple[Float[np.ndarray, " row"], Float[np.ndarray, "variant row"]]:
    """Logit differences without ablation, and every head's effect on them."""
    places = [(layer, head) for layer in range(model.dims.n_layers) for head in range(model.dims.n_heads)]
    variants = [_variant(layer, head, written) for layer, head in places]
    found = sweep(model, Base(part.tokens), variants, read=part.read, on_tick=tick)
    if found.cancelled:
        raise Cancelled
    base = found.base["difference"][0].astype(np.float64)
    return base, found.values["difference"].astype(np.float64) - base


def _check(
    model: LoadedModel, part: Group, written: Written | None, base: np.ndarray, effects: np.ndarray
) -> Check:
    """The strongest head of the first batch once more, by a whole forward pass."""
    strongest = int(np.abs(effects.mean(-1)).argmax())
    layer, head = divmod(strongest, model.dims.n_heads)
    edits = _variant(layer, head, written).edits
    with torch.inference_mode():
        logits = run(model, part.tokens, edits=edits, last=1).logits[:, -1]
        whole = part.difference(logits[None])[0].cpu().double().numpy() - base
    off = float(np.abs(whole - effects[layer, head]).max())
    scale = max(1.0, float(np.abs(base).max()))
    return Check(
        "a whole forward pass gives the same effect",
        off <= WHOLE_PASS_TOLERANCE.get(model.dtype, HALF_TOLERANCE) * scale,
        f"L{layer}H{head} on {len(part)} prompts: largest difference {off:.1e} logits.",
    )


def _warnings(
    inputs: HeadAblationInputs, groups: tuple[tuple[int, ...], ...], baseline: np.ndarray
) -> tuple[str, ...]:
    found = []
    smallest = min(map(len, groups))
    if inputs.mode == "mean" and smallest < FEW_PROMPTS:
        found.append(
            f"The smallest group of prompts with one template and length has {smallest}: its mean is mostly "
            "these prompts themselves, and effects come out too small. Take more prompts."
        )
    if baseline.mean() <= 0:
        found.append(
            "The model does not do this task: its mean logit difference is not above 0. Effects say little."
        )
    return tuple(found)
