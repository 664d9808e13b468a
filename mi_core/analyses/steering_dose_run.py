"""Dose-response: how much of a vector does it take?

    x[p] -> x[p] + c v     at one site and layer, at the chosen tokens p, for every coefficient c
    effect[c] = metric(steered run) - metric(baseline), read at the last position
    ratio[c]  = ||c v|| / median over the steered tokens of ||x[p]||,   x = the state after the layer
    control   = the same doses of random directions (normal, scaled to ||v||)
    off the distribution: ||c v|| above the median distance between the states of two tokens of the prompt

The dose for a wished value is looked up on straight lines between neighbouring doses, and never outside them.
Source: Turner et al. 2023 (arXiv 2308.10248). Cost: the passes that make the vector, and one sweep of
(1 + controls) x doses runs that share everything before the edit, and three whole passes for the checks. A
dose of 0 is not run: it is the baseline.
"""

import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from jaxtyping import Float

from mi_core.analyses.ablation_sweep_reading import Effects, Question, ask
from mi_core.analyses.causal_trace_checks import TOLERANCE
from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.causal_trace_result import Step
from mi_core.analyses.steering_dose_result import SteeringDoseResult
from mi_core.analyses.steering_inputs import SteeringInputs
from mi_core.analyses.steering_make import add, layer_of, positions_of, steering_vector
from mi_core.engine import Edit, observe
from mi_core.errors import InputError
from mi_core.model.model import LoadedModel
from mi_core.provenance import Provenance

OnStep = Callable[[Step[SteeringDoseResult]], None]
MAX_PAIRS = 256  # tokens whose distances are taken; of longer prompts every k-th


def steering_dose(
    model: LoadedModel, inputs: SteeringInputs, *, on_step: OnStep | None = None
) -> SteeringDoseResult:
    """The dose curve of a steering vector; the module docstring has the formulas.

    Args:
        model: a loaded model.
        inputs: vector, place, doses, what is read.
        on_step: told of progress; may raise `Cancelled` to stop.

    Returns:
        The complete result; after `Cancelled` in the sweep, what was done until then (`result.cancelled`).

    Raises:
        InputError: vector, layer or tokens do not fit the model or the prompt.
        SiteMissing: the model does not have the site.
    """
    started = time.perf_counter()
    question, vector, layer = ask(model, inputs), steering_vector(model, inputs), layer_of(model, inputs)
    positions = positions_of(inputs, len(question.prompt))
    own = vector.at(layer)
    if not vector.norm(layer) > 0:
        raise InputError(f"The steering vector is zero at layer {layer}", fix="Choose a later layer")
    directions = np.stack([own, *random_directions(own, inputs.controls, inputs.seed)])
    effects = Effects(model, question)

    def steered(direction: np.ndarray, dose: float) -> Edit:
        return add(inputs.site, layer, positions, direction, dose)

    values, cancelled = _swept(model, effects, inputs, directions, steered, on_step)
    ratio, spread = _sizes(model, question, inputs, layer, vector.norm(layer))
    return SteeringDoseResult(
        inputs=inputs,
        provenance=Provenance.of(model, seed=inputs.seed),
        tokens=question.prompt.tokens,
        answer=question.answer,
        distractor=question.distractor,
        made=vector.made,
        layer=layer,
        positions=positions,
        metrics=question.metrics,
        baseline=effects.baseline,
        values=values[:, 0],
        controls=values[:, 1:],
        ratio=ratio,
        norm=vector.norm(layer),
        spread=spread,
        warnings=_warnings(question, inputs, ratio, spread),
        checks=(
            _zero(effects.whole_pass(model, ()), effects.whole_pass(model, (steered(own, 0.0),))),
            _lengths(directions),
            *(() if cancelled else _largest(model, effects, inputs.coefficients, values[:, 0], steered, own)),
        ),
        seconds=time.perf_counter() - started,
        cancelled=cancelled,
    )


def _swept(
    model: LoadedModel,
    effects: Effects,
    inputs: SteeringInputs,
    directions: Float[np.ndarray, "direction d_model"],
    steered: Callable[[np.ndarray, float], Edit],
    on_step: OnStep | None,
) -> tuple[Float[np.ndarray, "metric direction dose"], bool]:
    """Every dose of every direction in one sweep, and whether it was stopped; a dose of 0 is the baseline."""
    live = [index for index, dose in enumerate(inputs.coefficients) if dose != 0]
    runs = [(steered(direction, inputs.coefficients[i]),) for direction in directions for i in live]

    def tick(share: float) -> None:
        if on_step is not None:
            on_step(Step(int(share * len(runs)), len(runs), None, None, "doses"))

    tick(0.0)
    found, cancelled = effects.swept(model, runs, tick)
    values = np.tile(effects.baseline[:, None, None], (1, len(directions), len(inputs.coefficients)))
    values[:, :, live] = found.reshape(len(found), len(directions), len(live))
    return values, cancelled


