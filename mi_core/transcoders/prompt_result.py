"""What the features of a prompt are returned as; see `prompt_run`."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from mi_core.analyses.attribution_result import ReadToken
from mi_core.analyses.causal_trace_parts import Check
from mi_core.provenance import Provenance
from mi_core.tokens import Token
from mi_core.transcoders.names import FeatureAt
from mi_core.transcoders.prompt_inputs import FeaturesOnPromptInputs
from mi_core.transcoders.prompt_label import TranscoderLabel

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True, eq=False)
class FeaturesOnPromptResult:
    """Every active feature of a prompt, by layer and token, and how well the transcoder fits there.

    Attributes:
        inputs: what was asked for.
        provenance: model, versions.
        transcoder: which one.
        tokens: tokens of the prompt.
        masked: positions that do not count (BOS).
        layers: layers that have features, ascending.
        n_features: how many each of them has.
        targets: layers that are written to, ascending.
        counts: active features; 0 at masked positions.
        layer: source layer of every listed feature at a token; the list is sorted by layer, position, number.
        position: its token.
        feature: its number in the layer.
        activation: its activation, above 0.
        threshold: of its JumpReLU; NaN where the transcoder has none.
        density: share of a corpus' tokens at which the feature is active; NaN where not known.
        effect: its linear effect on `target` [logits]; NaN where not asked for.
        unexplained: share of the variance of what was written that is not reconstructed (FVU), by target
            layer; NaN without decoders, and with fewer than two tokens that count.
        unexplained_all: the same over all target layers.
        error: length of what is not reconstructed, relative to what was written; NaN at masked positions.
        target: the token that effects are about; None without them.
        distractor: the token that it is compared with, or None: then with the mean of all logits.
        warnings: sentences to be read before the figures.
        checks: identities tried on this result.
        cancelled: always False: it is one pass.
    """

    inputs: FeaturesOnPromptInputs
    provenance: Provenance | None
    transcoder: TranscoderLabel
    tokens: tuple[Token, ...]
    masked: tuple[int, ...]
    layers: tuple[int, ...]
    n_features: tuple[int, ...]
    targets: tuple[int, ...]
    counts: Int[np.ndarray, "layer pos"]
    layer: Int[np.ndarray, " n"]
    position: Int[np.ndarray, " n"]
    feature: Int[np.ndarray, " n"]
    activation: Float[np.ndarray, " n"]
    threshold: Float[np.ndarray, " n"]
    density: Float[np.ndarray, " n"]
    effect: Float[np.ndarray, " n"]
    unexplained: Float[np.ndarray, " target"]
    unexplained_all: float
    error: Float[np.ndarray, "target pos"]
    target: ReadToken | None = None
    distractor: ReadToken | None = None
    warnings: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    cancelled: bool = False

    def __post_init__(self) -> None:
        """Shapes agree with each other."""
        n, n_pos = len(self.layer), len(self.tokens)
        wanted = {
            "counts": (len(self.layers), n_pos),
            **dict.fromkeys(("position", "feature", "activation", "threshold", "density", "effect"), (n,)),
            "unexplained": (len(self.targets),),
            "error": (len(self.targets), n_pos),
        }
        for name, shape in wanted.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} has shape {getattr(self, name).shape}, expected {shape}")
        if len(self.n_features) != len(self.layers):
            raise ValueError(f"{len(self.layers)} layers but {len(self.n_features)} numbers of features")

    def __len__(self) -> int:
        return len(self.layer)

    @property
    def n_active(self) -> int:
        """Active features, summed over tokens and layers; more than are listed if `inputs.most` cut them."""
        return int(self.counts.sum())

    @property
    def share(self) -> Float[np.ndarray, " n"]:
        """Activation as a multiple of the threshold; NaN where there is none above 0."""
        known = np.where(self.threshold > 0, self.threshold, np.nan)
        return self.activation / known

    @property
    def has_threshold(self) -> bool:
        """Whether activations can be compared with a threshold."""
        return bool(np.isfinite(self.share).any())

    @property
    def has_density(self) -> bool:
        """Whether densities are known from a corpus pass."""
        return bool(np.isfinite(self.density).any())

    @property
    def has_effects(self) -> bool:
        """Whether effects were computed."""
        return self.target is not None

    @property
    def counting(self) -> tuple[int, ...]:
        """Positions that count."""
        masked = set(self.masked)
        return tuple(position for position in range(len(self.tokens)) if position not in masked)

    def at(self, index: int) -> FeatureAt:
        """Name of an entry of the list."""
        return FeatureAt(int(self.layer[index]), int(self.feature[index]), int(self.position[index]))

    def to_frame(self) -> "pd.DataFrame":
        """Tidy table, one number per row.

        Columns: name, layer, feature, position, token, quantity, value, unit.
        """
        from mi_core.transcoders import prompt_record

        return prompt_record.to_frame(self)

    def to_json(self) -> str:
        """The whole result as JSON text."""
        from mi_core.transcoders import prompt_record

        return prompt_record.to_json(self)

    @classmethod
    def from_json(cls, text: str | bytes) -> "FeaturesOnPromptResult":
        """The inverse of `to_json`.

        Raises:
            InputError: anything that `to_json` would not have written.
        """
        from mi_core.transcoders import prompt_record

        return prompt_record.from_json(text)
