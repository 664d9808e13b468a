"""Runs a causal trace for every prompt of a set and averages by token role; see `causal_trace_average_types`.

Cost: one causal trace per prompt that the model gets right, two forward passes for each of the others.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from mi_core.analyses.cases import Case
from mi_core.analyses.causal_trace_average_inputs import ROLES, CausalTraceAverageInputs, token_roles
from mi_core.analyses.causal_trace_average_types import CausalTraceAverageResult, SkippedCase, UsedCase
from mi_core.analyses.causal_trace_corruption import differing_span
from mi_core.analyses.causal_trace_inputs import Kind
from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.causal_trace_prepare import Prepared, prepare
from mi_core.analyses.causal_trace_result import CausalTraceResult, Step
from mi_core.analyses.causal_trace_run import trace_prepared
from mi_core.analyses.causal_trace_warnings import WEAK_EFFECT, percent
from mi_core.errors import Cancelled, InputError
from mi_core.model.model import LoadedModel
from mi_core.provenance import Provenance
from mi_core.tokens import find_spans, tokenize, visible_token

OnAverageStep = Callable[[Step[CausalTraceAverageResult]], None]

FEW_PROMPTS = 20  # below this a bootstrap band is a rough guess
SECONDS_BETWEEN_PARTIALS = 0.2  # a partial result copies every prompt's sums


def causal_trace_average(
    model: LoadedModel, inputs: CausalTraceAverageInputs, *, on_step: OnAverageStep | None = None
) -> CausalTraceAverageResult:
    """Average causal traces over the prompts that the model gets right.

    Args:
        model: a loaded model.
        inputs: prompts and what to patch.
        on_step: told of progress after every prompt, with the averages so far; may raise `Cancelled` to stop.

    Returns:
        The averages; after `Cancelled`, those of the prompts done until then (`result.cancelled`).
    """
    gathered = _Gathered(model, inputs)
    for index, case in enumerate(inputs.cases):
        try:
            gathered.report(index, on_step)
            finished = gathered.add(index, case, on_step)
        except Cancelled:
            return gathered.result(cancelled=True)
        if not finished:
            return gathered.result(cancelled=True)
    try:
        gathered.report(len(inputs.cases), on_step)
    except Cancelled:
        return gathered.result()  # everything was done already
    return gathered.result()


@dataclass(slots=True)
class _Gathered:
    """What the prompts so far have given."""

    model: LoadedModel
    inputs: CausalTraceAverageInputs
    started: float = field(default_factory=time.perf_counter)
    used: list[UsedCase] = field(default_factory=list)
    skipped: list[SkippedCase] = field(default_factory=list)
    clean: list[float] = field(default_factory=list)
    corrupted: list[float] = field(default_factory=list)
    counts: list[list[int]] = field(default_factory=list)
    sums: dict[Kind, list[np.ndarray]] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    n_checks: int = 0
    drawn: float = 0.0

    def add(self, index: int, case: Case, on_step: OnAverageStep | None) -> bool:
        """Trace one prompt or note why not; False when the user stopped the trace half-way."""
        try:
            prepared = prepare(self.model, self.inputs.trace_inputs(case, self._subject(case)))
        except InputError as error:
            self.skipped.append(SkippedCase(index, error.what + (f": {error.why}" if error.why else "")))
            return True
        wrong = wrong_answer(prepared)
        if wrong:
            self.skipped.append(SkippedCase(index, wrong, wrong=True))
            return True
        watch = None if on_step is None else lambda _step: self.report(index, on_step, within=True)
        result = trace_prepared(prepared, on_step=watch, started=time.perf_counter(), partial=False)
        if result.cancelled:
            return False
        self._take(index, result)
        return True

    def _subject(self, case: Case) -> tuple[int, int] | None:
        """Tokens of the subject's first occurrence (as ROME); None where the differing tokens are meant."""
        noise = self.inputs.corruption == "noise"
        if not noise and case.corrupted_prompt is None:
            raise InputError("There is no corrupted prompt")
        if not case.subject and not noise:
            return None
        clean = tokenize(self.model.tokenizer, case.prompt, bos=self.inputs.bos)
        if not case.subject:
            if case.corrupted_prompt is None:
                raise InputError("There is no subject to put noise on")
            other = tokenize(self.model.tokenizer, case.corrupted_prompt, bos=self.inputs.bos)
            return differing_span(clean, other)
        spans = find_spans(clean, case.subject)
        if not spans:
            raise InputError(f"The subject {case.subject[:80]!r} is not in the prompt")
        return spans[0]

    def _take(self, index: int, result: CausalTraceResult) -> None:
        """Sum one trace's effects by role."""
        metric = self.inputs.metric
        roles = token_roles(len(result.tokens), result.subject)
        answer = "".join(result.answer.visible)
        self.used.append(UsedCase(index, len(result.tokens), result.subject, answer))
        self.clean.append(result.value(result.clean, metric))
        self.corrupted.append(result.value(result.corrupted, metric))
        self.counts.append([len(positions) for positions in roles])
        for kind in result.grids:
            effect = result.effect(kind, metric)
            by_role = np.stack([effect[list(positions)].sum(axis=0) for positions in roles])
            self.sums.setdefault(kind, []).append(by_role.astype(np.float64))
        self.n_checks += len(result.checks)
        self.failed += [f"prompt {index}: {check.name}" for check in result.checks if not check.passed]

    def report(self, done: int, on_step: OnAverageStep | None, *, within: bool = False) -> None:
        """Tell the caller; may raise Cancelled. `within` a prompt there is nothing new to draw."""
        if on_step is None:
            return
        now, total = time.perf_counter(), len(self.inputs.cases)
        left = (now - self.started) / done * (total - done) if done else None
        partial = None
        if self.used and not within and (now - self.drawn > SECONDS_BETWEEN_PARTIALS or done == total):
            partial, self.drawn = self.result(), now
        on_step(Step(done, total, left, partial, f"prompt {min(done + 1, total)} of {total}"))

    def result(self, *, cancelled: bool = False) -> CausalTraceAverageResult:
        """The averages so far."""
        n, n_layers = len(self.used), self.model.dims.n_layers
        empty = np.zeros((0, len(ROLES), n_layers))
        return CausalTraceAverageResult(
            inputs=self.inputs,
            provenance=Provenance.of(self.model, seed=self.inputs.seed),
            n_layers=n_layers,
            used=tuple(self.used),
            skipped=tuple(self.skipped),
            clean=np.array(self.clean, np.float64),
            corrupted=np.array(self.corrupted, np.float64),
            counts=np.array(self.counts, np.int64).reshape(n, len(ROLES)),
            sums={kind: np.stack(self.sums[kind]) if n else empty for kind in self.inputs.kinds},
            warnings=self._warnings(),
            checks=self._checks(),
            seconds=time.perf_counter() - self.started,
            cancelled=cancelled,
        )

    def _warnings(self) -> tuple[str, ...]:
        n, wrong = len(self.used), sum(case.wrong for case in self.skipped)
        other, warnings = len(self.skipped) - wrong, []
        if wrong:
            warnings.append(
                f"The model gets {wrong} of {n + wrong + other} prompts wrong; they are left out."
            )
        if other:
            warnings.append(f"{other} of {n + wrong + other} prompts cannot be traced; the list says why.")
        if n < FEW_PROMPTS:
            warnings.append(f"The average is over {n} prompt{'' if n == 1 else 's'}: its bands are rough.")
        if n and self.inputs.metric == "probability":
            effect = float(np.mean(self.clean) - np.mean(self.corrupted))
            if effect < WEAK_EFFECT:
                change = f"falls by {percent(effect)}" if effect >= 0 else f"rises by {percent(-effect)}"
                warnings.append(f"The corruption is weak: on average the answer's probability only {change}.")
        return tuple(warnings)

    def _checks(self) -> tuple[Check, ...]:
        if not self.n_checks:
            return ()
        detail = f"{self.n_checks} checks on {len(self.used)} prompts"
        shown = f"; failed: {', '.join(self.failed[:5])}" if self.failed else ", all passed"
        return (Check("identities of every single trace", not self.failed, detail + shown + "."),)


def wrong_answer(prepared: Prepared) -> str:
    """What the clean run says instead of the answer; "" if it gives all of its tokens, in order."""
    run = prepared.source_run if prepared.inputs.direction == "denoising" else prepared.base_run
    said = run.logits[0, list(prepared.read_positions)].argmax(-1).tolist()
    for token, wanted in zip(said, prepared.answer.ids, strict=True):
        if token != wanted:
            tokenizer = prepared.model.tokenizer
            return f"the model says {visible_token(tokenizer, token)}, not {visible_token(tokenizer, wanted)}"
    return ""
