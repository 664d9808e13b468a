"""Gives every head of a model a class on a task, by evidence: see `head_classes_rules` and `_evidence`.

Cost, with L layers of H heads and n prompts: two sweeps of L * H ablations over the n prompts, two passes
that keep activations, one pass per head and form of prompt for paths into name movers, up to `most_drawn`
squared times three variants for the paths that are drawn, L * H unembeddings of the task's names, and a
test on repeated random tokens.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.causal_trace_result import Step
from mi_core.analyses.head_classes_evidence import (
    ablated_value,
    ablation_effects,
    attention_to_roles,
    copying,
    direct_effects,
    every_head,
)
from mi_core.analyses.head_classes_inputs import HeadClassesInputs
from mi_core.analyses.head_classes_result import INPUTS_OF_HEADS, HeadClassesResult
from mi_core.analyses.head_classes_rules import HABITS, QUANTITIES
from mi_core.analyses.head_scores_inputs import SCORE_NAMES, HeadScoresInputs
from mi_core.analyses.head_scores_run import head_scores
from mi_core.analyses.path_patching_bands import mean_band
from mi_core.analyses.path_patching_names import Head, Receiver
from mi_core.analyses.path_patching_paths import Paths
from mi_core.analyses.path_patching_rows import Group, clean_scores, gather
from mi_core.analyses.path_patching_task import groups_of
from mi_core.errors import Cancelled
from mi_core.model.model import LoadedModel
from mi_core.provenance import Provenance

OnStep = Callable[[Step[HeadClassesResult]], None]

FEW = 8
"""Prompts of one form below which their mean stands for little."""
_ATTENTION = {
    "attention_io": ("end", "IO"),
    "attention_s1": ("end", "S1"),
    "attention_s2": ("end", "S2"),
    "s2_to_s1": ("S2", "S1"),
}
_HABITS = ("duplicate_token", "induction", "previous_token")
_STEPS = (
    "reading",
    "copying",
    "habits",
    "ablation",
    "ablation without name movers",
    "paths into name movers",
    "paths between heads",
)


def head_classes(
    model: LoadedModel, inputs: HeadClassesInputs, *, on_step: OnStep | None = None
) -> HeadClassesResult:
    """Measure all heads on a task and label them.

    Args:
        model: a loaded model.
        inputs: the task and the thresholds.
        on_step: told of progress, with what is measured so far; may raise `Cancelled` to stop.

    Returns:
        The numbers and labels; after `Cancelled`, those measured until then (labels of what is not measured
        are not given).

    Raises:
        InputError: there is no such task, or it cannot be made for this tokenizer.
        SiteMissing: the model's heads cannot be seen or changed.
        ModelError: its weights cannot be read as circuits.
    """
    return classes_of(model, groups_of(model, inputs), inputs, on_step=on_step)


def classes_of(
    model: LoadedModel, groups: Sequence[Group], inputs: HeadClassesInputs, *, on_step: OnStep | None = None
) -> HeadClassesResult:
    """`head_classes` on prompts that are tensors already."""
    for site in ("z", "pattern", "q", "k", "v"):
        model.structure.require(site, 0)
    work = _Work(model, groups, inputs, on_step)
    try:
        work.run()
    except Cancelled:
        return work.result(cancelled=True)
    return work.result()


@dataclass(slots=True)
class _Work:
    """What is measured so far."""

    model: LoadedModel
    groups: Sequence[Group]
    inputs: HeadClassesInputs
    on_step: OnStep | None
    started: float = field(default_factory=time.perf_counter)
    clean: Float[np.ndarray, " prompt"] = field(init=False)
    bands: Float[np.ndarray, "end quantity layer head"] = field(init=False)
    drawn: tuple[Head, ...] = ()
    edges: Float[np.ndarray, "end drawn drawn input"] = field(init=False)
    outputs: Float[np.ndarray, "end drawn"] = field(init=False)
    checks: tuple[Check, ...] = ()
    ran: int = 0
    paths: list[Paths] = field(init=False)
    single: Float[np.ndarray, "layer head prompt"] = field(init=False)

    def __post_init__(self) -> None:
        """Nothing is measured but the clean scores."""
        dims = self.model.dims
        self.paths = [Paths(self.model, group) for group in self.groups]
        self.clean = gather([clean_scores(self.model, group) for group in self.groups], self.groups)
        self.bands = np.full((3, len(QUANTITIES), dims.n_layers, dims.n_heads), np.nan)
        self.edges, self.outputs = np.zeros((3, 0, 0, 3)), np.zeros((3, 0))

    def run(self) -> None:
        """All parts in the order of `_STEPS`; may raise Cancelled."""
        self._look()
        self._ablate()
        movers = self.result().heads_of("name mover")
        if movers:
            self._ablate_later(movers)
            self._into_queries(movers)
        self.ran = len(_STEPS) - 1
        self._link()
        self._tell(1.0)

    # --- parts ---

    def _look(self) -> None:
        """Direct effects, attention, copying, habits."""
        self._tell(0.0)
        self._put("direct", self._over_groups(lambda group: direct_effects(self.model, group)))
        pairs = list(_ATTENTION.values())
        attention = self._over_groups(lambda group: attention_to_roles(self.model, group, pairs))
        seen = dict(zip(_ATTENTION, attention, strict=True))
        for name, values in seen.items():
            self._put(name, values)
        self._put("io_above_s", seen["attention_io"] - np.maximum(seen["attention_s1"], seen["attention_s2"]))
        self._put("s2_above_io", seen["attention_s2"] - seen["attention_io"])
        self._next()
        for name, values in zip(
            ("copying", "copying_negative"), copying(self.model, self.groups, self._tell), strict=True
        ):
            if values.shape[-1]:
                self._put(name, values)
        self._next()
        self._test_habits()
        self._next()

    def _test_habits(self) -> None:
        length = self.inputs.habit_length
        found = head_scores(self.model, HeadScoresInputs(length=length, samples=8, seed=self.inputs.seed))
        for name in _HABITS:
            self._put(name, np.moveaxis(found.samples[SCORE_NAMES.index(name)], 0, -1))

    def _ablate(self) -> None:
        self.single = self._ablation(())
        self._put("ablated", self.single)
        self._next()

    def _ablate_later(self, movers: Sequence[Head]) -> None:
        """Backup heads show only without the name movers; for these themselves there is no such number."""
        after = self._ablation(movers)
        change = after - self.single
        for layer, head in movers:
            after[layer, head] = change[layer, head] = np.nan
        self._put("ablated_later", after)
        self._put("later_change", change)
        self._next()

    def _ablation(self, without: Sequence[Head]) -> Float[np.ndarray, "layer head prompt"]:
        parts = []
        for number, one in enumerate(self.paths):
            values = [ablated_value(value, self.inputs.ablation) for value in one.other]

            def tick(share: float, number: int = number) -> None:
                self._tell((number + share) / len(self.paths))

            parts.append(ablation_effects(self.model, one.group, values, tick, without=without))
        return gather(parts, self.groups)

    def _into_queries(self, movers: Sequence[Head]) -> None:
        """What every head sends to the queries of all name movers together."""
        receivers = [Receiver(layer, head, "q") for layer, head in movers]
        effects = self._into(every_head(self.model), receivers, together=True)[0]
        dims = self.model.dims
        self._put("into_queries", effects.reshape(dims.n_layers, dims.n_heads, -1))

    def _into(
        self, senders: Sequence[Head], receivers: Sequence[Receiver], *, together: bool
    ) -> Float[np.ndarray, "receiver sender prompt"]:
        done, total = 0, len(self.paths) * len(senders)

        def tick(_text: str) -> None:
            nonlocal done
            done += 1
            self._tell(done / total)

        parts = [one.into_heads(senders, receivers, tick, together=together) for one in self.paths]
        return gather(parts, self.groups)

    def _link(self) -> None:
        """Paths between the heads with a class, and those that matter without one."""
        drawn = self._chosen()
        if not drawn:
            return
        receivers = [Receiver(*head, part) for head in drawn for part in INPUTS_OF_HEADS]
        effects = self._into(drawn, receivers, together=False)
        bands = np.stack(mean_band(np.moveaxis(effects, -1, 0)))  # end receiver sender
        outputs = gather([one.into_logits(drawn, lambda text: None) for one in self.paths], self.groups)
        self.outputs = np.stack(mean_band(outputs.T))
        self.edges = bands.reshape(3, len(drawn), len(INPUTS_OF_HEADS), len(drawn)).transpose(0, 3, 1, 2)
        self.drawn = drawn

    def _chosen(self) -> tuple[Head, ...]:
        """At most `most_drawn` heads that are not "none": habits alone come last, larger effects first."""
        found = self.result()
        verdicts = found.verdicts()
        names = ("direct", "ablated", "ablated_later", "into_queries")
        kinds = [list(QUANTITIES).index(name) for name in names]
        largest = np.nan_to_num(np.abs(found.means[kinds])).max(0)
        heads = [place for place, verdict in verdicts.items() if verdict.label != "none"]
        heads.sort(key=lambda place: (verdicts[place].label in HABITS, -largest[place]))
        return tuple(sorted(heads[: self.inputs.most_drawn]))

    # --- keeping and telling ---

    def _put(self, quantity: str, samples: Float[np.ndarray, "layer head sample"]) -> None:
        self.bands[:, list(QUANTITIES).index(quantity)] = mean_band(np.moveaxis(samples, -1, 0))

    def _over_groups(self, measure: Callable[[Group], np.ndarray]) -> np.ndarray:
        return gather([measure(group) for group in self.groups], self.groups)

    def _next(self) -> None:
        self.ran += 1
        self._tell(0.0)

    def _tell(self, share: float) -> None:
        if self.on_step is None:
            return
        number = min(self.ran, len(_STEPS) - 1)
        passed = time.perf_counter() - self.started
        done = number + share
        left = None if done <= 0.5 else passed / done * (len(_STEPS) - done)
        text = _STEPS[number]
        partial = self.result() if share == 0.0 and self.ran > 0 else None
        self.on_step(Step(round(100 * done), 100 * len(_STEPS), left, partial, text))

    def result(self, *, cancelled: bool = False) -> HeadClassesResult:
        """The numbers so far."""
        baseline = np.array([float(end) for end in mean_band(self.clean)])
        return HeadClassesResult(
            inputs=self.inputs,
            provenance=Provenance.of(self.model, seed=self.inputs.seed),
            n=len(self.clean),
            baseline=baseline,
            accuracy=float((self.clean > 0).mean()),
            has_names=all("S1" in group.roles and "S2" in group.roles for group in self.groups),
            means=self.bands[0].copy(),
            lows=self.bands[1].copy(),
            highs=self.bands[2].copy(),
            drawn=self.drawn,
            edges=self.edges[0],
            edge_lows=self.edges[1],
            edge_highs=self.edges[2],
            outputs=self.outputs[0],
            output_lows=self.outputs[1],
            output_highs=self.outputs[2],
            warnings=tuple(self._warnings(baseline, cancelled=cancelled)),
            checks=self.checks,
            seconds=time.perf_counter() - self.started,
            cancelled=cancelled,
        )

    def _warnings(self, baseline: np.ndarray, *, cancelled: bool) -> Iterator[str]:
        if not baseline[1] > 0:
            yield (
                "The model does not tell the right answer from the wrong one on this task: the mean logit "
                f"difference is {baseline[0]:.2f} logits. Classes mean nothing then."
            )
        small = [len(group) for group in self.groups if len(group) < FEW]
        if small and self.inputs.ablation == "mean":
            yield (
                f"{len(small)} of {len(self.groups)} forms of prompt have fewer than {FEW} prompts: a mean "
                "over them still knows them. Use more prompts."
            )
        if not all({"IO", "S1", "S2", "end"} <= set(group.roles) for group in self.groups):
            yield "This task names no IO, S1 and S2: only habits and effects of ablation are measured."
        if cancelled:
            step = _STEPS[min(self.ran, len(_STEPS) - 1)]
            yield f"It was stopped during: {step}. What comes after is missing."
