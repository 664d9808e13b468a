"""One neuron in one text, on a colour scale that was fixed before.

    a[token] = mlp_post[token, neuron]

The scale comes from a set of texts (`NeuronResult.bound`): typing another text never changes what a colour
means; what lies beyond the ends is drawn in the end colours, and its share is said. Cost: one forward pass,
shared with every other look at the same text (`observe`).
"""

from collections.abc import Callable

import numpy as np
import torch

from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.causal_trace_result import Step
from mi_core.analyses.neuron_inputs import NeuronTextInputs
from mi_core.analyses.neuron_run import require_neuron
from mi_core.analyses.neuron_text_result import NeuronTextResult
from mi_core.analyses.neuron_texts import context_of
from mi_core.engine import observe
from mi_core.model.model import LoadedModel
from mi_core.provenance import Provenance
from mi_core.tokens import tokenize


def neuron_text(
    model: LoadedModel, inputs: NeuronTextInputs, *, on_step: Callable[..., None] | None = None
) -> NeuronTextResult:
    """Read one neuron in one text.

    Args:
        model: a loaded model.
        inputs: the text, the neuron and the scale.
        on_step: told once that it begins; may raise `Cancelled`.

    Raises:
        SiteMissing: the model has no `mlp_post`.
        InputError: there is no such neuron, or the text cannot be read.
    """
    if on_step is not None:
        on_step(Step(0, 1, None, None, "one pass"))
    require_neuron(model, inputs.layer, inputs.neuron)
    prompt = tokenize(model.tokenizer, inputs.text, bos=inputs.bos, limit=context_of(model))
    seen = observe(model, prompt.ids, ["mlp_post"])
    value: torch.Tensor = seen["mlp_post", inputs.layer][:, inputs.neuron].float()
    activations = value.cpu().numpy()
    finite = np.isfinite(activations)
    first = max(1, prompt.bos)
    warnings = (
        ()
        if len(prompt) > first
        else ("The text has one token, and the first token of a text never counts.",)
    )
    return NeuronTextResult(
        inputs=inputs,
        provenance=Provenance.of(model),
        tokens=tuple(token.visible for token in prompt.tokens),
        first=first,
        activations=np.where(finite, activations, np.float32(0)),
        warnings=warnings,
        checks=(
            Check(
                "activations are finite",
                bool(finite.all()),
                f"{int((~finite).sum())} of {len(finite)} are infinite or no number.",
            ),
        ),
    )
