"""Path patching from every head to receivers, over the prompt pairs of a task; exact.

Formula, sources and cost: `path_patching_paths`. Effects are patched minus clean, on the logit difference
between right and wrong answer, averaged over prompts with 95 % bands (Student's t).
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from mi_core.analyses.attribution_inputs import head_name
from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.causal_trace_result import Step
from mi_core.analyses.path_patching_inputs import PathPatchingInputs
from mi_core.analyses.path_patching_names import Head, Receiver, parse_receiver
from mi_core.analyses.path_patching_paths import Paths, kv_group
from mi_core.analyses.path_patching_result import PathPatchingResult
from mi_core.analyses.path_patching_rows import Group, clean_scores, counterfactual_scores, gather
from mi_core.analyses.path_patching_task import groups_of
from mi_core.engine import Base, Edit, Variant, sweep
from mi_core.errors import Cancelled, InputError
from mi_core.model.model import LoadedModel
from mi_core.provenance import Provenance

OnStep = Callable[[Step[PathPatchingResult]], None]


def path_patching(
    model: LoadedModel, inputs: PathPatchingInputs, *, on_step: OnStep | None = None
) -> PathPatchingResult:
    """Patch the path from every head into each receiver.

    Args:
        model: a loaded model.
        inputs: receivers and task.
        on_step: told of progress, with the effects so far; may raise `Cancelled` to stop.

    Returns:
        The effects; after `Cancelled`, those of the prompts that were finished, if there are any.

    Raises:
        InputError: a receiver is no head of this model, or the task cannot be made for its tokenizer.
        SiteMissing: the model's heads cannot be seen or changed.
        OutOfMemory: the device is too small.
    """
    receivers = _checked(model, inputs)
    groups = groups_of(model, inputs)
    return paths_of(model, groups, inputs, receivers=receivers, on_step=on_step)


def paths_of(
    model: LoadedModel,
    groups: Sequence[Group],
    inputs: PathPatchingInputs,
    *,
    receivers: Sequence[Receiver] | None = None,
    on_step: OnStep | None = None,
) -> PathPatchingResult:
    """`path_patching` on prompts that are tensors already."""
    work = _Work(model, groups, inputs, receivers or _checked(model, inputs), on_step)
    try:
        work.run()
    except Cancelled:
        if not np.isfinite(work.effects).any():
            raise  # nothing to keep
        return work.result(cancelled=True)
    return work.result()


def _checked(model: LoadedModel, inputs: PathPatchingInputs) -> list[Receiver]:
    """The receivers, all of which the model must have.

    Raises:
        InputError: naming the first that it has not.
        SiteMissing: its queries, keys or values cannot be set.
    """
    receivers = [parse_receiver(text) for text in inputs.receivers]
    model.structure.require("z", 0)
    dims = model.dims
    for one in receivers:
        if one.layer is None:
            continue
        if one.layer >= dims.n_layers or one.head >= dims.n_heads:
            raise InputError(
                f"This model has no head {head_name(one.layer, one.head)}",
                why=f"it has {dims.n_layers} layers of {dims.n_heads} heads",
            )
        if one.layer == 0:
            raise InputError(
                f"{one.text} receives nothing from other heads", why="layer 0 is the first layer"
            )
        model.structure.require(one.part, one.layer)
    return receivers


@dataclass(slots=True)
class _Work:
    """The effects so far."""

    model: LoadedModel
    groups: Sequence[Group]
    inputs: PathPatchingInputs
    receivers: Sequence[Receiver]
    on_step: OnStep | None
    started: float = field(default_factory=time.perf_counter)
    clean: Float[np.ndarray, " prompt"] = field(init=False)
    other: Float[np.ndarray, " prompt"] = field(init=False)
    effects: Float[np.ndarray, "receiver layer head prompt"] = field(init=False)
    checks: tuple[Check, ...] = ()
    done: float = 0.0

    def __post_init__(self) -> None:
        """Clean and counterfactual scores are there, effects are not."""
        self.clean = gather([clean_scores(self.model, group) for group in self.groups], self.groups)
        self.other = gather([counterfactual_scores(self.model, group) for group in self.groups], self.groups)
        first = 1 if self.inputs.setting == "together" else len(self.receivers)
        shape = (first, self.model.dims.n_layers, self.model.dims.n_heads, len(self.clean))
        self.effects = np.full(shape, np.nan)

    @property
    def senders(self) -> list[Head]:
        """All heads that can send to a receiver."""
        dims = self.model.dims
        layers = max(dims.n_layers if one.layer is None else one.layer for one in self.receivers)
        return [(layer, head) for layer in range(layers) for head in range(dims.n_heads)]

    def run(self) -> None:
        """Group by group; may raise Cancelled."""
        together = self.inputs.setting == "together"
        heads = [one for one in self.receivers if one.layer is not None]
        rows = [0] if together else [i for i, one in enumerate(self.receivers) if one.layer is not None]
        to_logits = [index for index, one in enumerate(self.receivers) if one.layer is None]
        senders = self.senders
        into = tuple(np.array(senders).T)
        for number, group in enumerate(self.groups):
            paths = Paths(self.model, group, self.inputs.mlps)
            for index in to_logits:
                self._put(index, into, group, paths.into_logits(senders, self._ticker(number, 1)))
                self._check(paths, number)
            if heads:
                ticker = self._ticker(number, len(senders))
                found = paths.into_heads(senders, heads, ticker, together=together)
                for index, effects in zip(rows, found, strict=True):
                    self._put(index, into, group, effects)
            self._tell(
                f"form {number + 1} of {len(self.groups)}", (number + 1) / len(self.groups), partial=True
            )

    def _put(self, index: int, into: tuple[np.ndarray, ...], group: Group, effects: np.ndarray) -> None:
        block = self.effects[index][into]  # [sender prompt], a copy
        block[:, group.index] = effects
        self.effects[index][into] = block

    def _check(self, paths: Paths, number: int) -> None:
        """A head of the last layer has no way to the logits but the direct one (unless MLPs are held)."""
        if number or self.inputs.mlps == "frozen":
            return
        layer = self.model.dims.n_layers - 1
        heads = range(self.model.dims.n_heads)
        variants = [
            Variant(
                (Edit("z", layer, "set", None, (head,), value=paths.other[layer][:, :, head : head + 1]),)
            )
            for head in heads
        ]
        group = paths.group
        found = sweep(self.model, Base(group.tokens), variants, read=group.read, method="full")
        whole = found.values["difference"] - found.base["difference"]
        direct = paths.into_logits([(layer, head) for head in heads], lambda text: None)
        gap = float(np.abs(whole - direct).max())
        allowed = 1e-6 if self.model.dtype.itemsize == 8 else 1e-3 if self.model.dtype.itemsize == 4 else 0.3
        detail = f"The {len(heads)} heads of layer {layer}: whole effect and direct path are {gap:.1e} apart."
        self.checks = (Check("heads of the last layer have only the direct path", gap <= allowed, detail),)

    def _ticker(self, number: int, parts: int) -> Callable[[str], None]:
        count = 0

        def tick(text: str) -> None:
            nonlocal count
            count += 1
            self._tell(text, (number + min(1.0, count / parts)) / len(self.groups), partial=False)

        return tick

    def _tell(self, text: str, share: float, *, partial: bool) -> None:
        self.done = max(self.done, share)
        if self.on_step is None:
            return
        passed = time.perf_counter() - self.started
        left = passed / share * (1 - share) if share > 0.02 else None
        self.on_step(Step(round(1000 * self.done), 1000, left, self.result() if partial else None, text))

    def result(self, *, cancelled: bool = False) -> PathPatchingResult:
        """The effects of the prompts that are done; the mean needs all of them, so others are left out."""
        done = np.isfinite(self.effects).any(axis=(0, 1, 2))
        return PathPatchingResult(
            inputs=self.inputs,
            provenance=Provenance.of(self.model, seed=self.inputs.seed),
            clean=self.clean[done],
            counterfactual=self.other[done],
            effects=self.effects[..., done],
            warnings=tuple(self._warnings(int(done.sum()), cancelled=cancelled)),
            checks=self.checks,
            seconds=time.perf_counter() - self.started,
            cancelled=cancelled,
        )

    def _warnings(self, n_done: int, *, cancelled: bool) -> list[str]:
        said = []
        if cancelled:
            said.append(f"It was stopped: the numbers are over {n_done} of {len(self.clean)} prompts.")
        for one in self.receivers:
            shared = kv_group(self.model, one)
            if len(shared) > 1:
                names = ", ".join(head_name(*place) for place in shared)
                said.append(
                    f"{one.text}: the heads {names} share their keys and values; all of them receive."
                )
        return said
