"""What features write, as vectors: the edits of an injection, and a steering vector.

    v_m = sum over the listed features f of c_f * W_dec_f,m      for every layer m that one of them writes to
    edit: y_m[p] -> y_m[p] + s * v_m     at the transcoder's writing site of every such layer, at tokens p

c_f is 1 for an injected feature and -1 for a suppressed one: the push is the same whether or not the feature
is active. A random control is the same edit turned at random in d_model dimensions: the length of every
layer's vector and the angles between layers stay as they are. Only the rows of the listed features are read.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mi_core.analyses.steering_vector import SteeringVector
from mi_core.engine import Edit
from mi_core.errors import InputError
from mi_core.model.model import LoadedModel
from mi_core.transcoders.names import Feature, parse_feature
from mi_core.transcoders.store import load_transcoder
from mi_core.transcoders.transcoder import Transcoder


@dataclass(frozen=True, slots=True, eq=False)
class Push:
    """Vectors that are added together, one per layer.

    Attributes:
        site: where they are added, a name from `mi_core.sites`.
        layers: layers, ascending.
        vectors: one per layer, for a strength of 1.
    """

    site: str
    layers: tuple[int, ...]
    vectors: Float[np.ndarray, "layer d_model"]

    def edits(self, positions: Sequence[int] | None, strength: float = 1.0) -> tuple[Edit, ...]:
        """The edits of a strength at some tokens; None = at all of them."""
        at = None if positions is None else tuple(positions)
        values = self.values(strength)
        return tuple(
            Edit(self.site, layer, "add", at, value=value)
            for layer, value in zip(self.layers, values, strict=True)
        )

    def edits_at_each(self, positions: Sequence[int], strength: float) -> list[tuple[Edit, ...]]:
        """The edits at one token after the other; they share their values."""
        values = self.values(strength)
        return [
            tuple(
                Edit(self.site, layer, "add", (at,), value=value)
                for layer, value in zip(self.layers, values, strict=True)
            )
            for at in positions
        ]

    def values(self, strength: float) -> list[Float[Tensor, "d_model"]]:
        """What a strength adds in each layer."""
        return [torch.from_numpy(strength * vector) for vector in self.vectors]

    @property
    def total(self) -> Float[np.ndarray, "d_model"]:
        """What all layers together have added to the stream after the last one."""
        return self.vectors.sum(0)

    def norms(self, n_layers: int) -> Float[np.ndarray, "layer"]:
        """Length of each layer's vector; 0 where nothing is written."""
        found = np.zeros(n_layers)
        found[list(self.layers)] = np.linalg.norm(self.vectors, axis=1)
        return found

    def sums(self, n_layers: int) -> Float[np.ndarray, "layer"]:
        """Length of what has been added up to each layer, that layer included."""
        each = np.zeros((n_layers, self.vectors.shape[1]))
        each[list(self.layers)] = self.vectors
        return np.linalg.norm(each.cumsum(0), axis=1)

    def turned(self, generator: np.random.Generator) -> "Push":
        """The same vectors turned at random: all lengths, and all angles between layers, are kept."""
        count, width = self.vectors.shape
        # rows = coordinates @ basis with orthonormal basis rows; another random basis is a random rotation.
        left, sizes, _ = np.linalg.svd(self.vectors, full_matrices=False)
        drawn, upper = np.linalg.qr(generator.standard_normal((width, min(count, width))))
        drawn = drawn * np.sign(np.diag(upper))  # without this QR prefers some directions
        return Push(self.site, self.layers, (left * sizes) @ drawn.T)


def push_of(transcoder: Transcoder, weights: Mapping[Feature, float]) -> Push:
    """What features write, summed with weights.

    Args:
        transcoder: of the model.
        weights: feature -> its coefficient.

    Raises:
        InputError: no feature is given, or the transcoder does not have one.
        TranscoderError: kind "no_decoder", when only the encoders are here.
    """
    if not weights:
        raise InputError("No feature is chosen", fix="Give one or more, such as L5F102, L3F7")
    found: dict[int, np.ndarray] = {}
    by_layer: dict[int, list[Feature]] = {}
    for feature in weights:
        transcoder.check(feature.layer, feature.index)
        by_layer.setdefault(feature.layer, []).append(feature)
    for layer, features in by_layer.items():
        indices = torch.tensor([feature.index for feature in features])
        rows = transcoder.rows(layer, indices).double().cpu().numpy()
        sizes = np.array([weights[feature] for feature in features])
        for column, target in enumerate(transcoder.targets(layer)):
            found[target] = found.get(target, 0) + sizes @ rows[:, column]
    layers = tuple(sorted(found))
    return Push(transcoder.writes.site, layers, np.stack([found[layer] for layer in layers]))


def feature_vector(model: LoadedModel, name: str, transcoder: str = "") -> SteeringVector:
    """A feature's decoder rows as a steering vector: of each layer the row that it writes there.

    The steering analyses take it by value: `SteeringInputs(source="feature", vector=(its numbers, layer after
    layer), vector_name=its made)`. So a figure made with it can be made again without the transcoder.

    Args:
        model: a loaded model.
        name: the feature, such as "L5F102".
        transcoder: which transcoder; "" = the one bundled with the model.

    Returns:
        One vector per layer; zero at layers that the feature does not write to.

    Raises:
        InputError: the text names no feature, or the transcoder does not have it.
        TranscoderError: there is no such transcoder, or it does not fit the model.
    """
    feature, loaded = parse_feature(name), load_transcoder(model, transcoder)
    push = push_of(loaded, {feature: 1.0})
    values = np.zeros((model.dims.n_layers, push.vectors.shape[1]), np.float32)
    values[list(push.layers)] = push.vectors
    ends = f"{push.layers[0]}" if len(push.layers) == 1 else f"{push.layers[0]} to {push.layers[-1]}"
    made = (
        f"What feature {feature.text} of the transcoder {loaded.name!r:.120} writes at {push.site} of layer "
        f"{ends}, for an activation of 1; nothing at other layers."
    )
    return SteeringVector(values, "feature", made)
