"""Does the model return to where it was going, after a push?

    cosine[i, o]   = cos(x_o, x_o')                x_o: the last token's state after layer o, unsteered
    distance[i, o] = ||x_o' - x_o|| / ||x_o||      x_o': the same with c v[i] added at layer i
    absorbed at    = the first o > i with cosine >= threshold

States are taken after the edit: where a state itself is steered, the diagonal shows the push. A high cosine
is not a return: two long states can point the same way and be far apart, so the distance stands beside it.

Cost: (layers + base runs) rows, a few at a time in one pass; only last states are kept.
"""

import time
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mi_core.analyses.ablation_sweep_reading import Effects, ask
from mi_core.analyses.causal_trace_checks import TOLERANCE
from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.causal_trace_reading import to_numpy
from mi_core.analyses.causal_trace_result import Step
from mi_core.analyses.steering_convergence_result import SteeringConvergenceResult
from mi_core.analyses.steering_inputs import SteeringInputs
from mi_core.analyses.steering_make import positions_of, steering_vector
from mi_core.analyses.steering_vector import SteeringVector
from mi_core.engine import Edit, run
from mi_core.errors import Cancelled
from mi_core.model.model import LoadedModel
from mi_core.provenance import Provenance

OnStep = Callable[[Step[SteeringConvergenceResult]], None]

TOKENS_AT_ONCE = 512  # rows times tokens of one pass


def steering_convergence(
    model: LoadedModel, inputs: SteeringInputs, *, on_step: OnStep | None = None
) -> SteeringConvergenceResult:
    """The convergence matrix; the module docstring has the formulas.

    Args:
        model: a loaded model.
        inputs: vector, tokens, dose, threshold.
        on_step: told of progress; may raise `Cancelled` to stop.

    Returns:
        The complete result; after `Cancelled`, the rows that were done (`result.cancelled`).

    Raises:
        InputError: vector or tokens do not fit the model or the prompt.
        SiteMissing: the model does not have the site.
    """
    started, n_layers = time.perf_counter(), model.dims.n_layers
    question, vector = ask(model, inputs), steering_vector(model, inputs)
    positions = positions_of(inputs, len(question.prompt))
    effects = Effects(model, question)
    cosine = np.full((n_layers, n_layers), np.nan)
    distance, values = cosine.copy(), np.full((len(question.metrics), n_layers), np.nan)
    step, cancelled = max(1, TOKENS_AT_ONCE // len(question.prompt) - 1), False
    try:
        for first in range(0, n_layers, step):
            if on_step is not None:
                on_step(Step(first, n_layers, None, None, "steered layers"))
            layers = range(first, min(n_layers, first + step))
            states, logits = _last_states(model, question.ids, vector, inputs, positions, layers)
            cosine[layers], distance[layers] = compare(states[:, 0], states[:, 1:])
            values[:, layers] = effects.values(to_numpy(effects.reader(logits[1:, None])))
    except Cancelled:
        cancelled = True
    return SteeringConvergenceResult(
        inputs=inputs,
        provenance=Provenance.of(model),
        tokens=question.prompt.tokens,
        answer=question.answer,
        distractor=question.distractor,
        made=vector.made,
        positions=positions,
        metrics=question.metrics,
        baseline=effects.baseline,
        values=values,
        cosine=cosine,
        distance=distance,
        warnings=question.warnings,
        checks=(_untouched(distance, TOLERANCE[model.dtype]),),
        seconds=time.perf_counter() - started,
        cancelled=cancelled,
    )


def _last_states(
    model: LoadedModel,
    ids: Tensor,
    vector: SteeringVector,
    inputs: SteeringInputs,
    positions: tuple[int, ...],
    layers: range,
) -> tuple[Float[np.ndarray, "observe run d_model"], Tensor]:
    """Last states after every layer, and last logits, of the base (run 0) and of one run per steered layer.

    They run as rows of one pass: the edit at a layer adds zero to all rows but its own.
    """
    edits = []
    for row, layer in enumerate(layers, start=1):
        value = torch.zeros(1 + len(layers), 1, vector.values.shape[1], dtype=torch.float64)
        value[row, 0] = torch.from_numpy(inputs.coefficient * vector.at(layer).astype(np.float64))
        edits.append(Edit(inputs.site, layer, "add", positions, value=value))
    found = run(
        model, ids.expand(1 + len(layers), -1), capture=["resid_post"], edits=edits, last=1,
        reduce=lambda place, value: value[:, -1].double().cpu().numpy(),
    )  # fmt: skip
    states = np.stack([found["resid_post", layer] for layer in range(model.dims.n_layers)])
    return states, found.logits


def compare(
    base: Float[np.ndarray, "observe d_model"], steered: Float[np.ndarray, "observe run d_model"]
) -> tuple[Float[np.ndarray, "run observe"], Float[np.ndarray, "run observe"]]:
    """Cosine, and distance relative to the base's length."""
    size = np.maximum(np.linalg.norm(base, axis=-1), 1e-30)[:, None]
    other = np.maximum(np.linalg.norm(steered, axis=-1), 1e-30)
    cosine = np.einsum("od,ord->or", base, steered) / (size * other)
    distance = np.linalg.norm(steered - base[:, None], axis=-1) / size
    return np.clip(cosine, -1, 1).T, distance.T


def _untouched(distance: Float[np.ndarray, "inject observe"], near: float) -> Check:
    """What lies before the edit cannot know of it."""
    before = distance[np.tril_indices(len(distance), k=-1)]
    worst = float(np.nanmax(before, initial=0.0)) if len(before) else 0.0
    detail = f"largest relative distance {worst:.1e}"
    return Check("layers before the steered one do not move", worst <= near, detail)
