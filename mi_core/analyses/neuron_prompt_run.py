"""The most active neurons at every token and layer of a prompt: from a token to its neurons.

Neurons are ranked by |a|, a = mlp_post[token, neuron]; equal ones by their number. Cost: one forward pass,
shared with every other look at the same prompt (`observe`), and one partial sort per layer.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.causal_trace_result import Step
from mi_core.analyses.neuron_inputs import NeuronPromptInputs
from mi_core.analyses.neuron_prompt_result import NeuronPromptResult
from mi_core.analyses.neuron_texts import context_of
from mi_core.engine import observe
from mi_core.model.model import LoadedModel
from mi_core.provenance import Provenance
from mi_core.tokens import tokenize


def neuron_prompt(
    model: LoadedModel, inputs: NeuronPromptInputs, *, on_step: Callable[..., None] | None = None
) -> NeuronPromptResult:
    """Find the leading neurons at every token and layer of a prompt.

    Args:
        model: a loaded model.
        inputs: the prompt, and how many neurons.
        on_step: told once that it begins; may raise `Cancelled`.

    Raises:
        SiteMissing: the model has no `mlp_post`.
        InputError: the prompt cannot be read.
    """
    if on_step is not None:
        on_step(Step(0, 1, None, None, "one pass"))
    prompt = tokenize(model.tokenizer, inputs.prompt, bos=inputs.bos, limit=context_of(model))
    seen = observe(model, prompt.ids, ["mlp_post"])
    values = [seen["mlp_post", layer].float().cpu().numpy() for layer in range(model.dims.n_layers)]
    wrong = sum(int((~np.isfinite(value)).sum()) for value in values)
    values = [np.nan_to_num(value, nan=0.0, posinf=0.0, neginf=0.0) for value in values]
    leaders = [_leaders(value, min(inputs.top, model.dims.d_mlp)) for value in values]
    return NeuronPromptResult(
        inputs=inputs,
        provenance=Provenance.of(model),
        d_mlp=model.dims.d_mlp,
        tokens=tuple(token.visible for token in prompt.tokens),
        first=max(1, prompt.bos),
        neurons=np.stack(leaders).astype(np.int64),
        values=np.stack(
            [np.take_along_axis(v, chosen, axis=1) for v, chosen in zip(values, leaders, strict=True)]
        ).astype(np.float32),
        sizes=np.stack([np.linalg.norm(value.astype(np.float64), axis=1) for value in values]),
        checks=(
            Check("activations are finite", not wrong, f"{wrong:,} are infinite or no number; shown as 0."),
        ),
    )


def _leaders(values: Float[np.ndarray, "pos d_mlp"], top: int) -> Int[np.ndarray, "pos top"]:
    """The largest |values| of every row, in descending order; equal ones by number."""
    return np.argsort(-np.abs(values), axis=1, kind="stable")[:, :top]
