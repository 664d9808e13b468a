"""Norms of the vectors of all tokens, in the embedding and the unembedding.

Tokens whose vectors are much shorter than all others were hardly ever seen in training.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from mi_core.analyses.inspect_numbers import row_norms
from mi_core.analyses.inspect_result import EmbeddingNorms
from mi_core.analyses.inspect_weights import NamedWeight

BINS = 40
FEW = 8


@dataclass(frozen=True, slots=True, eq=False)
class TokenNorms:
    """One matrix: the norm of every token's vector, and its summary."""

    norms: Float[np.ndarray, "token"]
    summary: EmbeddingNorms


def embedding_norms(weights: Sequence[NamedWeight]) -> tuple[TokenNorms, ...]:
    """Norms of the rows of W_E and of the columns of W_U; without what is not in memory."""
    found = []
    for weight in weights:
        if weight.info.name in ("W_E", "W_U") and weight.in_memory:
            by_token = weight.tensor if weight.info.name == "W_E" else weight.tensor.T
            norms = row_norms(by_token).numpy()
            found.append(TokenNorms(norms, _summary(weight.info.name, norms)))
    return tuple(found)


def _summary(name: str, norms: Float[np.ndarray, "token"]) -> EmbeddingNorms:
    order = np.argsort(norms, kind="stable")
    low, high = order[:FEW], order[::-1][:FEW]
    return EmbeddingNorms(
        name, float(norms.mean()), float(norms.std()), float(norms.min()), float(norms.max()),
        low.astype(np.int64), norms[low], high.astype(np.int64), norms[high],
    )  # fmt: skip


def norm_histograms(
    found: Sequence[TokenNorms],
) -> tuple[Float[np.ndarray, "edge"], dict[str, Int[np.ndarray, "bin"]]]:
    """Edges shared by both matrices, and the tokens per bin of each; zeros for one that is not there."""
    if not found:
        return np.zeros(0), {"W_E": np.zeros(0, np.int64), "W_U": np.zeros(0, np.int64)}
    norms = np.concatenate([one.norms for one in found])
    # A little room at both ends: on another machine the last digit of a norm may differ.
    ends = (float(norms.min()) * (1 - 1e-9), float(norms.max()) * (1 + 1e-9))
    edges = np.histogram_bin_edges(norms, bins=BINS, range=ends)
    counts = {name: np.zeros(BINS, np.int64) for name in ("W_E", "W_U")}
    for one in found:
        counts[one.summary.name] = np.histogram(one.norms, bins=edges)[0].astype(np.int64)
    return edges.astype(np.float64), counts
