"""What is done to the model while it writes: interventions and a steering vector, as engine edits.

    v = mean over the lines of `plus` of resid_post[layer] at the line's last token  -  the same of `minus`
    resid_post[layer] += coefficient * v               at the tokens that `where` says

Source of the vector: Turner et al., "Steering Language Models With Activation Engineering" (2023), here
from last tokens. Cost: one pass per text, remembered with the model.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from mi_core.analyses.generation_inputs import GenerationInputs, steering_lines
from mi_core.analyses.interventions import (
    Intervention,
    Reference,
    compile_edits,
    parse_interventions,
    reference_of,
)
from mi_core.engine import Edit, observe
from mi_core.engine.generate import EditsSoFar
from mi_core.engine.generate_edits import by_position, pinned_to_prompt
from mi_core.errors import InputError
from mi_core.model.model import LoadedModel
from mi_core.tokens import tokenize


@dataclass(frozen=True, slots=True, eq=False)
class LiveEdits:
    """Edits of a generation.

    Attributes:
        edits: as `generate` takes them.
        layer: the layer that is steered; None without steering.
        warnings: what has to be known about them.
        growing: makes, for one text, further edits that depend on what is written; see `generate`.
    """

    edits: list[Edit]
    layer: int | None
    warnings: tuple[str, ...]
    growing: Callable[[], EditsSoFar] | None = None

    def of_text(self) -> EditsSoFar | None:
        """The edits that depend on the text, for a text that begins now."""
        return None if self.growing is None else self.growing()


def generation_edits(model: LoadedModel, ids: Sequence[int], inputs: GenerationInputs) -> LiveEdits:
    """Compile what a user chose.

    Args:
        model: the loaded model.
        ids: the prompt's tokens.
        inputs: interventions and steering.

    Raises:
        InputError: naming what does not fit the model or the prompt.
        SiteMissing: the model lacks a site.
    """
    interventions = parse_interventions(inputs.interventions) if inputs.interventions.strip() else ()
    compiled = growing_edits(model, ids, interventions, _reference(model, inputs, interventions))
    warnings = ()
    if any(by_position(edit) for edit in compiled) and inputs.where != "prompt":
        warnings = (
            "A mean or resample has one value per token of the prompt: it acts on the prompt only, not on "
            "generated tokens.",
        )
    edits, layer = pinned_to_prompt(compiled, len(ids)), None
    if inputs.plus:
        layer = _layer(model, inputs)
        vector = steering_vector(model, inputs, layer)
        edits.append(Edit("resid_post", layer, "add", value=inputs.coefficient * vector))
    if not edits:
        warnings += ("Nothing is edited, so both models are the same: add an intervention, or steer.",)
    return LiveEdits(edits, layer, warnings)


def growing_edits(
    model: LoadedModel,
    ids: Sequence[int],
    interventions: Sequence[Intervention],
    reference: Reference | None = None,
) -> list[Edit]:
    """`compile_edits` for a text that grows: a column of attention stays edited for later queries.

    For a prompt alone a column is compiled to the queries that the prompt has; here it is open.
    """
    edits = compile_edits(model, ids, interventions, reference)
    columns = [one for one in interventions if one.target == "column"]
    known = {_shape(edit) for edit in compile_edits(model, ids, columns)} if columns else set()
    return [replace(edit, positions=None) if _shape(edit) in known else edit for edit in edits]


def _shape(edit: Edit) -> tuple[object, ...]:
    return (edit.site, edit.layer, edit.operation, edit.positions, edit.heads, edit.keys)


def _reference(
    model: LoadedModel, inputs: GenerationInputs, interventions: Sequence[Intervention]
) -> Reference | None:
    if not any(one.needs_mean or one.needs_second_prompt for one in interventions):
        return None
    second = inputs.second_prompt or None
    return reference_of(model, inputs.reference, second_prompt=second, bos=inputs.bos)


def _layer(model: LoadedModel, inputs: GenerationInputs) -> int:
    layers = model.dims.n_layers
    layer = layers // 2 if inputs.layer is None else inputs.layer
    if layer >= layers:
        raise InputError(
            f"There is no layer {layer} to steer", why=f"this model's layers are 0 to {layers - 1}"
        )
    return layer


def steering_vector(model: LoadedModel, inputs: GenerationInputs, layer: int) -> Float[Tensor, " d_model"]:
    """The difference of the lines' last tokens (means) in the stream after a layer, in float32 at least.

    Raises:
        InputError: the two texts do not differ there.
    """
    ends = []
    for text in (inputs.plus, inputs.minus):
        states = []
        for line in steering_lines(text):
            ids = tokenize(model.tokenizer, line, bos=inputs.bos).ids
            states.append(observe(model, ids, ["resid_post"])["resid_post", layer][-1])
        value = torch.stack(states).cpu()
        ends.append(value.to(torch.promote_types(value.dtype, torch.float32)).mean(0))
    vector = ends[0] - ends[1]
    if not bool((vector != 0).any()):
        raise InputError("The two steering texts give no direction", why="they end in the same state")
    return vector
