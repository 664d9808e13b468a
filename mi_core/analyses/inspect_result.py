"""What an inspection returns: one row per weight, embeddings, architecture, sites, proofs, config, memory.

CPU numpy and plain Python; nothing here needs torch or a model.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float, Int

from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.inspect_inputs import InspectInputs
from mi_core.analyses.inspect_parts import (
    ROLES,
    Architecture,
    ConfigKey,
    DeviceMemory,
    Proof,
    Role,
    SiteInfo,
    WeightInfo,
)
from mi_core.provenance import Provenance

if TYPE_CHECKING:
    import pandas as pd

STATISTICS: dict[str, tuple[str, str]] = {
    "frobenius": ("Frobenius norm", "square root of the sum of squares of all entries"),
    "mean": ("mean", "mean of all entries"),
    "std": ("standard deviation", "of all entries, divided by n"),
    "minimum": ("minimum", "smallest entry"),
    "maximum": ("maximum", "largest entry"),
    "largest_singular_value": ("largest singular value", "the most by which the matrix lengthens a vector"),
}
"""Array of the result -> (label, meaning). All are in units of the weights."""


@dataclass(frozen=True, slots=True, eq=False)
class EmbeddingNorms:
    """Norms of the vectors of all tokens: rows of W_E, or columns of W_U.

    Attributes:
        name: "W_E" or "W_U".
        mean, std, smallest, largest: of the norms, in units of the weights.
        smallest_ids: tokens with the smallest norms, smallest first.
        largest_ids: tokens with the largest norms, largest first.
        smallest_norms, largest_norms: their norms.
    """

    name: str
    mean: float
    std: float
    smallest: float
    largest: float
    smallest_ids: Int[np.ndarray, "few"]
    smallest_norms: Float[np.ndarray, "few"]
    largest_ids: Int[np.ndarray, "few"]
    largest_norms: Float[np.ndarray, "few"]


@dataclass(frozen=True, slots=True, eq=False)
class InspectResult:
    """An inspection.

    Attributes:
        inputs: what was asked for.
        provenance: model and versions.
        weights: one per row of the arrays; a matrix is followed by its heads' parts.
        frobenius, mean, std, minimum, maximum: per weight, in units of the weights. NaN where the numbers are
            not in memory, or were not asked for.
        largest_singular_value: per matrix; NaN for vectors, and where it was not asked for.
        norm_edges: edges of the bins of the two histograms of token norms.
        embedding_norms: tokens per bin, norms of the rows of W_E.
        unembedding_norms: tokens per bin, norms of the columns of W_U (the same when tied).
        embeddings: statistics of those norms; empty where the matrices are not in memory.
        vocabulary: token id -> visible text, for the ids in `embeddings`.
        architecture: what the drawing needs.
        sites: every site of the table.
        proofs: the load-time probe.
        replay: whether sweeps may replay single layers.
        config: keys of config.json.
        memory: per device.
        parameters: how many the model has, tied ones once.
        load_seconds: from the request to readiness.
        warnings: sentences to be read first.
        checks: identities tried on these numbers.
        seconds: duration of the inspection.
        cancelled: whether the user stopped it; then later rows are NaN.
    """

    inputs: InspectInputs
    provenance: Provenance | None
    weights: tuple[WeightInfo, ...]
    frobenius: Float[np.ndarray, "weight"]
    mean: Float[np.ndarray, "weight"]
    std: Float[np.ndarray, "weight"]
    minimum: Float[np.ndarray, "weight"]
    maximum: Float[np.ndarray, "weight"]
    largest_singular_value: Float[np.ndarray, "weight"]
    norm_edges: Float[np.ndarray, "edge"]
    embedding_norms: Int[np.ndarray, "bin"]
    unembedding_norms: Int[np.ndarray, "bin"]
    embeddings: tuple[EmbeddingNorms, ...]
    vocabulary: dict[int, str]
    architecture: Architecture
    sites: tuple[SiteInfo, ...]
    proofs: tuple[Proof, ...]
    replay: bool
    config: tuple[ConfigKey, ...]
    memory: tuple[DeviceMemory, ...]
    parameters: int
    load_seconds: float
    warnings: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    seconds: float = 0.0
    cancelled: bool = False

    def __post_init__(self) -> None:
        """Every array has a number per weight; a histogram has a bin between every two edges."""
        for name in STATISTICS:
            if getattr(self, name).shape != (len(self.weights),):
                shape = getattr(self, name).shape
                raise ValueError(f"{name} has shape {shape} for {len(self.weights)} weights")
        for name in ("embedding_norms", "unembedding_norms"):
            if len(getattr(self, name)) != max(0, len(self.norm_edges) - 1):
                raise ValueError(f"{name} has {len(getattr(self, name))} bins, {len(self.norm_edges)} edges")
        names = [weight.full_name for weight in self.weights]
        if len(set(names)) != len(names):
            raise ValueError("two weights have the same full name")

    @property
    def whole(self) -> Bool[np.ndarray, "weight"]:
        """Which rows are whole weights with numbers of their own: no head's part, no tied copy."""
        return np.array([weight.head is None and not weight.tied_to for weight in self.weights], dtype=bool)

    def rows_of(
        self, *, layer: int | None = None, roles: Sequence[Role] = (), heads: bool = True
    ) -> list[int]:
        """Indices of the weights of a layer and of some roles.

        Args:
            layer: only this layer; None = all.
            roles: only these roles; empty = all.
            heads: whether the parts of heads belong to it.
        """
        return [
            index
            for index, weight in enumerate(self.weights)
            if (layer is None or weight.layer == layer)
            and (not roles or weight.role in roles)
            and (heads or weight.head is None)
        ]

    def index_of(self, full_name: str) -> int | None:
        """Row of a weight by its full name; None if there is none."""
        return next((i for i, weight in enumerate(self.weights) if weight.full_name == full_name), None)

    def parameters_by_role(self) -> dict[Role, int]:
        """Numbers per role, tied ones once; their sum is `parameters`."""
        totals: dict[Role, int] = dict.fromkeys(ROLES, 0)
        for weight, counts in zip(self.weights, self.whole, strict=True):
            if counts:
                totals[weight.role] += weight.numbers
        return totals

    def unread_keys(self) -> tuple[ConfigKey, ...]:
        """Keys of config.json that nobody reads."""
        return tuple(key for key in self.config if key.reader == "nobody")

    def to_frame(self) -> "pd.DataFrame":
        """Tidy table, one row per number.

        Columns: weight, role, layer, head, shape, dtype, parameter, statistic, value, unit.
        """
        from mi_core.analyses.inspect_record import to_frame  # that module imports this one

        return to_frame(self)

    def to_json(self) -> str:
        """JSON text: schema "lantern/inspect", version, every field; no NaN."""
        from mi_core.analyses.inspect_record import to_json

        return to_json(self)

    @classmethod
    def from_json(cls, text: str | bytes) -> "InspectResult":
        """The inverse of `to_json`; numbers come back exactly.

        Raises:
            InputError: not such a record, or damaged.
        """
        from mi_core.analyses.inspect_record import from_json

        return from_json(text)
