"""At which layer does a steering vector work?

    values[l] = metric of the run in which c v[l] is added at layer l alone, read at the last position
    ratio[l]  = ||c v[l]|| / median over the steered tokens of ||x_l[p]||,  x_l = the state after layer l

A vector made from prompts is each layer's own; a token's or a file's is the same at every layer. Cost: the
passes that make the vector, and one sweep with a run per layer.
"""

import time
from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from mi_core.analyses.ablation_sweep_reading import Effects, Question, ask
from mi_core.analyses.causal_trace_checks import TOLERANCE
from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.causal_trace_result import Step
from mi_core.analyses.steering_inputs import SteeringInputs
from mi_core.analyses.steering_layers_result import SteeringLayersResult
from mi_core.analyses.steering_make import add, positions_of, steering_vector
from mi_core.engine import Edit, observe
from mi_core.model.model import LoadedModel
from mi_core.provenance import Provenance

OnStep = Callable[[Step[SteeringLayersResult]], None]


def steering_layers(
    model: LoadedModel, inputs: SteeringInputs, *, on_step: OnStep | None = None
) -> SteeringLayersResult:
    """The same dose at every layer in turn; the module docstring has the formulas.

    Args:
        model: a loaded model.
        inputs: vector, tokens, dose, what is read.
        on_step: told of progress; may raise `Cancelled` to stop.

    Returns:
        The complete result; after `Cancelled` in the sweep, what was done until then (`result.cancelled`).

    Raises:
        InputError: vector or tokens do not fit the model or the prompt.
        SiteMissing: the model does not have the site.
    """
    started, n_layers = time.perf_counter(), model.dims.n_layers
    question, vector = ask(model, inputs), steering_vector(model, inputs)
    positions = positions_of(inputs, len(question.prompt))
    effects = Effects(model, question)
    edits = [
        add(inputs.site, layer, positions, vector.at(layer), inputs.coefficient) for layer in range(n_layers)
    ]

    def tick(share: float) -> None:
        if on_step is not None:
            on_step(Step(int(share * n_layers), n_layers, None, None, "layers"))

    tick(0.0)
    values, cancelled = effects.swept(model, [(edit,) for edit in edits], tick)
    norms = np.array([vector.norm(layer) for layer in range(n_layers)])
    sizes = _sizes(model, question, positions)
    return SteeringLayersResult(
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
        ratio=abs(inputs.coefficient) * norms / np.maximum(sizes, 1e-30),
        warnings=question.warnings,
        checks=() if cancelled else (_last_layer(model, effects, edits[-1], values[:, -1]),),
        seconds=time.perf_counter() - started,
        cancelled=cancelled,
    )


def _last_layer(
    model: LoadedModel, effects: Effects, edit: Edit, swept: Float[np.ndarray, "metric"]
) -> Check:
    """The run of the last layer again, by a whole forward pass."""
    again, kept = effects.whole_pass(model, (edit,)), [0, 1, 2]
    worst = float(np.abs(swept[kept] - again[kept]).max() / max(1.0, float(np.abs(again[kept]).max())))
    name, detail = "the last layer's run equals a whole forward pass", f"largest difference {worst:.1e}"
    return Check(name, worst <= TOLERANCE[model.dtype], detail)


def _sizes(model: LoadedModel, question: Question, positions: tuple[int, ...]) -> list[float]:
    """Median length of the steered tokens' states after every layer."""
    seen = observe(model, question.prompt.ids, ["resid_post"])
    return [
        float(seen["resid_post", layer][list(positions)].double().norm(dim=-1).median())
        for layer in range(model.dims.n_layers)
    ]
