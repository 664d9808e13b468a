"""Activation steering of attention: what happens when one token reads another more, or less?

    scale by f:  a -> f a / (1 - a + f a)      (the edge times f, then the row is made to sum to 1)
    set to s:    a -> s, the rest of the row times (1 - s) / (1 - a)
    effect[level] = metric(run with the edge at the level) - metric(baseline), read at the last position

Both act after the softmax. f = 1 changes nothing; f = 0 and s = 0 remove the edge (as a cut does). In several
layers the attention `a` of each is the one that the edited layers below lead to.

Cost: two passes, one sweep with a run per level, and a pass per level that measures the attention that came
out; what it gives at the last position is compared with the sweep.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mi_core.analyses.ablation_sweep_reading import Effects, Question, ask
from mi_core.analyses.attention_dose_inputs import AttentionDoseInputs
from mi_core.analyses.attention_dose_result import AttentionDoseResult
from mi_core.analyses.causal_trace_checks import TOLERANCE
from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.causal_trace_result import Step
from mi_core.analyses.interventions import Intervention, compile_edits
from mi_core.engine import Edit, run
from mi_core.errors import Cancelled, InputError
from mi_core.model.model import LoadedModel
from mi_core.provenance import Provenance

OnStep = Callable[[Step[AttentionDoseResult]], None]


def attention_dose(
    model: LoadedModel, inputs: AttentionDoseInputs, *, on_step: OnStep | None = None
) -> AttentionDoseResult:
    """The dose curve of one attention edge; the module docstring has the formula.

    Args:
        model: a loaded model.
        inputs: prompt, edge, levels.
        on_step: told of progress; may raise `Cancelled` to stop.

    Returns:
        The complete result; after `Cancelled`, what was done until then (`result.cancelled`).

    Raises:
        InputError: the edge is not part of the model or the prompt, or reads the future.
        SiteMissing: the model's attention cannot be edited.
    """
    started = time.perf_counter()
    question = ask(model, inputs)
    if inputs.wished is not None and inputs.metric not in question.metrics:
        raise InputError(
            f"The metric {inputs.metric!r} needs a distractor", fix="Give one, or wish in another"
        )
    runs = [_edits(model, question, inputs, level) for level in inputs.levels]
    effects = Effects(model, question)
    _, before = _measure(model, question, inputs, [])

    def report(done: int, text: str) -> None:
        if on_step is not None:
            on_step(Step(done, 2 * len(runs), None, None, text))

    curve = _curve(model, effects, inputs, runs, report)
    return AttentionDoseResult(
        inputs=inputs,
        provenance=Provenance.of(model),
        tokens=question.prompt.tokens,
        edge=_edge(question, inputs, None).text,
        answer=question.answer,
        distractor=question.distractor,
        metrics=question.metrics,
        baseline=effects.baseline,
        values=curve.values,
        attention=curve.attention,
        base_attention=before,
        warnings=question.warnings,
        checks=() if curve.cancelled else _checks(model, inputs, curve),
        seconds=time.perf_counter() - started,
        cancelled=curve.cancelled,
    )


@dataclass(slots=True)
class _Curve:
    """What is measured at every level; NaN at those that were not reached."""

    values: Float[np.ndarray, "metric level"]
    attention: Float[np.ndarray, "level"]
    again: Float[np.ndarray, "level"]
    cancelled: bool = False


def _curve(
    model: LoadedModel,
    effects: Effects,
    inputs: AttentionDoseInputs,
    runs: list[list[Edit]],
    report: Callable[[int, str], None],
) -> _Curve:
    """The sweep over levels, then every level by a whole pass that measures the attention that came out."""
    n_metrics, n_levels = len(effects.question.metrics), len(runs)
    nothing = np.full(n_levels, np.nan)
    curve = _Curve(np.full((n_metrics, n_levels), np.nan), nothing.copy(), nothing.copy())
    try:
        report(0, "the baseline is done")
        curve.values, curve.cancelled = effects.swept(
            model, runs, lambda share: report(int(share * n_levels), "levels")
        )
        for index, edits in enumerate([] if curve.cancelled else runs):
            logits, curve.attention[index] = _measure(model, effects.question, inputs, edits)
            curve.again[index] = effects.of(logits)[0]
            report(n_levels + index + 1, "measuring the attention")
    except Cancelled:
        curve.cancelled = True
    return curve


def _edge(question: Question, inputs: AttentionDoseInputs, level: float | None) -> Intervention:
    query = len(question.prompt) - 1 if inputs.query is None else inputs.query
    places = () if inputs.layer is None else ((inputs.layer, inputs.head),)
    mode = "cut" if level is None else inputs.kind
    return Intervention("edge", mode, places, level, query=query, key=inputs.key)


def _edits(model: LoadedModel, question: Question, inputs: AttentionDoseInputs, level: float) -> list[Edit]:
    return compile_edits(model, question.prompt.ids, [_edge(question, inputs, level)])


def _measure(
    model: LoadedModel, question: Question, inputs: AttentionDoseInputs, edits: list[Edit]
) -> tuple[Tensor, float]:
    """Logits at the last position, and the edge's attention, mean over the chosen layers and heads."""
    edge = _edge(question, inputs, None)
    layers = range(model.dims.n_layers) if inputs.layer is None else (inputs.layer,)
    head = slice(None) if inputs.head is None else slice(inputs.head, inputs.head + 1)
    seen = run(
        model, question.ids, capture=[("pattern", layer) for layer in layers], edits=edits, last=1,
        reduce=lambda _, pattern: pattern[0, head, edge.query, edge.key].double().cpu(),
    )  # fmt: skip
    return seen.logits, float(torch.cat([seen["pattern", layer] for layer in layers]).mean())


def _checks(model: LoadedModel, inputs: AttentionDoseInputs, curve: _Curve) -> tuple[Check, ...]:
    limit = TOLERANCE[model.dtype]
    gap = float(np.abs(curve.values[0] - curve.again).max())
    passes = Check(
        "every level again, by a whole forward pass", gap <= limit,
        f"{len(curve.again)} levels; P(answer) differs by at most {gap:.1e}.",
    )  # fmt: skip
    if inputs.kind == "scale":
        return (passes,)
    off = float(np.abs(curve.attention - np.array(inputs.levels)).max())
    return (
        passes,
        Check("the attention is what it was set to", off <= limit, f"It is off by {off:.1e} at most."),
    )
