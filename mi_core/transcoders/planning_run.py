"""The planning-in-poems experiment: where does a push towards another word act, and by which way?

    for every token p and strength s, in a pass of its own:
        y_m[p] -> y_m[p] + s (sum over injected f of W_dec_f,m - sum over suppressed f of W_dec_f,m)
    values   = what the model then says at the last token (the output position)
    direct   = the same with p = output and every later layer as in the baseline: only the final norm and the
               unembedding see the push
    frozen   = for every p, the change of the logit when attention patterns, norm scales and MLPs are held
               (`linear`): what attention carries to the output as it stands, to first order in s
    mediated = values - direct: the way through later attention and MLPs. At any other token direct is the
               baseline, as only attention carries something from there to the output.

At the chosen strength also the injected and the suppressed features alone: taking a word away may be enough
to bring another one up. Controls, at that strength too: other features of the same layers in place of the
injected ones, and the edit turned at random (lengths of every layer's vector and the angles between layers
are kept). Of each draw it is also read which token rises most at the output position: features often push a
token of their own there, which is no plan.

Experiment: Lindsey et al. 2025 (transformer-circuits.pub, "On the Biology of a Large Language Model",
planning in poems). Cost: one sweep of tokens x (strengths + 2 x controls) runs that share everything before
their edit, and two whole passes for the checks.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float
from torch import Tensor

from mi_core.analyses.ablation_sweep_reading import Effects
from mi_core.analyses.causal_trace_result import Step
from mi_core.engine import SweepResult, Variant, sweep
from mi_core.metrics import exact_logits
from mi_core.model.model import LoadedModel
from mi_core.provenance import Provenance
from mi_core.transcoders.names import format_features
from mi_core.transcoders.planning_checks import planning_checks
from mi_core.transcoders.planning_inputs import PlanningInputs
from mi_core.transcoders.planning_result import METRICS, PlanningResult
from mi_core.transcoders.planning_setup import Setup, prepare, variants
from mi_core.transcoders.planning_ways import activations, direct_way, frozen_way, push_ratio
from mi_core.transcoders.planning_words import planning_warnings
from mi_core.visible import visible_token

OnStep = Callable[[Step[PlanningResult]], None]
PART = 1_000
"""Runs of the sweep that are finished together."""


def planning(model: LoadedModel, inputs: PlanningInputs, *, on_step: OnStep | None = None) -> PlanningResult:
    """Push features at every token in turn; the module docstring has the formulas.

    Args:
        model: a loaded model.
        inputs: features, strengths, controls, what is read.
        on_step: told of progress; may raise `Cancelled` to stop.

    Returns:
        The complete result; after `Cancelled` in the sweep, what was done until then (`result.cancelled`).

    Raises:
        InputError: the prompt, a feature or a position is not there.
        TranscoderError: there is no such transcoder, it does not fit the model, or it has no decoder here.
        SiteMissing: the model does not have the site that the transcoder writes to.
    """
    started = time.perf_counter()
    setup = prepare(model, inputs)
    plan = variants(setup)

    def tell(done: int) -> None:
        if on_step is not None:
            spent = time.perf_counter() - started
            left = spent * (len(plan) - done) / done if done else None
            on_step(Step(done, len(plan), left, None, "pushes"))

    tell(0)
    return _result(setup, _sweep_in_parts(setup, plan, tell), started)


def _sweep_in_parts(setup: Setup, plan: Sequence[Variant], tell: Callable[[int], None]) -> SweepResult:
    """The sweep a few runs at a time, the chosen strength first: who stops it keeps the runs that are whole.

    One sweep of all finishes everything in its last layers, and so nothing before.
    """
    read, done, finished = _reader(setup.effects), np.zeros(len(plan), bool), 0
    values: dict[str, np.ndarray] = {}
    parts: list[SweepResult] = []
    for group in _groups(setup, len(plan)):
        part = [plan[index] for index in group]

        def tick(share: float, before: int = finished, count: int = len(part)) -> None:
            tell(before + int(share * count))

        parts.append(sweep(setup.model, setup.effects.base, part, read=read, on_tick=tick))
        for name, found in parts[-1].values.items():
            nothing = np.nan if found.dtype.kind == "f" else -1
            whole = np.full((len(plan), *found.shape[1:]), nothing, found.dtype)
            values.setdefault(name, whole)[group] = found
        done[group] = parts[-1].done
        finished += len(part)
        if parts[-1].cancelled:
            break
    return replace(parts[-1], values=values, done=done)


def _groups(setup: Setup, total: int) -> list[list[int]]:
    """Places in the plan, whole runs together, about `PART` at a time; the chosen strength comes first."""
    count, chosen = len(setup.positions), setup.inputs.doses.index(float(setup.inputs.strength))
    runs = list(range(total // count))
    runs.insert(0, runs.pop(setup.live.index(chosen)))
    size = max(1, PART // count)
    return [
        [run * count + place for run in runs[start : start + size] for place in range(count)]
        for start in range(0, len(runs), size)
    ]


def _reader(effects: Effects) -> Callable[[Tensor], dict[str, Tensor]]:
    """The usual numbers, and the token whose logit rose most."""
    clean = effects.reader.clean_log_p  # the logits but for a constant, which changes no difference

    def read(logits: Float[Tensor, "variant row read vocab"]) -> dict[str, Tensor]:
        first = exact_logits(logits[:, :, 0])
        risen = (first - clean).argmax(-1)
        own = first.gather(-1, risen[..., None])
        return {
            **effects.reader(logits),
            "risen": risen,
            "risen_after": (own[..., 0] - first.logsumexp(-1)).exp(),
            "risen_rank": 1 + (first > own).sum(-1).to(first.dtype),
        }

    return read


def _table(
    setup: Setup, outcome: SweepResult
) -> tuple[Float[np.ndarray, "metric run position"], Float[np.ndarray, "run position"]]:
    """The sweep's numbers, runs by positions, and the distractor's probability; NaN where not done."""
    count = len(setup.positions)
    flat = np.full((len(METRICS), len(outcome.done)), np.nan)
    other = np.full(len(outcome.done), np.nan)
    if outcome.done.any():
        numbers = {name: values[outcome.done] for name, values in outcome.values.items()}
        flat[:, outcome.done] = [numbers[metric][:, 0].astype(np.float64) for metric in METRICS]
        if setup.question.distractor is not None:
            apart = numbers["log_probability"][:, 0] - numbers["logit_difference"][:, 0]
            other[outcome.done] = np.exp(apart.astype(np.float64))
    return flat.reshape(len(METRICS), -1, count), other.reshape(-1, count)


def _result(setup: Setup, outcome: SweepResult, started: float) -> PlanningResult:
    inputs, question, model = setup.inputs, setup.question, setup.model
    table, other = _table(setup, outcome)
    start, live, draws = _baseline(setup), setup.live, setup.draws
    values = np.tile(start[:, None, None], (1, len(inputs.doses), len(setup.positions)))
    values[:, live] = table[:, : len(live)]
    apart = _distractor_baseline(setup)
    distractor = np.full((len(inputs.doses), len(setup.positions)), apart)
    distractor[live] = other[: len(live)]
    risen, ratio = _risen(setup, outcome), push_ratio(setup)
    direct, direct_error = direct_way(setup)
    frozen, refused = frozen_way(setup)
    return PlanningResult(
        inputs=inputs,
        provenance=Provenance.of(model, seed=inputs.seed),
        transcoder=setup.transcoder.name,
        source="lantern",
        tokens=question.prompt.tokens,
        answer=question.answer,
        distractor=question.distractor,
        features=tuple(feature.text for feature in setup.listed),
        positions=setup.positions,
        baseline=start,
        values=values,
        parts=table[:, len(live) : draws.start],
        direct=direct,
        frozen=frozen,
        random_features=table[:, draws],
        drawn=tuple(format_features(one) for one in setup.drawn),
        risen_ids=risen["ids"],
        risen=tuple(visible_token(model.tokenizer, int(one)) if one >= 0 else "" for one in risen["ids"]),
        risen_before=risen["before"],
        risen_after=risen["after"],
        risen_rank=risen["rank"],
        random_rotations=table[:, draws.stop :],
        distractor_probability=distractor,
        distractor_baseline=apart,
        ratio=ratio,
        norms=setup.push.norms(model.dims.n_layers),
        activations=activations(setup),
        warnings=planning_warnings((*question.warnings, *refused), setup, ratio),
        checks=planning_checks(setup, None if outcome.cancelled else values, direct_error),
        seconds=time.perf_counter() - started,
        cancelled=outcome.cancelled,
    )


def _baseline(setup: Setup) -> Float[np.ndarray, "metric"]:
    names = setup.question.metrics
    return np.array([setup.effects.baseline[names.index(metric)] for metric in METRICS])


def _distractor_baseline(setup: Setup) -> float:
    names, base = setup.question.metrics, setup.effects.baseline
    if setup.question.distractor is None:
        return float("nan")
    return float(np.exp(base[names.index("log_probability")] - base[names.index("logit_difference")]))


def _risen(setup: Setup, outcome: SweepResult) -> dict[str, np.ndarray]:
    """Of each random draw at the output position: the token that rose most; -1 and NaN where not run."""
    nothing = {"before": np.full(len(setup.drawn), np.nan), "after": np.full(len(setup.drawn), np.nan)}
    if setup.output not in setup.positions or not len(setup.drawn):
        ids = np.full(len(setup.drawn), -1, np.int64)
        return {"ids": ids, **nothing, "rank": np.full(len(setup.drawn), np.nan)}
    at, count = setup.positions.index(setup.output), len(setup.positions)
    rows = np.arange(setup.draws.start, setup.draws.stop) * count + at
    done = outcome.done[rows]
    ids = np.where(done, outcome.values["risen"][rows, 0], -1).astype(np.int64)
    log_p = setup.effects.reader.clean_log_p.double().cpu().numpy()
    return {
        "ids": ids,
        "before": np.where(done, np.exp(log_p[np.maximum(ids, 0)]), np.nan),
        "after": np.where(done, outcome.values["risen_after"][rows, 0], np.nan).astype(np.float64),
        "rank": np.where(done, outcome.values["risen_rank"][rows, 0], np.nan).astype(np.float64),
    }
