"""Making a steering vector from a model, and turning a dose of it into edits.

    prompts:   v[l] = x_positive[l] - x_negative[l]                 x: value of the site after layer l
    sets:      v[l] = mean over positive prompts of x[l] - mean over negative prompts of x[l]
    feature: v[l] = the row that a transcoder's feature writes to layer l (nothing below its own layer)
    embedding: v = W_E[token]        unembedding: v = W_U[:, token]        the same at every layer
    edit:      x[p] -> x[p] + c v at the chosen tokens p

x is the last token's value, or the mean over a prompt's tokens. Means are taken in float64. Sources: Turner
et al. 2023 (arXiv 2308.10248, activation addition); Rimsky et al. 2023 (arXiv 2312.06681, contrastive means).

Cost: a forward pass per prompt that was not seen lately.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float

from mi_core.analyses.steering_inputs import Pool, Site, SteeringInputs, prompt_lines
from mi_core.analyses.steering_vector import SteeringVector, check_vector
from mi_core.answers import choose_answer
from mi_core.engine import Edit, observe
from mi_core.errors import InputError
from mi_core.model.model import LoadedModel
from mi_core.model.weights import embedding, unembedding
from mi_core.tokens import Bos, tokenize
from mi_core.visible import visible_token


def steering_vector(model: LoadedModel, inputs: SteeringInputs) -> SteeringVector:
    """The vector that the inputs describe; the module docstring has the formulas.

    Args:
        model: a loaded model.
        inputs: source and site.

    Raises:
        InputError: a prompt cannot be tokenised, the token is several tokens, the vector has another width or
            is zero.
        SiteMissing: the model does not have the site.
    """
    if inputs.source in ("prompts", "sets"):
        vector = _contrast(model, inputs)
    elif inputs.source == "file":
        numbers = check_vector(np.array(inputs.vector), inputs.vector_name or "vector", model.dims.d_model)
        vector = SteeringVector(
            np.array([numbers], np.float32), "file", f"Read from {inputs.vector_name or 'a file'!r:.200}."
        )
    elif inputs.source == "feature":
        vector = _of_feature(model, inputs)
    else:
        vector = _of_token(model, inputs)
    if not np.abs(vector.values).max() > 0:
        raise InputError("The steering vector is zero", why=vector.made, fix="Choose two prompts that differ")
    return vector


def _of_feature(model: LoadedModel, inputs: SteeringInputs) -> SteeringVector:
    """A feature's own vector for every layer, as `mi_core.transcoders.feature_vector` made it."""
    shape = (model.dims.n_layers, model.dims.d_model)
    if len(inputs.vector) != shape[0] * shape[1]:
        why = f"it has {len(inputs.vector):,} numbers, {shape[0]} layers of {shape[1]:,} are needed"
        raise InputError("The feature's vector does not fit this model", why=why)
    made = inputs.vector_name or "What a transcoder's feature writes."
    return SteeringVector(np.array(inputs.vector, np.float32).reshape(shape), "feature", made)


def _contrast(model: LoadedModel, inputs: SteeringInputs) -> SteeringVector:
    sets = inputs.source == "sets"
    positive = prompt_lines(inputs.positive, "positive") if sets else (inputs.positive,)
    negative = prompt_lines(inputs.negative, "negative") if sets else (inputs.negative or inputs.prompt,)
    up, down = (
        np.mean([_state(model, one, inputs.site, inputs.pool, inputs.bos) for one in side], axis=0)
        for side in (positive, negative)
    )
    at = "at the last token" if inputs.pool == "last" else "as a mean over tokens"
    made = (
        f"Mean over {len(positive)} positive minus mean over {len(negative)} negative prompts, {at}."
        if sets
        else f"State of {positive[0]!r:.300} minus state of {negative[0]!r:.300}, {at}."
    )
    return SteeringVector((up - down).astype(np.float32), inputs.source, made)


def _state(
    model: LoadedModel, prompt: str, site: Site, pool: Pool, bos: Bos
) -> Float[np.ndarray, "layer d_model"]:
    """What a prompt has at a site of every layer: its last token, or the mean over its tokens."""
    tokens = tokenize(model.tokenizer, prompt, bos=bos)
    seen = observe(model, tokens.ids, [site])
    rows = slice(-1, None) if pool == "last" else slice(min(tokens.bos, len(tokens) - 1), None)
    values = [seen[site, layer][rows].double().mean(0) for layer in range(model.dims.n_layers)]
    return torch.stack([value.cpu() for value in values]).numpy()


def _of_token(model: LoadedModel, inputs: SteeringInputs) -> SteeringVector:
    prompt = tokenize(model.tokenizer, inputs.prompt, bos=inputs.bos)
    text = inputs.token or inputs.answer
    if text is None:
        token = int(observe(model, prompt.ids, ["logits"])["logits", None][-1].argmax())
    else:
        choice = choose_answer(model.tokenizer, prompt, text)
        if not choice.single_token:
            why = " ".join(choice.pieces)[:200]
            raise InputError(f"{text!r:.60} is {len(choice.ids)} tokens", why=why, fix="Type a single token")
        token = choice.ids[0]
    matrix = embedding(model.hf) if inputs.source == "embedding" else unembedding(model.hf).T
    row = matrix[token].detach().float().cpu().numpy()
    if len(row) != model.dims.d_model:
        raise InputError(
            f"The model's {inputs.source} vectors cannot be added to its stream",
            why=f"they have {len(row)} numbers, the stream {model.dims.d_model}",
        )
    made = f"The {inputs.source} of the token {visible_token(model.tokenizer, token)!r}, as stored."
    return SteeringVector(row[None].astype(np.float32), inputs.source, made)


def layer_of(model: LoadedModel, inputs: SteeringInputs) -> int:
    """The layer that is steered.

    Raises:
        InputError: the model has no such layer.
    """
    n_layers = model.dims.n_layers
    layer = n_layers // 2 if inputs.layer is None else inputs.layer
    if layer >= n_layers:
        raise InputError(f"There is no layer {layer}", why=f"the model's layers are 0 to {n_layers - 1}")
    return layer


def positions_of(inputs: SteeringInputs, n_pos: int) -> tuple[int, ...]:
    """The tokens that are steered.

    Raises:
        InputError: the prompt has no such token.
    """
    if inputs.where == "all":
        return tuple(range(n_pos))
    if inputs.where == "last":
        return (n_pos - 1,)
    bad = [position for position in inputs.chosen if position >= n_pos]
    if bad:
        raise InputError(f"The prompt has no token {bad[0]}", why=f"its tokens are 0 to {n_pos - 1}")
    return tuple(sorted(inputs.chosen))


def add(
    site: Site, layer: int, positions: Sequence[int], vector: Float[np.ndarray, "d_model"], coefficient: float
) -> Edit:
    """The edit that adds a dose of a vector."""
    value = torch.from_numpy(coefficient * vector.astype(np.float64))
    return Edit(site, layer, "add", tuple(positions), value=value)


def steering_edits(
    model: LoadedModel, n_pos: int, vector: SteeringVector, inputs: SteeringInputs, coefficient: float
) -> tuple[Edit, ...]:
    """The edits of one dose at the inputs' site, layer and tokens; a dose of 0 is no edit at all.

    Args:
        model: a loaded model.
        n_pos: tokens of the prompt.
        vector: from `steering_vector`.
        inputs: where it is added.
        coefficient: the dose.
    """
    if coefficient == 0:
        return ()
    layer = layer_of(model, inputs)
    return (add(inputs.site, layer, positions_of(inputs, n_pos), vector.at(layer), coefficient),)
