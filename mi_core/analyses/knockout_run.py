"""Knock-out: what does the model say when parts of it are cut, zeroed, scaled or replaced?

    baseline = the model reads the prompt;  edited = the same pass with the list of interventions
    effect   = edited - baseline, of probability, logit and logit difference at the last token
    KL(baseline || edited) = sum over the vocabulary of p log(p / p'), from float64 log-softmax, all terms

An edge is cut before the softmax and after a softcap, so its weight is exactly zero and its row sums to 1. A
scaled edge is multiplied after the softmax and its row divided by its sum; an edge that is set gets exactly
its value and the rest of the row is multiplied by one factor. A mean is over the reference prompts, per
position if all are as long as the prompt. Source of the knock-out of edges: Geva et al. 2023; of mean and
resample ablation: Wang et al. 2022, Chan et al. 2022.

Cost: three forward passes (the third shows that nothing is left behind), one per reference prompt if a mean
is asked for, one for prompt B, and two greedy continuations.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mi_core.analyses.attribution_inputs import parse_head
from mi_core.analyses.before_after_run import check_edited, numbers_of, read_warnings, room
from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.causal_trace_result import Step
from mi_core.analyses.interventions import (
    Intervention,
    Reference,
    compile_edits,
    parse_interventions,
    reference_of,
)
from mi_core.analyses.interventions_reference import REFERENCES
from mi_core.analyses.knockout_inputs import KnockoutInputs
from mi_core.analyses.knockout_look import Looked, attention_checks, cut_rows_of, look_at_attention
from mi_core.analyses.knockout_result import KnockoutResult
from mi_core.analyses.knockout_warnings import knockout_warnings
from mi_core.answers import AnswerChoice, choose_answer
from mi_core.engine import Edit, Generated, generate
from mi_core.errors import Cancelled, InputError
from mi_core.model.model import LoadedModel
from mi_core.provenance import Provenance
from mi_core.tokens import TokenizedPrompt, tokenize, visible_token

OnStep = Callable[[Step], None]
STEPS = 4


def knockout(model: LoadedModel, inputs: KnockoutInputs, *, on_step: OnStep | None = None) -> KnockoutResult:
    """Run a prompt without and with a list of interventions.

    Args:
        model: the loaded model.
        inputs: prompt, list, tokens to follow, heads to show.
        on_step: told between passes; may raise `Cancelled`, and then there is no result.

    Raises:
        InputError: the list cannot be read, or does not fit the model or the prompt; the piece is named.
        SiteMissing: the model does not have what is to be changed.
        OutOfMemory: the device is too small.
    """
    started, report = time.perf_counter(), on_step or (lambda step: None)
    report(Step(0, STEPS, None, None, "reads the prompt"))
    asked = _ask(model, inputs)
    passes = []
    for number, edits in enumerate(((), asked.edits, ())):  # the third shows that no edit stays behind
        passes.append(look_at_attention(model, asked.prompt.ids, edits, asked.edits, asked.pins))
        report(Step(number + 1, STEPS, None, None, "passes"))
    baseline, edited, again = passes
    check_edited(edited.logits, "a value or factor")
    continued = _continue(model, asked, report)
    return _result(model, asked, (baseline, edited, again), continued, started)


@dataclass(frozen=True, slots=True, eq=False)
class _Asked:
    """The inputs, resolved on the model."""

    inputs: KnockoutInputs
    prompt: TokenizedPrompt
    interventions: tuple[Intervention, ...]
    reference: Reference
    edits: tuple[Edit, ...]
    answer: AnswerChoice | None
    distractor: AnswerChoice | None
    pins: tuple[tuple[int, int], ...]

    @property
    def uses_mean(self) -> bool:
        return any(one.needs_mean for one in self.interventions)


def _ask(model: LoadedModel, inputs: KnockoutInputs) -> _Asked:
    prompt = tokenize(model.tokenizer, inputs.prompt, bos=inputs.bos)
    interventions = parse_interventions(inputs.interventions)
    reference = reference_of(
        model,
        inputs.reference,
        second_prompt=inputs.second_prompt,
        prompts=inputs.reference_prompts,
        bos=inputs.bos,
    )
    edits = compile_edits(model, prompt.ids, interventions, reference)
    answer, distractor = (
        None if text is None else choose_answer(model.tokenizer, prompt, text)
        for text in (inputs.answer, inputs.distractor)
    )
    return _Asked(
        inputs, prompt, interventions, reference, tuple(edits), answer, distractor, _pins(model, inputs)
    )


def _pins(model: LoadedModel, inputs: KnockoutInputs) -> tuple[tuple[int, int], ...]:
    pins = tuple(parse_head(name) for name in inputs.pinned_heads)
    for name, (layer, head) in zip(inputs.pinned_heads, pins, strict=True):
        if layer >= model.dims.n_layers or head >= model.dims.n_heads:
            raise InputError(
                f"There is no head {name} to pin",
                why=f"the model has layers 0 to {model.dims.n_layers - 1} with heads 0 to "
                f"{model.dims.n_heads - 1}",
            )
    return pins


def _continue(
    model: LoadedModel, asked: _Asked, report: OnStep
) -> tuple[Generated | None, Generated | None, str]:
    """Greedy continuations of both runs, and where the edits act meanwhile."""
    ids = asked.prompt.ids
    by_position = asked.uses_mean and asked.reference.by_position(len(ids))
    where = "prompt" if by_position or any(one.needs_second_prompt for one in asked.interventions) else "all"
    steps = room(model, len(ids), asked.inputs.continuation)
    if not steps:
        return None, None, where

    def on_token(count: int, _token: int) -> None:
        report(Step(3, STEPS, None, None, f"continues, token {count}"))

    baseline = generate(model, ids, steps=steps, on_token=on_token)
    edited = baseline
    if asked.edits:
        edited = generate(model, ids, steps=steps, edits=asked.edits, where=where, on_token=on_token)
    if "cancelled" in (baseline.stopped, edited.stopped):
        raise Cancelled
    return baseline, edited, where


def _result(
    model: LoadedModel,
    asked: _Asked,
    passes: tuple[Looked, Looked, Looked],
    continued: tuple[Generated | None, Generated | None, str],
    started: float,
) -> KnockoutResult:
    baseline, edited, again = passes
    logits = torch.stack([baseline.logits, edited.logits])
    probabilities = logits.log_softmax(-1).exp()
    changed = _changed(probabilities, asked.inputs.top)
    before, after, where = continued
    both = [() if one is None else one.ids for one in (before, after)]
    shown = [*changed.tolist(), *both[0], *both[1]]
    return KnockoutResult(
        inputs=asked.inputs,
        provenance=Provenance.of(model),
        tokens=asked.prompt.tokens,
        **numbers_of(model, logits, asked.answer, asked.distractor),
        interventions=tuple(one.text for one in asked.interventions),
        reference_prompts=_reference_prompts(asked),
        mean_by_position=asked.uses_mean and asked.reference.by_position(len(asked.prompt)),
        changed_ids=changed.numpy(),
        changed_probabilities=probabilities[:, changed].numpy(),
        baseline_ids=np.array(both[0], dtype=np.int64),
        edited_ids=np.array(both[1], dtype=np.int64),
        continued_where=where,
        vocabulary={token: visible_token(model.tokenizer, token) for token in sorted(set(shown))},
        window=baseline.window,
        patterns=np.stack([baseline.patterns, edited.patterns]),
        cut_rows=cut_rows_of(edited),
        n_layers=model.dims.n_layers,
        n_heads=model.dims.n_heads,
        d_model=model.dims.d_model,
        warnings=(
            *read_warnings(asked.answer, asked.distractor),
            *knockout_warnings(asked.interventions, asked.reference, passes, asked.prompt, where),
        ),
        checks=(_nothing_left(baseline, edited, again, asked), *attention_checks(edited, model.dtype)),
        seconds=time.perf_counter() - started,
    )


def _changed(probabilities: Tensor, count: int) -> Tensor:
    """Tokens whose probability changes most; of equal changes the lower id first."""
    change = (probabilities[1] - probabilities[0]).abs()
    return torch.argsort(change, descending=True, stable=True)[:count]


def _reference_prompts(asked: _Asked) -> tuple[str, ...]:
    if not asked.uses_mean:
        return ()
    return asked.inputs.reference_prompts or REFERENCES[asked.inputs.reference]


def _nothing_left(baseline: Looked, edited: Looked, again: Looked, asked: _Asked) -> Check:
    """An empty list is the baseline bit for bit, and removing the list gives the baseline again."""
    same = torch.equal(baseline.logits, again.logits)
    if asked.edits:
        name = "without the list the baseline returns, bit for bit"
    else:
        name, same = (
            "an empty list is the baseline, bit for bit",
            same and torch.equal(baseline.logits, edited.logits),
        )
    off = float((baseline.logits - again.logits).abs().max())
    return Check(name, same, f"Largest difference of a logit: {off:g}.")
