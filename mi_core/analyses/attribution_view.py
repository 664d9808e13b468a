"""One prompt at its last position, and the linear ways from its activations to the logit that is read.

    contribution of a vector x in the stream = x . direction,   direction = frozen norm and unembedding

Inside a module the way is longer by its output matrix, and in sandwich families by its post-norm, frozen at
the scale that it has here:   contribution of one number a_i in front of W = a_i * (W direction')_i.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from mi_core.engine import Readout, frozen_norm, observe, post_norm, readout, run, unembed
from mi_core.engine.observe import MEMO_BYTES
from mi_core.engine.place import Place
from mi_core.errors import SiteMissing
from mi_core.metrics import exact_logits
from mi_core.model.model import LoadedModel
from mi_core.model.weights import weight
from mi_core.tokens import TokenizedPrompt

_SIDES = {"attn": ("z", "W_O", "b_O"), "mlp": ("mlp_post", "W_out", "b_out")}
"""What stands in front of a module's output matrix, and the weights' names."""


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """A prompt at its last position.

    Attributes:
        prompt: its tokens.
        values: (site, layer) -> value at the last position; "pattern" [head, key] is that of the last query,
            "v" [pos, kv_head, d_head] has all positions.
        logits: what the model itself says next.
        map: from the last residual to the logits of the tokens that are read.
        direction: the same for target minus distractor, float64.
    """

    prompt: TokenizedPrompt
    values: Mapping[Place, Tensor]
    logits: Float[Tensor, " d_vocab"]
    map: Readout
    direction: Float[Tensor, " d_model"]


@dataclass(frozen=True, slots=True, eq=False)
class Inside:
    """The way from the numbers in front of a module's output matrix to the logit.

    Attributes:
        reads: contribution of one unit of each number; the shape of the site (`z`, `mlp_post`), float64.
        bias: what the output bias and the post-norm's bias contribute.
    """

    reads: Tensor
    bias: float


def look(
    model: LoadedModel, prompt: TokenizedPrompt, sites: Sequence[str]
) -> tuple[Mapping[Place, Tensor], Float[Tensor, " d_vocab"]]:
    """The values of a prompt at its last position, and what the model says next.

    A prompt whose activations are too many to be shared with other pages keeps only what is read here.
    """
    places = [(site, layer) for site in sites for layer in model.structure.layers_of(site)]
    size = sum(prod(model.structure.shape(site, len(prompt))) for site, _ in places)
    if size * model.dtype.itemsize <= MEMO_BYTES:
        seen = observe(model, prompt.ids, sites)
        values = {place: _at_the_end(place, seen[place]) for place in places}
    else:
        done = run(
            model, torch.tensor([prompt.ids]), capture=list(sites), last=1,
            reduce=lambda place, value: _at_the_end(place, value[0]).clone(),
        )  # fmt: skip
        values = dict(done.items())
    last = values["resid_post", model.dims.n_layers - 1]
    return values, exact_logits(unembed(model, last[None])[0])


def _at_the_end(place: Place, value: Tensor) -> Tensor:
    if place[0] == "v":
        return value
    return value[:, -1] if place[0] == "pattern" else value[-1]


def make_view(
    model: LoadedModel,
    prompt: TokenizedPrompt,
    values: Mapping[Place, Tensor],
    logits: Float[Tensor, " d_vocab"],
    tokens: Sequence[int],
) -> View:
    """Freeze the final norm for one prompt.

    Args:
        model: the loaded model.
        prompt: its tokens.
        values: from `look`.
        logits: from `look`.
        tokens: the target's id, and the distractor's if there is one.

    Raises:
        ModelError: the model's logits are no linear function of its last residual at a frozen scale.
    """
    last = values["resid_post", model.dims.n_layers - 1]
    found = readout(model, last[None], tokens)
    return View(prompt, values, logits, found, target_minus_distractor(found.directions[0]))


def target_minus_distractor(numbers: Float[Tensor, "... token"]) -> Float[Tensor, "..."]:
    """The target's numbers, less the distractor's where there is one."""
    return numbers[..., 0] - numbers[..., 1] if numbers.shape[-1] > 1 else numbers[..., 0]


def inside(model: LoadedModel, view: View, kind: Literal["attn", "mlp"], layer: int) -> Inside:
    """The way from the heads (or neurons) of a layer to the logit.

    Raises:
        SiteMissing: the family has no such weight.
        ModelError: the weights are not in memory, or the post-norm cannot be frozen.
    """
    site, matrix_name, bias_name = _SIDES[kind]
    values = view.values[site, layer].double()
    matrix = weight(model.structure, matrix_name, layer).double()
    bias = _bias(model, bias_name, layer, matrix)
    direction, constant = view.direction.to(matrix.device), 0.0
    norm = post_norm(model, kind, layer)
    if norm is not None:
        raw = values.reshape(-1) @ matrix.reshape(-1, matrix.shape[-1]) + bias
        frozen = frozen_norm(norm, raw[None].to(model.dtype))
        constant = float(frozen.bias @ direction)
        direction = frozen.before(direction[None])[0]
    return Inside(matrix @ direction, constant + float(bias @ direction))


def _bias(model: LoadedModel, name: str, layer: int, matrix: Tensor) -> Float[Tensor, " d_model"]:
    """A module's output bias; zeros where the family has none."""
    try:
        return weight(model.structure, name, layer).double()
    except SiteMissing:
        return matrix.new_zeros(matrix.shape[-1])
