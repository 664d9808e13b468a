"""What a neuron writes, read through the vocabulary: the tokens that it promotes and suppresses directly.

At a frozen scale of the norms, one unit of activation of neuron j in layer l adds to the logit of token t

    effect_t = N(P(W_out[j])) . W_U[:, t]

where P is the linear part of the norm between the MLP and the stream (sandwich families; otherwise nothing)
and N that of the final norm: gain * centre(x) / scale, with the scales that they have at one token of the
set, the one at which the neuron is strongest. At another token the effects are the same up to one positive
factor, so the order of the tokens is the neuron's own. Only the direct path counts, not what later layers
make of it. Cost: two forward passes over one text and one product with the unembedding.
Sources: Geva et al. 2022 (arXiv 2203.14680); the frozen scale as in TransformerLens' `apply_ln_to_stack`.
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.neuron_result import Vocabulary
from mi_core.engine import frozen_norm, post_norm, readout, run
from mi_core.engine.readout import TOLERANCES
from mi_core.errors import LanternError, ModelError
from mi_core.model.model import LoadedModel
from mi_core.model.structure import child
from mi_core.model.weights import weight
from mi_core.tokens import visible_token

CHUNK = 8192  # columns of the unembedding at a time


def vocabulary(
    model: LoadedModel, layer: int, neuron: int, ids: tuple[int, ...], text: int, position: int, top: int
) -> tuple[Vocabulary, tuple[Check, ...]]:
    """Promoted and suppressed tokens, with the norms frozen at one token of a text.

    Args:
        model: the loaded model.
        layer: layer of the neuron.
        neuron: its number.
        ids: token ids of the text.
        text: its place in the set, to be remembered.
        position: the token.
        top: how many tokens of each.

    Returns:
        The tokens, and the identities that prove the map; nothing, with the reason, for a model whose way to
        the logits is not linear at a frozen scale.
    """
    try:
        effects, frozen_post, checks = vocabulary_effects(model, layer, neuron, ids, position)
    except LanternError as error:
        return Vocabulary.none(str(error)), ()
    order = np.argsort(-effects, kind="stable")
    high, low = order[:top], order[::-1][:top]
    names = [visible_token(model.tokenizer, int(i)) for i in (*high, *low)]
    return Vocabulary(
        promoted_ids=high.astype(np.int64),
        promoted=tuple(names[: len(high)]),
        promoted_effects=effects[high],
        suppressed_ids=low.astype(np.int64),
        suppressed=tuple(names[len(high) :]),
        suppressed_effects=effects[low],
        mean=float(effects.mean()),
        deviation=float(effects.std()),
        text=text,
        position=position,
        post_norm=frozen_post,
    ), checks


def vocabulary_effects(
    model: LoadedModel, layer: int, neuron: int, ids: tuple[int, ...], position: int
) -> tuple[Float[np.ndarray, "d_vocab"], bool, tuple[Check, ...]]:
    """Logits (before the softcap) per unit of activation, for every token of the vocabulary.

    Returns:
        The effects in float64, whether a post-norm was frozen, and the checks.

    Raises:
        ModelError: the way to the logits is not linear at a frozen scale.
        SiteMissing: the model lacks a site that is needed.
    """
    last = model.dims.n_layers - 1
    seen = run(
        model,
        torch.tensor([ids]),
        capture=[("mlp_post", layer), ("mlp_out", layer), ("resid_post", last)],
        reduce=lambda place, value: value[0, position].clone(),
        last=1,
    )
    write, frozen_post, off = _write(model, layer, neuron, seen["mlp_post", layer], seen["mlp_out", layer])
    residual = seen["resid_post", last][None]
    parts, errors = [], []
    for start in range(0, model.dims.d_vocab, CHUNK):
        way = readout(model, residual, range(start, min(start + CHUNK, model.dims.d_vocab)))
        parts.append(way.parts(write[None])[0].cpu().numpy())
        errors.append(way.error)
    tolerance = 10 * TOLERANCES.get(model.dtype, 1e-1)
    checks = (
        Check(
            "neurons add up to what the MLP writes",
            off <= tolerance,
            f"All neurons times W_out, plus biases: {off:.1e} of the largest entry off.",
        ),
        Check(
            "the frozen map gives the model's own logits",
            max(errors) <= tolerance,
            f"At the strongest token it is {max(errors):.1e} of the largest logit off.",
        ),
    )
    return np.concatenate(parts), frozen_post, checks


def _write(
    model: LoadedModel, layer: int, neuron: int, activations: Tensor, written: Tensor
) -> tuple[Tensor, bool, float]:
    """What one unit of activation adds to the stream, whether through a post-norm, and the map's error."""
    matrix = weight(model.structure, "W_out", layer)
    direction = matrix[neuron].double()
    down = child(model.structure.blocks[layer], model.structure.family.mlp_down)
    if down is None:
        raise ModelError("The MLP's down projection cannot be read", kind="unsupported")
    with torch.inference_mode():
        through = down(activations[None])
        bias = getattr(down, "bias", None)
        whole = activations.double() @ matrix.double() + (0.0 if bias is None else bias.double())
        post = post_norm(model, "mlp", layer)
        if post is None:
            made = whole
        else:
            frozen = frozen_norm(post, through)
            direction = frozen.linear(direction[None])[0]
            made = frozen.linear(whole[None])[0] + frozen.bias
        off = (made - written.double()).abs().max() / written.double().abs().max().clamp_min(1e-30)
    return direction, post is not None, float(off)
