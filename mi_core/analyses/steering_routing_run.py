"""Do heads look more at a token that was steered?

    before[l, h] = sum over the steered tokens k of A[l, h][q, k]      after: the same in the steered run
    change       = after - before

q is the last token, or the mean over the last steered token and all after it. Only layers whose queries or
keys come after the edit can change. Cost: one pass that is shared, and one steered pass.
"""

import time
from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from torch import Tensor

from mi_core.analyses.ablation_sweep_reading import Question, ask
from mi_core.analyses.causal_trace_checks import TOLERANCE
from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.causal_trace_result import Step
from mi_core.analyses.steering_inputs import SteeringInputs
from mi_core.analyses.steering_make import add, layer_of, positions_of, steering_vector
from mi_core.analyses.steering_routing_result import SteeringRoutingResult
from mi_core.engine import Edit, run
from mi_core.errors import InputError
from mi_core.model.model import LoadedModel
from mi_core.provenance import Provenance

OnStep = Callable[[Step[SteeringRoutingResult]], None]


def steering_routing(
    model: LoadedModel, inputs: SteeringInputs, *, on_step: OnStep | None = None
) -> SteeringRoutingResult:
    """Attention to the steered tokens, before and after; the module docstring has the formulas.

    Args:
        model: a loaded model.
        inputs: vector, place, dose.
        on_step: told once, before the passes; may raise `Cancelled`, which passes through.

    Raises:
        InputError: every token is steered, or vector, layer or tokens do not fit.
        SiteMissing: the model's attention or the site cannot be seen.
    """
    started = time.perf_counter()
    question, vector, layer = ask(model, inputs), steering_vector(model, inputs), layer_of(model, inputs)
    n_pos = len(question.prompt)
    positions = positions_of(inputs, n_pos)
    if len(positions) == n_pos:
        raise InputError(
            "Attention to the steered tokens cannot change",
            why="every token is steered, and each row of attention sums to 1",
            fix="Steer some of the tokens only",
        )
    if on_step is not None:
        on_step(Step(0, 2, None, None, "two passes"))
    queries = slice(n_pos - 1, None) if inputs.queries == "last" else slice(max(positions), None)
    edit = add(inputs.site, layer, positions, vector.at(layer), inputs.coefficient)
    before, after = (_attention(model, question, queries, positions, edits) for edits in ((), (edit,)))
    worst = float(np.abs((after - before)[: layer + 1]).max())
    near, detail = TOLERANCE[model.dtype], f"largest change {worst:.1e}"
    return SteeringRoutingResult(
        inputs=inputs,
        provenance=Provenance.of(model),
        tokens=question.prompt.tokens,
        answer=question.answer,
        distractor=question.distractor,
        made=vector.made,
        layer=layer,
        positions=positions,
        metrics=(),
        before=before,
        after=after,
        warnings=question.warnings,
        checks=(Check("heads up to the steered layer do not change", worst <= near, detail),),
        seconds=time.perf_counter() - started,
    )


def _attention(
    model: LoadedModel,
    question: Question,
    queries: slice,
    positions: tuple[int, ...],
    edits: tuple[Edit, ...],
) -> Float[np.ndarray, "layer head"]:
    """Attention to the steered tokens, summed over them and averaged over the queries."""

    def reduce(_place: object, value: Tensor) -> np.ndarray:
        rows = value[0, :, queries][..., list(positions)].double()
        return rows.sum(-1).mean(-1).cpu().numpy()

    found = run(model, question.ids, capture=["pattern"], edits=edits, last=1, reduce=reduce)
    return np.stack([found["pattern", layer] for layer in range(model.dims.n_layers)])