def _sizes(
    model: LoadedModel, question: Question, inputs: SteeringInputs, layer: int, norm: float
) -> tuple[Float[np.ndarray, "dose"], float]:
    """Length of the edit at every dose, and the prompt's own spread, both relative to the steered states."""
    states = observe(model, question.prompt.ids, ["resid_post"])["resid_post", layer].double()
    positions = positions_of(inputs, len(question.prompt))
    typical = max(float(states[list(positions)].norm(dim=-1).median()), 1e-30)
    spread = _spread(states) / typical if len(question.prompt) > 1 else 1.0
    return np.abs(np.array(inputs.coefficients)) * norm / typical, spread


def random_directions(
    vector: Float[np.ndarray, "d_model"], count: int, seed: int
) -> Float[np.ndarray, "count d_model"]:
    """Directions drawn evenly from the sphere, each as long as the vector."""
    drawn = np.random.default_rng(seed).standard_normal((count, len(vector)))
    lengths = np.linalg.norm(drawn, axis=1, keepdims=True)
    return (drawn / lengths * np.linalg.norm(vector.astype(np.float64))).astype(np.float64)


def _spread(states: torch.Tensor) -> float:
    """Median distance between the states of two tokens."""
    step = -(-len(states) // MAX_PAIRS)
    chosen = states[::step]
    away = torch.cdist(chosen, chosen)
    rows, columns = torch.triu_indices(len(chosen), len(chosen), offset=1)
    return float(away[rows, columns].median())


def _zero(baseline: Float[np.ndarray, "metric"], nothing: Float[np.ndarray, "metric"]) -> Check:
    """Two whole passes: one without an edit, one that adds a dose of 0."""
    worst = float(np.abs(nothing - baseline).max())
    detail = f"largest difference of two whole passes {worst:.1e}"
    return Check("adding a dose of 0 is the baseline, bit for bit", worst == 0.0, detail)


def _lengths(directions: Float[np.ndarray, "run d_model"]) -> Check:
    lengths = np.linalg.norm(directions.astype(np.float64), axis=1)
    worst = float(np.abs(lengths / lengths[0] - 1).max())
    detail = f"{len(lengths) - 1} directions, largest relative difference {worst:.1e}"
    return Check("random directions are as long as the vector", worst < 1e-6, detail)


def _largest(
    model: LoadedModel,
    effects: Effects,
    doses: tuple[float, ...],
    swept: Float[np.ndarray, "metric dose"],
    steered: Callable[[np.ndarray, float], Edit],
    own: np.ndarray,
) -> Iterator[Check]:
    """The largest dose again by a whole forward pass; nothing where only 0 was asked for."""
    farthest = int(np.abs(doses).argmax())
    if doses[farthest] != 0:
        again = effects.whole_pass(model, (steered(own, doses[farthest]),))
        yield _whole(effects.question, swept[:, farthest], again, TOLERANCE[model.dtype])


def _whole(
    question: Question, swept: Float[np.ndarray, "metric"], again: Float[np.ndarray, "metric"], near: float
) -> Check:
    kept = [
        i
        for i, name in enumerate(question.metrics)
        if name in ("probability", "log_probability", "logit", "kl")
    ]
    worst = float((np.abs(swept - again)[kept] / np.maximum(1.0, np.abs(again[kept]))).max())
    detail = f"largest relative difference {worst:.1e}"
    return Check("the largest dose equals a whole forward pass", worst <= near, detail)


def _warnings(
    question: Question, inputs: SteeringInputs, ratio: Float[np.ndarray, "dose"], spread: float
) -> tuple[str, ...]:
    off = [f"{dose:g}" for dose, one in zip(inputs.coefficients, ratio, strict=True) if one > spread]
    if not off:
        return question.warnings
    said = (
        f"Off the distribution at {', '.join(off[:8])}{' and more' if len(off) > 8 else ''}: "
        f"there the vector is longer than {spread:.2g} times the state, the median distance between two "
        "tokens of this prompt."
    )
    return (*question.warnings, said)
