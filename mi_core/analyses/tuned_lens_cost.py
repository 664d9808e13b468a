"""What training a tuned lens costs, said before it begins."""

from dataclasses import dataclass

from mi_core.analyses.tuned_lens_inputs import TunedLensTrainInputs
from mi_core.model.model import LoadedModel


@dataclass(frozen=True, slots=True)
class TrainingCost:
    """The cost of a training.

    Attributes:
        tokens: that are learnt from, repetitions counted.
        readings: unembedded states: tokens times layers.
        d_vocab: logits of each.
        flops: floating-point operations.
        bytes: of the translators, their gradients and the optimizer's memory.
        seconds: expected duration; None before the model's speed has been measured.
    """

    tokens: int
    readings: int
    d_vocab: int
    flops: float
    bytes: int
    seconds: float | None


def training_cost(model: LoadedModel, inputs: TunedLensTrainInputs) -> TrainingCost:
    """Count the forward passes, and the unembedding there and back for every token and layer.

    A reading costs 2 * d_model * d_vocab operations there and as many back (the unembedding itself is not
    trained), its translator six times d_model^2, and the softmax about twenty operations per logit.
    """
    dims, tokens = model.dims, inputs.steps * inputs.batch_tokens
    n_parameters = sum(parameter.numel() for parameter in model.hf.parameters())
    reading = 4 * dims.d_model * dims.d_vocab + 6 * dims.d_model**2 + 20 * dims.d_vocab
    flops = float(tokens) * (2.0 * n_parameters + (dims.n_layers + 0.5) * reading)
    in_blocks = sum(parameter.numel() for parameter in model.structure.blocks.parameters())
    speed = model.token_layers_per_second * 2 * in_blocks / dims.n_layers
    copies = 3 if inputs.optimizer == "sgd" else 5  # itself, gradient, momentum (and two more of AMSGrad)
    return TrainingCost(
        tokens=tokens,
        readings=tokens * dims.n_layers,
        d_vocab=dims.d_vocab,
        flops=flops,
        bytes=copies * 4 * dims.n_layers * (dims.d_model + 1) * dims.d_model,
        seconds=flops / speed if speed else None,
    )
