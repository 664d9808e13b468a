"""Which parts does the answer need? Everything is taken out once, one part at a time.

    effect[part] = metric(run without the part) - metric(baseline)

Parts: every head; attention and MLP of every layer; every edge from the last token to a key (all heads of a
layer, or single heads); every key, which nobody reads any more from a layer on (the token itself neither).
A head or module is replaced by zero, by its mean over reference prompts, or by its value in a second prompt
of equal length. Edges are cut before the softmax, so the rest of the row still sums to 1; a row without any
key left gives zero. All of it is read at the last position: KL is KL(baseline || edited), ranks count from 1.

Noise floor: the median of |effect| over all cells that were run; half of the parts do no more. There is no
other spread to go by: the runs have no randomness in them.

Cost: two passes, the references, then one sweep; a part at layer l recomputes the layers from l on. The
largest effect is computed again by a whole pass and compared.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch

from mi_core.analyses.ablation_sweep_inputs import AblationSweepInputs, JointAblationInputs
from mi_core.analyses.ablation_sweep_reading import Effects, Question, ask
from mi_core.analyses.ablation_sweep_result import AblationSweepResult, JointAblationResult
from mi_core.analyses.ablation_sweep_units import units_of
from mi_core.analyses.causal_trace_checks import TOLERANCE
from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.causal_trace_result import Step
from mi_core.analyses.causal_trace_warnings import HALF_PRECISION
from mi_core.analyses.interventions import Reference, compile_edits, parse_interventions, reference_of
from mi_core.engine import Base, Edit, Plan, Variant, plan, sweep
from mi_core.errors import Cancelled, InputError
from mi_core.model.model import LoadedModel
from mi_core.provenance import Provenance
from mi_core.tokens import tokenize, visible_token

OnStep = Callable[[Step[AblationSweepResult]], None]
OnJointStep = Callable[[Step[JointAblationResult]], None]

MIN_SECONDS_BETWEEN_STEPS = 0.1  # progress is for eyes; a partial result copies the grid


def ablation_sweep(
    model: LoadedModel, inputs: AblationSweepInputs, *, on_step: OnStep | None = None
) -> AblationSweepResult:
    """Take every part out once; the module docstring has the formula.

    Args:
        model: a loaded model.
        inputs: prompt, parts, what stands in their place.
        on_step: told of progress, with the result so far; may raise `Cancelled` to stop.

    Returns:
        The complete result; after `Cancelled`, what was done until then (`result.cancelled`).

    Raises:
        InputError: the inputs do not fit the model or each other.
        SiteMissing: the model lacks a site that is needed.
        OutOfMemory: the device is too small for a single part.
    """
    started = time.perf_counter()
    sweeper = _Sweeper(model, inputs, on_step, started)
    try:
        sweeper.report(0.0, "the baseline is done")
        outcome = sweep(
            model, sweeper.effects.base, sweeper.variants, read=sweeper.effects.reader,
            on_chunk=sweeper.on_chunk, on_tick=sweeper.on_tick,
        )  # fmt: skip
    except Cancelled:
        return sweeper.result(cancelled=True)
    if outcome.cancelled:
        return sweeper.result(cancelled=True)
    checks = sweeper.checks()
    return replace(sweeper.result(), checks=checks, seconds=time.perf_counter() - started)


def ablation_sweep_plan(model: LoadedModel, inputs: AblationSweepInputs) -> Plan:
    """Cost of a sweep before it runs: tokens are counted, nothing is computed.

    Raises:
        InputError: see `ablation_sweep`.
    """
    prompt = tokenize(model.tokenizer, inputs.prompt, bos=inputs.bos)
    flat = units_of(inputs, model.dims.n_layers, model.dims.n_heads, len(prompt)).flat
    # What stands in the place of a part does not change what it costs.
    forms = [text.replace(":mean", ":zero").replace(":resample", ":zero") for text in flat]
    variants = [Variant(tuple(compile_edits(model, prompt.ids, parse_interventions(form)))) for form in forms]
    return plan(model, Base(torch.tensor([prompt.ids])), variants)


class _Sweeper:
    """Fills the grid while the sweep runs, and tells the caller."""

    def __init__(
        self, model: LoadedModel, inputs: AblationSweepInputs, on_step: OnStep | None, started: float
    ) -> None:
        self.model, self.inputs, self.on_step, self.started = model, inputs, on_step, started
        question = ask(model, inputs)
        units = units_of(inputs, model.dims.n_layers, model.dims.n_heads, len(question.prompt))
        reference, self.note = reference_for(model, inputs, f"{inputs.interventions},{units.flat[0]}")
        self.effects = Effects(model, question, _edits(model, question, inputs.interventions, reference))
        self.variants = [Variant(tuple(_edits(model, question, text, reference))) for text in units.flat]
        self.texts = units.flat
        self.values = np.full((len(question.metrics), *units.shape), np.nan)
        self.top_ids, self.done = np.full(units.shape, -1, np.int64), np.zeros(units.shape, bool)
        self.vocabulary: dict[int, str] = {}
        self.provenance, self.warnings = Provenance.of(model), _warnings(model, question)
        self.swept_from, self.last_step = time.perf_counter(), 0.0

    def on_chunk(self, done: int, total: int, indices: np.ndarray, numbers: dict[str, np.ndarray]) -> None:
        """Put the numbers of some cells into the grid."""
        place = np.unravel_index(indices, self.done.shape)
        self.values[:, *place] = self.effects.values(numbers)
        self.top_ids[place], self.done[place] = numbers["top1"][:, 0], True
        self.report(done / max(1, total), "taking parts out")

    def on_tick(self, share: float) -> None:
        """Between chunks: progress without new numbers."""
        if time.perf_counter() - self.last_step > MIN_SECONDS_BETWEEN_STEPS:
            self.report(share, "taking parts out")

    def report(self, share: float, text: str) -> None:
        """Tell the caller; may raise Cancelled."""
        if self.on_step is None:
            return
        passed = time.perf_counter() - self.swept_from
        left = passed * (1 - share) / share if share > 0 else None
        so_far = self.result(copy=True)
        self.on_step(Step(int(self.done.sum()), self.done.size, left, so_far, text))
        self.last_step = time.perf_counter()

    def result(self, *, cancelled: bool = False, copy: bool = False) -> AblationSweepResult:
        """The result so far."""
        question, dims = self.effects.question, self.model.dims
        for token in {self.effects.top, *np.unique(self.top_ids[self.done]).tolist()} - set(self.vocabulary):
            self.vocabulary[token] = visible_token(self.model.tokenizer, token)
        values, top_ids, done = self.values, self.top_ids, self.done
        if copy:
            values, top_ids, done = values.copy(), top_ids.copy(), done.copy()
        return AblationSweepResult(
            inputs=self.inputs,
            provenance=self.provenance,
            tokens=question.prompt.tokens,
            n_layers=dims.n_layers,
            n_heads=dims.n_heads,
            answer=question.answer,
            distractor=question.distractor,
            metrics=question.metrics,
            baseline=self.effects.baseline,
            values=values,
            top_ids=top_ids,
            done=done,
            vocabulary=dict(self.vocabulary),
            base_top=self.effects.top,
            reference_note=self.note,
            warnings=self.warnings,
            seconds=time.perf_counter() - self.started,
            cancelled=cancelled,
        )

    def checks(self) -> tuple[Check, ...]:
        """The largest effect again, by a whole pass."""
        index = int(np.argmax(np.abs(self.values[0] - self.effects.baseline[0])))
        again = self.effects.whole_pass(self.model, self.variants[index].edits)
        found = self.values[0].ravel()[index]
        gap = abs(float(again[0] - found))
        return (
            Check(
                "the largest effect, by a whole forward pass",
                gap <= TOLERANCE[self.model.dtype],
                f"{self.texts[index][:80]}: P(answer) differs by {gap:.1e} from what the sweep found.",
            ),
        )


def joint_ablation(
    model: LoadedModel, inputs: JointAblationInputs, *, on_step: OnJointStep | None = None
) -> JointAblationResult:
    """Each intervention of a list alone, and all of them together.

    The sum of the single effects equals the joint effect where they do not interact. Parts that can stand in
    for each other have a larger joint effect; parts that do their work one after the other a smaller one.

    Args:
        model: a loaded model.
        inputs: prompt and list.
        on_step: told of progress; may raise `Cancelled`.

    Raises:
        InputError: the list is empty or does not fit the model and the prompt.
        SiteMissing: the model lacks a site that is needed.
    """
    started = time.perf_counter()
    question = ask(model, inputs)
    listed = parse_interventions(inputs.interventions)
    if not listed:
        raise InputError("The list of interventions is empty", fix="Add one, such as L1H2:zero")
    reference, _ = reference_for(model, inputs, inputs.interventions)
    effects = Effects(model, question)
    groups = [*([one] for one in listed), list(listed)]
    runs = [compile_edits(model, question.prompt.ids, group, reference) for group in groups]

    def tick(share: float) -> None:
        if on_step is not None:
            on_step(Step(int(share * len(runs)), len(runs), None, None, "one at a time, then together"))

    values, cancelled = effects.swept(model, runs, tick)
    return JointAblationResult(
        inputs=inputs,
        provenance=Provenance.of(model),
        tokens=question.prompt.tokens,
        interventions=tuple(one.text for one in listed),
        answer=question.answer,
        distractor=question.distractor,
        metrics=question.metrics,
        baseline=effects.baseline,
        single=values[:, :-1],
        joint=values[:, -1],
        warnings=_warnings(model, question),
        checks=() if cancelled else _joint_checks(model, effects, runs[-1], values[:, -1]),
        seconds=time.perf_counter() - started,
        cancelled=cancelled,
    )


def _joint_checks(
    model: LoadedModel, effects: Effects, edits: Sequence[Edit], joint: np.ndarray
) -> tuple[Check, ...]:
    gap = abs(float(effects.whole_pass(model, edits)[0] - joint[0]))
    name = "all together, by a whole forward pass"
    return (Check(name, gap <= TOLERANCE[model.dtype], f"P(answer) differs by {gap:.1e}."),)


def _edits(model: LoadedModel, question: Question, text: str, reference: Reference | None) -> list[Edit]:
    return compile_edits(model, question.prompt.ids, parse_interventions(text), reference)


def _warnings(model: LoadedModel, question: Question) -> tuple[str, ...]:
    error = HALF_PRECISION.get(model.dtype)
    if error is None:
        return question.warnings
    name = str(model.dtype).removeprefix("torch.")
    said = f"The model runs in {name}: probabilities carry an error of about {error:g}."
    return (*question.warnings, said)


def reference_for(
    model: LoadedModel, inputs: AblationSweepInputs | JointAblationInputs, text: str
) -> tuple[Reference | None, str]:
    """What a list needs for means and resampled values, and a sentence that says what it is.

    Raises:
        InputError: the set of reference prompts has another name, or there is no second prompt.
    """
    listed = parse_interventions(text)
    if not any(one.needs_mean or one.needs_second_prompt for one in listed):
        return None, ""
    reference = reference_of(model, inputs.reference, second_prompt=inputs.second_prompt, bos=inputs.bos)
    said = []
    if any(one.needs_mean for one in listed):
        n_tokens = len(tokenize(model.tokenizer, inputs.prompt, bos=inputs.bos))
        over = "at each position" if reference.by_position(n_tokens) else "over all their positions"
        said.append(
            f"Mean over the {len(reference.mean_ids)} reference prompts {inputs.reference!r}, {over}."
        )
    if any(one.needs_second_prompt for one in listed):
        said.append("Resampled values are those of the second prompt at the same position.")
    return reference, " ".join(said)
