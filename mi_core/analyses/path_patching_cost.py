"""About how long experiments on heads over a task take, from the model's measured speed.

Token-layers, for n prompts of T tokens, L layers, H heads; a prompt is taken to have `TOKENS` tokens:

    head classes    2.5 n T L (L H) / 2        two sweeps of ablations, each from its layer on
    circuit test    n T L (4 + 2 subsets + 2 controls)
    path patching   n T L (L H) (1 + receivers / 2)     and next to nothing where only the logits receive
"""

from mi_core.analyses.circuit_test_inputs import CircuitTestInputs
from mi_core.analyses.head_classes_inputs import HeadClassesInputs
from mi_core.analyses.path_patching_inputs import PathPatchingInputs
from mi_core.analyses.path_patching_names import LOGITS
from mi_core.model.model import LoadedModel

TOKENS = 18


def head_classes_seconds(model: LoadedModel, inputs: HeadClassesInputs) -> float:
    """Expected duration; NaN before the model's speed has been measured."""
    return _seconds(model, inputs.n, 1.25 * model.dims.n_layers * model.dims.n_heads)


def circuit_test_seconds(model: LoadedModel, inputs: CircuitTestInputs) -> float:
    """Expected duration; NaN before the model's speed has been measured."""
    return _seconds(model, inputs.n, 4 + 2 * inputs.subsets + 2 * inputs.controls)


def path_patching_seconds(model: LoadedModel, inputs: PathPatchingInputs) -> float:
    """Expected duration; NaN before the model's speed has been measured."""
    heads = sum(name != LOGITS for name in inputs.receivers)
    senders = model.dims.n_layers * model.dims.n_heads
    return _seconds(model, inputs.n, 4 + (senders * (1 + heads / 2) if heads else senders / 10))


def _seconds(model: LoadedModel, n: int, passes: float) -> float:
    speed = model.token_layers_per_second
    return passes * n * TOKENS * model.dims.n_layers / speed if speed else float("nan")
