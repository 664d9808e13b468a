"""What an intervention on features returns: the same prompt before and after, at its last token.

Everything is CPU numpy and plain Python. The first axis of the arrays named [run, ...] is the run: 0 is the
baseline, 1 the edited run. Differences are always edited minus baseline. Natural logarithms, nats; ranks
count from 1.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from mi_core.analyses.attribution_result import ReadToken
from mi_core.analyses.before_after import Row, before_after_rows, first_changed_step, logit_difference
from mi_core.analyses.causal_trace_parts import Check
from mi_core.errors import InputError
from mi_core.provenance import Provenance
from mi_core.tokens import Token
from mi_core.transcoders.inject_inputs import InjectInputs
from mi_core.transcoders.names import FeatureAt

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True, eq=False)
class InjectResult:
    """Baseline and edited run of one prompt.

    Attributes:
        inputs: what was asked for.
        provenance: model and versions.
        transcoder: name of the transcoder that was used.
        fingerprint: of its files.
        tokens: of the prompt.
        target: the followed token.
        distractor: the token it is compared with, or None.
        edits: the list, one canonical text each.
        logits: [run, read] of target and distractor, every softcap included.
        log_probabilities: [run, read] theirs.
        ranks: [run, read] theirs; 1 = the top token.
        kl: KL(baseline || edited) over the whole vocabulary, in nats.
        top_ids: [top] tokens that are among the most probable ones of either run, by their larger
            probability.
        top_probabilities: [run, top] theirs.
        top_ranks: [run, top] theirs.
        edited_pieces: [edited] which text of `edits` each edited activation comes from.
        edited_layers: [edited] source layer.
        edited_positions: [edited] token.
        edited_features: [edited] number within the layer.
        activation_from: [edited] what the encoder says in the edited run, once the edits of earlier layers
            act (with everything frozen: in the baseline).
        activation_to: [edited] what the edit makes of it; the difference is how many decoder rows are added.
        activation_largest: [edited] the feature's largest activation in the corpus; NaN if unknown.
        pushed_positions: [token] the edited tokens.
        pushed_layers: [target] layers that are written to.
        delta_norms: [target, token] ||delta||: length of what is added there.
        sum_norms: [target, token] length of the sum of what is added up to that layer.
        residual_norms: [target, token] ||residual||: length of the baseline's stream after that layer.
        feature_layers: [feature] other features, those whose activation changes most first.
        feature_positions: [feature] their tokens.
        feature_indices: [feature] their numbers.
        feature_activations: [run, feature] theirs.
        n_active: [run] how many other features are active where an effect is possible.
        n_switched: [switch] how many of them are switched on, and off.
        baseline_ids: [step] greedy continuation of the baseline.
        edited_ids: [other_step] greedy continuation of the edited run.
        vocabulary: token id -> visible text, for every id above.
        n_layers: of the model.
        d_model: of the model.
        warnings: sentences to be read first.
        checks: identities tried on these numbers.
        seconds: duration.
        cancelled: whether the user stopped it (then it has no result: always False).
    """

    inputs: InjectInputs
    provenance: Provenance | None
    transcoder: str
    fingerprint: str
    tokens: tuple[Token, ...]
    target: ReadToken
    distractor: ReadToken | None
    edits: tuple[str, ...]
    logits: Float[np.ndarray, "2 read"]
    log_probabilities: Float[np.ndarray, "2 read"]
    ranks: Int[np.ndarray, "2 read"]
    kl: float
    top_ids: Int[np.ndarray, " top"]
    top_probabilities: Float[np.ndarray, "2 top"]
    top_ranks: Int[np.ndarray, "2 top"]
    edited_pieces: Int[np.ndarray, " edited"]
    edited_layers: Int[np.ndarray, " edited"]
    edited_positions: Int[np.ndarray, " edited"]
    edited_features: Int[np.ndarray, " edited"]
    activation_from: Float[np.ndarray, " edited"]
    activation_to: Float[np.ndarray, " edited"]
    activation_largest: Float[np.ndarray, " edited"]
    pushed_positions: Int[np.ndarray, " token"]
    pushed_layers: Int[np.ndarray, " target"]
    delta_norms: Float[np.ndarray, "target token"]
    sum_norms: Float[np.ndarray, "target token"]
    residual_norms: Float[np.ndarray, "target token"]
    feature_layers: Int[np.ndarray, " feature"]
    feature_positions: Int[np.ndarray, " feature"]
    feature_indices: Int[np.ndarray, " feature"]
    feature_activations: Float[np.ndarray, "2 feature"]
    n_active: Int[np.ndarray, "2"]
    n_switched: Int[np.ndarray, "2"]
    baseline_ids: Int[np.ndarray, " step"]
    edited_ids: Int[np.ndarray, " other_step"]
    vocabulary: Mapping[int, str]
    n_layers: int
    d_model: int
    warnings: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    seconds: float = 0.0
    cancelled: bool = False

    def __post_init__(self) -> None:
        """Refuse arrays that do not belong together."""
        read, pushed = (
            1 if self.distractor is None else 2,
            (len(self.pushed_layers), len(self.pushed_positions)),
        )
        counts = (read, len(self.top_ids), len(self.edited_pieces), len(self.feature_layers))
        for name, shape in array_shapes(*counts, pushed).items():
            if getattr(self, name).shape != shape:
                found = getattr(self, name).shape
                raise InputError(f"The intervention's {name} has shape {found}, expected {shape}")
        ids = [*self.top_ids.tolist(), *self.baseline_ids.tolist(), *self.edited_ids.tolist()]
        if not set(ids) <= set(self.vocabulary):
            raise InputError("A token of the intervention has no text")
        positions = [self.edited_positions, self.pushed_positions, self.feature_positions]
        if any(len(part) and part.max() >= len(self.tokens) for part in positions):
            raise InputError("The intervention names a token that the prompt does not have")
        if len(self.edited_pieces) and self.edited_pieces.max() >= len(self.edits):
            raise InputError("The intervention's list is shorter than what was edited")

    @property
    def probabilities(self) -> Float[np.ndarray, "2 read"]:
        """[run, read] of target and distractor."""
        return np.exp(self.log_probabilities)

    @property
    def logit_difference(self) -> Float[np.ndarray, "2"] | None:
        """[run] target minus distractor; None without a distractor."""
        return logit_difference(self)

    @property
    def delta_ratios(self) -> Float[np.ndarray, "target token"]:
        """[target, token] ||delta|| / ||residual||."""
        return self.delta_norms / self.residual_norms

    @property
    def sum_ratios(self) -> Float[np.ndarray, "target token"]:
        """[target, token] ||sum of delta|| / ||residual||."""
        return self.sum_norms / self.residual_norms

    @property
    def edited_names(self) -> tuple[FeatureAt, ...]:
        """The edited features at their tokens."""
        numbers = (self.edited_layers, self.edited_features, self.edited_positions)
        return tuple(FeatureAt(*one) for one in zip(*(part.tolist() for part in numbers), strict=True))

    @property
    def feature_names(self) -> tuple[FeatureAt, ...]:
        """The other features at their tokens."""
        numbers = (self.feature_layers, self.feature_indices, self.feature_positions)
        return tuple(FeatureAt(*one) for one in zip(*(part.tolist() for part in numbers), strict=True))

    @property
    def first_changed_step(self) -> int | None:
        """The first step at which the continuations differ, from 0; None if they do not."""
        return first_changed_step(self)

    def rows(self) -> list[Row]:
        """The before/after table: (quantity, token, baseline, edited, unit)."""
        return before_after_rows(self)

    def to_frame(self) -> "pd.DataFrame":
        """Tidy table, one row per number.

        Columns: kind, quantity, token, layer, feature, position, run, value, unit.
        """
        from mi_core.transcoders.inject_record import to_frame  # that module imports this one

        return to_frame(self)

    def to_json(self) -> str:
        """JSON text: schema "lantern/inject", version, every field; no NaN."""
        from mi_core.transcoders.inject_record import to_json

        return to_json(self)

    @classmethod
    def from_json(cls, text: str | bytes) -> "InjectResult":
        """The inverse of `to_json`; numbers come back exactly.

        Raises:
            InputError: not such a record, or damaged.
        """
        from mi_core.transcoders.inject_record import from_json

        return from_json(text)


def array_shapes(
    read: int, top: int, edited: int, others: int, pushed: tuple[int, int]
) -> dict[str, tuple[int, ...]]:
    """Shape of every array whose length follows from another's.

    Args:
        read: followed tokens.
        top: top tokens.
        edited: edited activations.
        others: other features.
        pushed: layers that are written to, and edited tokens.
    """
    return {
        **dict.fromkeys(("logits", "log_probabilities", "ranks"), (2, read)),
        **dict.fromkeys(("top_probabilities", "top_ranks"), (2, top)),
        **dict.fromkeys(("edited_layers", "edited_positions", "edited_features"), (edited,)),
        **dict.fromkeys(("activation_from", "activation_to", "activation_largest"), (edited,)),
        **dict.fromkeys(("delta_norms", "sum_norms", "residual_norms"), pushed),
        **dict.fromkeys(("feature_positions", "feature_indices"), (others,)),
        "feature_activations": (2, others),
        "n_active": (2,),
        "n_switched": (2,),
    }
