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
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mi_core.analyses.ablation_sweep_reading import Effects, Question, ask
from mi_core.analyses.causal_trace_checks import TOLERANCE
from mi_core.analyses.causal_trace_reading import to_numpy
from mi_core.analyses.causal_trace_result import Step
from mi_core.engine import SweepResult, Variant, observe, run, sweep, unembed
from mi_core.errors import InputError, ModelError, TranscoderError
from mi_core.metrics import exact_logits
from mi_core.model.model import LoadedModel
from mi_core.provenance import Provenance
from mi_core.transcoders.encode import read_values
from mi_core.transcoders.feature_vectors import Push, push_of
from mi_core.transcoders.linear import frozen_pass
from mi_core.transcoders.names import Feature, format_features, parse_features
from mi_core.transcoders.planning_inputs import PlanningInputs
from mi_core.transcoders.planning_result import METRICS, PlanningResult
from mi_core.transcoders.planning_words import planning_checks, planning_warnings
from mi_core.transcoders.store import load_transcoder
from mi_core.transcoders.transcoder import Transcoder
from mi_core.visible import visible_token

OnStep = Callable[[Step[PlanningResult]], None]
MAX_RUNS = 60_000
ROWS = 16  # tokens whose pushes are held in memory at once


@dataclass(frozen=True, slots=True, eq=False)
class _Setup:
    """What is pushed, where, and what is read."""

    model: LoadedModel
    inputs: PlanningInputs
    transcoder: Transcoder
    question: Question
    effects: Effects
    positions: tuple[int, ...]
    push: Push
    parts: tuple[Push, ...]
    drawn: tuple[tuple[Feature, ...], ...]
    pushes: tuple[Push, ...]

    @property
    def output(self) -> int:
        return len(self.question.prompt) - 1

    @property
    def n_draws(self) -> int:
        return len(self.drawn)


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
    setup = _setup(model, inputs)
    plan = _variants(setup)
    total = len(plan)

    def tick(share: float) -> None:
        if on_step is not None:
            on_step(Step(int(share * total), total, None, None, "pushes"))

    tick(0.0)
    outcome = sweep(model, setup.effects.base, plan, read=_reader(setup.effects), on_tick=tick)
    return _result(setup, outcome, started)


def _setup(model: LoadedModel, inputs: PlanningInputs) -> _Setup:
    transcoder = load_transcoder(model, inputs.transcoder)
    question = ask(model, inputs)
    positions = inputs.positions or tuple(range(len(question.prompt)))
    if positions[-1] >= len(question.prompt):
        why = f"its tokens are 0 to {len(question.prompt) - 1}"
        raise InputError(f"The prompt has no token {positions[-1]}", why=why)
    push = push_of(transcoder, inputs.weights)
    if not np.abs(push.vectors).max() > 0:
        raise InputError("What these features write is zero", fix="Choose others")
    generator = np.random.default_rng(inputs.seed)
    drawn = _draw(transcoder, inputs, generator)
    down = dict.fromkeys(parse_features(inputs.suppress), -1.0)
    others = tuple(push_of(transcoder, {**down, **dict.fromkeys(one, 1.0)}) for one in drawn)
    rotations = tuple(push.turned(generator) for _ in range(inputs.controls))
    up = dict.fromkeys(parse_features(inputs.inject), 1.0)
    parts = tuple(push_of(transcoder, part) for part in (up, down)) if up and down else ()
    effects = Effects(model, question)
    pushes = (*others, *rotations)
    return _Setup(model, inputs, transcoder, question, effects, positions, push, parts, drawn, pushes)


def _draw(
    transcoder: Transcoder, inputs: PlanningInputs, generator: np.random.Generator
) -> tuple[tuple[Feature, ...], ...]:
    """Random features of the same layers as the injected ones (as the suppressed ones, if none is)."""
    named = set(inputs.weights)
    replaced = parse_features(inputs.inject) or parse_features(inputs.suppress)
    draws = []
    for _ in range(inputs.controls):
        chosen: list[Feature] = []
        for feature in replaced:
            free = transcoder.n_features[feature.layer]
            taken = sorted({f.index for f in (*named, *chosen) if f.layer == feature.layer})
            if free <= len(taken):
                return ()
            index = int(generator.integers(free - len(taken)))
            for one in taken:  # the index-th of those that are not taken
                index += one <= index
            chosen.append(Feature(feature.layer, index))
        draws.append(tuple(chosen))
    return tuple(draws)


