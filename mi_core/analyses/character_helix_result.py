"""What `character_helix` returns: for every layer the shape of the means over character counts."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.character_helix_inputs import CharacterHelixInputs
from mi_core.analyses.character_helix_ringing import cosine_by_distance
from mi_core.errors import InputError
from mi_core.provenance import Provenance

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class HelixCost:
    """What a helix takes, from the texts' tokens alone.

    Attributes:
        passages: stretches of text that are wrapped at every width.
        left_out: passages beyond the limit of tokens.
        tokens: tokens of all forward passes.
        passes: forward passes.
        state_bytes: memory of the running sums; does not grow with the texts.
        seconds: expected duration; None before the model's speed is known.
    """

    passages: int
    left_out: int
    tokens: int
    passes: int
    state_bytes: int
    seconds: float | None


@dataclass(frozen=True, slots=True, eq=False)
class CharacterHelixResult:
    """Means of the residual stream by character count, as a shape, for every layer.

    The axis `count` holds only counts with at least `inputs.n_min` tokens.

    Attributes:
        inputs: what was asked for.
        provenance: model, versions; None only for results made without a model.
        n_layers: layers of the model.
        counts: characters since the line's start.
        n: tokens behind each mean.
        explained_variance: share of each leading principal component of the means, of 1; NaN = no variance.
        total_variance: mean squared distance of the means from their centre, activation squared.
        projections: centred coordinates of every mean on the leading components, activation.
        cosine_similarity: of the centred means; NaN where one lies on the centre.
        uncentred_cosine: mean cosine of two different means as they are, without centring.
        dimensions: participation ratio of the variances: 1 = a straight line.
        ringing: largest rise of the mean cosine over the distance of two counts; 0 on a line.
        control_explained_variance: the same with the counts shuffled among the tokens.
        control_total_variance: likewise.
        control_dimensions: likewise.
        control_ringing: likewise.
        passages: stretches of text that were read at every width (the last one perhaps not at all).
        tokens: tokens that were run.
        counted: tokens whose count is at most `inputs.max_count`.
        warnings: sentences to be read before the figure.
        checks: identities tried on this result.
        seconds: duration.
        cancelled: whether the user stopped it; then everything is over the texts read until then.
    """

    inputs: CharacterHelixInputs
    provenance: Provenance | None
    n_layers: int
    counts: Int[np.ndarray, "count"]
    n: Int[np.ndarray, "count"]
    explained_variance: Float[np.ndarray, "layer component"]
    total_variance: Float[np.ndarray, "layer"]
    projections: Float[np.ndarray, "layer count component"]
    cosine_similarity: Float[np.ndarray, "layer count count"]
    uncentred_cosine: Float[np.ndarray, "layer"]
    dimensions: Float[np.ndarray, "layer"]
    ringing: Float[np.ndarray, "layer"]
    control_explained_variance: Float[np.ndarray, "layer component"]
    control_total_variance: Float[np.ndarray, "layer"]
    control_dimensions: Float[np.ndarray, "layer"]
    control_ringing: Float[np.ndarray, "layer"]
    passages: int
    tokens: int
    counted: int
    warnings: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    seconds: float = 0.0
    cancelled: bool = False

    def __post_init__(self) -> None:
        """Shapes agree with each other; counts ascend."""
        for name, shape in shapes(self.n_layers, len(self.counts), self.inputs.components).items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} has shape {getattr(self, name).shape}, expected {shape}")
        if len(self.counts) < 2 or (np.diff(self.counts) <= 0).any():
            raise ValueError("the character counts do not ascend")

    @property
    def n_tokens(self) -> int:
        """Tokens behind all means together."""
        return int(self.n.sum())

    def share(self, components: int = 3, *, control: bool = False) -> Float[np.ndarray, "layer"]:
        """Share of the variance in the first few components, per layer.

        Args:
            components: how many, at most those that are kept.
            control: of the shuffled counts.
        """
        shares = self.control_explained_variance if control else self.explained_variance
        return shares[:, :components].sum(axis=1)

    @property
    def above_control(self) -> Float[np.ndarray, "layer"]:
        """Total variance over that of the shuffled control: about 1 = noise; NaN where that has none."""
        there = self.control_total_variance > 0
        return np.where(there, self.total_variance / np.where(there, self.control_total_variance, 1), np.nan)

    def ring(self, layer: int) -> tuple[Int[np.ndarray, "distance"], Float[np.ndarray, "distance"]]:
        """Distances in characters, and the mean centred cosine at each; see `cosine_by_distance`."""
        return cosine_by_distance(self.cosine_similarity[self._layer(layer)].astype(np.float64), self.counts)

    def to_candle_mi(self, layer: int) -> dict[str, Any]:
        """One layer under the keys of candle-mi's `character_count_helix`; its numbers are uncentred.

        Raises:
            InputError: there is no such layer.
        """
        from mi_core.analyses.character_helix_record import candle_mi

        return candle_mi(self, self._layer(layer))

    def _layer(self, layer: int) -> int:
        if not 0 <= layer < self.n_layers:
            raise InputError(f"There is no layer {layer}", fix=f"Choose one of 0 to {self.n_layers - 1}")
        return layer

    def to_frame(self) -> "pd.DataFrame":
        """Tidy table: one row per number, with its unit and n."""
        from mi_core.analyses.character_helix_record import to_frame

        return to_frame(self)

    def to_json(self) -> str:
        """The whole result as JSON text: schema "lantern/character_helix"."""
        from mi_core.analyses.character_helix_record import to_json

        return to_json(self)

    @classmethod
    def from_json(cls, text: str | bytes) -> "CharacterHelixResult":
        """The inverse of `to_json`.

        Raises:
            InputError: anything that `to_json` would not have written.
        """
        from mi_core.analyses.character_helix_record import from_json

        return from_json(text)


def shapes(n_layers: int, n_counts: int, components: int) -> dict[str, tuple[int, ...]]:
    """Shape of every array of a result, by name."""
    layers = (n_layers,)
    return {
        "counts": (n_counts,),
        "n": (n_counts,),
        "explained_variance": (n_layers, components),
        "total_variance": layers,
        "projections": (n_layers, n_counts, components),
        "cosine_similarity": (n_layers, n_counts, n_counts),
        "uncentred_cosine": layers,
        "dimensions": layers,
        "ringing": layers,
        "control_explained_variance": (n_layers, components),
        "control_total_variance": layers,
        "control_dimensions": layers,
        "control_ringing": layers,
    }


WHOLE = ("counts", "n")
"""Arrays of whole numbers; the others are float64, the cosines float32."""