def _variants(setup: _Setup) -> list[Variant]:
    """Doses by position, then parts, draws and rotations by position."""
    runs = [(setup.push, dose) for dose in setup.inputs.doses if dose != 0]
    runs += [(push, setup.inputs.strength) for push in (*setup.parts, *setup.pushes)]
    count = len(runs) * len(setup.positions)
    if count > MAX_RUNS:
        why = (
            f"{len(runs)} pushes at {len(setup.positions):,} tokens are {count:,} runs, at most {MAX_RUNS:,}"
        )
        fix = "Name some tokens, or fewer strengths and controls"
        raise InputError("The experiment is too large", why=why, fix=fix)
    return [Variant(edits) for push, dose in runs for edits in push.edits_at_each(setup.positions, dose)]


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
    setup: _Setup, outcome: SweepResult
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


def _result(setup: _Setup, outcome: SweepResult, started: float) -> PlanningResult:
    inputs, question, model = setup.inputs, setup.question, setup.model
    table, other = _table(setup, outcome)
    base, live = setup.effects.baseline, [i for i, dose in enumerate(inputs.doses) if dose != 0]
    start = _baseline(setup)
    values = np.tile(start[:, None, None], (1, len(inputs.doses), len(setup.positions)))
    values[:, live] = table[:, : len(live)]
    apart = _distractor_baseline(setup, base)
    distractor = np.full((len(inputs.doses), len(setup.positions)), apart)
    distractor[live] = other[: len(live)]
    parts = slice(len(live), len(live) + len(setup.parts))
    draws = slice(parts.stop, parts.stop + setup.n_draws)
    risen = _risen(setup, outcome, draws)
    direct, direct_error = _direct(setup)
    frozen, refused = _frozen(setup)
    return PlanningResult(
        inputs=inputs,
        provenance=Provenance.of(model, seed=inputs.seed),
        transcoder=setup.transcoder.name,
        source="lantern",
        tokens=question.prompt.tokens,
        answer=question.answer,
        distractor=question.distractor,
        features=tuple(feature.text for feature in _listed(inputs)),
        positions=setup.positions,
        baseline=start,
        values=values,
        parts=table[:, parts],
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
        ratio=_ratio(setup),
        norms=setup.push.norms(model.dims.n_layers),
        activations=_activations(setup),
        warnings=planning_warnings(
            (*setup.question.warnings, *refused), setup.transcoder, inputs, _ratio(setup)
        ),
        checks=planning_checks(
            whole=_whole_pass(setup, values) if not outcome.cancelled else None,
            nothing=_nothing(setup),
            direct=direct_error,
            turned=_turned_error(setup),
            near=TOLERANCE[model.dtype],
        ),
        seconds=time.perf_counter() - started,
        cancelled=outcome.cancelled,
    )


def _listed(inputs: PlanningInputs) -> tuple[Feature, ...]:
    return (*parse_features(inputs.inject), *parse_features(inputs.suppress))


def _baseline(setup: _Setup) -> Float[np.ndarray, "metric"]:
    names = setup.question.metrics
    return np.array([setup.effects.baseline[names.index(metric)] for metric in METRICS])


def _distractor_baseline(setup: _Setup, base: Float[np.ndarray, "metric"]) -> float:
    names = setup.question.metrics
    if setup.question.distractor is None:
        return float("nan")
    return float(np.exp(base[names.index("log_probability")] - base[names.index("logit_difference")]))


def _risen(setup: _Setup, outcome: SweepResult, draws: slice) -> dict[str, np.ndarray]:
    """Of each random draw at the output position: the token that rose most; -1 and NaN where not run."""
    nothing = {"before": np.full(setup.n_draws, np.nan), "after": np.full(setup.n_draws, np.nan)}
    if setup.output not in setup.positions or not setup.n_draws:
        ids = np.full(setup.n_draws, -1, np.int64)
        return {"ids": ids, **nothing, "rank": np.full(setup.n_draws, np.nan)}
    at, count = setup.positions.index(setup.output), len(setup.positions)
    rows = np.arange(draws.start, draws.stop) * count + at
    done = outcome.done[rows]
    ids = np.where(done, outcome.values["risen"][rows, 0], -1).astype(np.int64)
    log_p = setup.effects.reader.clean_log_p.double().cpu().numpy()
    return {
        "ids": ids,
        "before": np.where(done, np.exp(log_p[np.maximum(ids, 0)]), np.nan),
        "after": np.where(done, outcome.values["risen_after"][rows, 0], np.nan).astype(np.float64),
        "rank": np.where(done, outcome.values["risen_rank"][rows, 0], np.nan).astype(np.float64),
    }


def _direct(setup: _Setup) -> tuple[Float[np.ndarray, "metric dose"], float]:
    """The push at the output position read by the final norm alone; and how far 0 is from the baseline."""
    model = setup.model
    last = model.dims.n_layers - 1
    state = observe(model, setup.question.prompt.ids, ["resid_post"])["resid_post", last][-1]
    wide = state.to(torch.promote_types(state.dtype, torch.float32))
    total = torch.from_numpy(setup.push.total).to(wide)
    doses = torch.tensor([0.0, *setup.inputs.doses]).to(wide)
    logits = unembed(model, wide + doses[:, None] * total)
    numbers = to_numpy(setup.effects.reader(logits[:, None, None].to(setup.effects.reader.clean_log_p)))
    found = np.stack([numbers[metric][:, 0].astype(np.float64) for metric in METRICS])
    index = METRICS.index("logit")
    start = setup.effects.baseline[setup.question.metrics.index("logit")]
    error = abs(float(found[index, 0]) - float(start)) / max(1.0, abs(float(start)))
    return found[:, 1:], error


def _frozen(setup: _Setup) -> tuple[Float[np.ndarray, "position"], tuple[str, ...]]:
    """Change of the answer's logit with everything held, for a strength of 1; or NaN and why not."""
    nothing = np.full(len(setup.positions), np.nan)
    if setup.push.site not in ("mlp_out", "resid_post"):
        return nothing, (f"No effects with everything held: the push is at {setup.push.site}.",)
    ids = setup.question.prompt.ids
    try:
        held = frozen_pass(setup.model, ids)
    except (ModelError, TranscoderError) as error:
        return nothing, (f"No effects with everything held: {error.what}.",)
    found = []
    for start in range(0, len(setup.positions), ROWS):
        rows = setup.positions[start : start + ROWS]
        deltas = {
            layer: torch.zeros(len(rows), len(ids), vector.shape[0], dtype=torch.float64)
            for layer, vector in zip(setup.push.layers, setup.push.vectors, strict=True)
        }
        for layer, vector in zip(setup.push.layers, setup.push.vectors, strict=True):
            deltas[layer][range(len(rows)), rows] = torch.from_numpy(vector)
        cast = {layer: delta.to(held.embed) for layer, delta in deltas.items()}
        logits = held.logits(held.push(cast).final, [setup.question.answer.id])
        found.append(logits[:, -1, 0].double().cpu().numpy())
    return np.concatenate(found), ()


def _ratio(setup: _Setup) -> Float[np.ndarray, "position"]:
    """Largest over layers of what was added so far over the state there, both lengths."""
    model = setup.model
    seen = observe(model, setup.question.prompt.ids, ["resid_post"])
    sums = setup.push.sums(model.dims.n_layers) * abs(setup.inputs.strength)
    states = torch.stack(
        [seen["resid_post", layer].double().norm(dim=-1).cpu() for layer in range(model.dims.n_layers)]
    ).numpy()
    return (sums[:, None] / np.maximum(states, 1e-30)).max(0)[list(setup.positions)]


def _activations(setup: _Setup) -> Float[np.ndarray, "feature position"]:
    """Of every listed feature at every tried token, in the baseline."""
    transcoder = setup.transcoder
    read = read_values(setup.model, transcoder, setup.question.prompt.ids)
    rows, dense = [], {}
    for feature in _listed(setup.inputs):
        if feature.layer not in dense:
            x = read[transcoder.layers.index(feature.layer)][list(setup.positions)]
            dense[feature.layer] = transcoder.activate(
                feature.layer, transcoder.pre_activations(feature.layer, x)
            )
        rows.append(dense[feature.layer][:, feature.index].double().cpu().numpy())
    return np.stack(rows)


def _nothing(setup: _Setup) -> float:
    """Largest difference between two whole passes: without edits, and with a strength of 0."""
    ids = setup.question.ids
    plain = run(setup.model, ids, last=1).logits
    none = run(setup.model, ids, edits=setup.push.edits((setup.positions[-1],), 0.0), last=1).logits
    return float((none - plain).abs().max())


def _whole_pass(setup: _Setup, values: Float[np.ndarray, "metric dose position"]) -> float:
    """Relative difference of the sweep's last token, chosen strength, from an ordinary forward pass."""
    at = setup.positions[-1]
    logits = run(
        setup.model, setup.question.ids, edits=setup.push.edits((at,), setup.inputs.strength), last=1
    ).logits
    numbers = to_numpy(setup.effects.reader(logits[None]))
    kept = [METRICS.index(metric) for metric in ("probability", "log_probability", "logit", "kl")]
    again = np.array([float(numbers[METRICS[i]][0, 0]) for i in kept])
    swept = values[kept, setup.inputs.doses.index(float(setup.inputs.strength)), -1]
    return float((np.abs(swept - again) / np.maximum(1.0, np.abs(again))).max())


def _turned_error(setup: _Setup) -> float | None:
    """How far the turned edits are from the edit in lengths and inner products; None = there are none."""
    turned: Sequence[Push] = setup.pushes[setup.n_draws :]
    if not turned:
        return None
    own = setup.push.vectors @ setup.push.vectors.T
    return max(float(np.abs(one.vectors @ one.vectors.T - own).max() / np.abs(own).max()) for one in turned)
