"""The shape of a row of points, one per character count: exact principal components, cosines, ringing.

With M [count, d] the means and C = M - mean over counts:

    G = C C^T = U diag(lambda) U^T        torch.linalg.eigh in float64: exact, and count x count for any d
    share_k      = lambda_k / sum(lambda)
    projection_k = U_k sqrt(lambda_k)     the count's coordinate on component k
    cosine[i, j] = G[i, j] / sqrt(G[i, i] G[j, j])
    dimensions   = (sum lambda)^2 / sum(lambda^2)        1 for a line, N for N equal directions

Ringing looks at c(s), the mean centred cosine of counts s characters apart, for s up to half the range: the
largest rise of c after any lower point. On a straight line c only falls (0); on a circle or helix it comes
back. The components' signs are free; the entry that is farthest from 0 is made positive.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from mi_core.analyses.character_helix_ringing import ringing


@dataclass(frozen=True, slots=True)
class Geometry:
    """What `geometry` found.

    Attributes:
        shares: explained variance of the leading components, of 1; NaN where nothing varies.
        total: total variance of the points: mean squared distance from their mean.
        projections: coordinates on the leading components, in the unit of the points.
        cosine: of the centred points; NaN where a point lies on the mean.
        uncentred: mean cosine of two different points as they are, without centring.
        dimensions: participation ratio; NaN where nothing varies.
        ringing: see the module; NaN where it is not defined.
        residue: largest difference between G and what all components give back, relative to G's largest.
    """

    shares: Float[np.ndarray, "component"]
    total: float
    projections: Float[np.ndarray, "count component"]
    cosine: Float[np.ndarray, "count count"]
    uncentred: float
    dimensions: float
    ringing: float
    residue: float


def geometry(
    points: Float[np.ndarray, "count d"], counts: Int[np.ndarray, "count"], components: int
) -> Geometry:
    """Principal components, cosines and ringing of a row of points.

    Args:
        points: finite; at least two.
        counts: where each stands in the row, ascending.
        components: how many are kept; those that do not exist are 0.
    """
    means = torch.from_numpy(np.ascontiguousarray(points, dtype=np.float64))
    centred = means - means.mean(dim=0)
    gram = centred @ centred.T
    values, vectors = torch.linalg.eigh(gram)
    values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)
    residue = float((vectors * values @ vectors.T - gram).abs().max()) / max(float(gram.abs().max()), 1e-300)
    total = float(values.sum())
    # Rounding leaves a little of nothing: relative to the points' own size it is no variance.
    varies = total > 1e-24 * max(float((means**2).sum()), 1e-300)
    kept = min(components, len(values))
    projections = np.zeros((len(points), components))
    projections[:, :kept] = _signed((vectors * values.sqrt()).numpy()[:, :kept])
    shares = np.full(components, 0.0 if varies else np.nan)
    if varies:
        shares[:kept] = values[:kept].numpy() / total
    cosine = _cosine(gram.numpy()) if varies else np.full(gram.shape, np.nan)
    return Geometry(
        shares=shares,
        total=total / len(points),
        projections=projections,
        cosine=cosine,
        uncentred=_mean_off_diagonal(_cosine((means @ means.T).numpy())),
        dimensions=total**2 / float((values**2).sum()) if varies else float("nan"),
        ringing=ringing(cosine, counts),
        residue=residue,
    )


def _signed(projections: np.ndarray) -> np.ndarray:
    """The entry farthest from 0 of every column made positive."""
    farthest = projections[np.abs(projections).argmax(axis=0), np.arange(projections.shape[1])]
    return projections * np.where(farthest < 0, -1.0, 1.0)


def _cosine(gram: np.ndarray) -> np.ndarray:
    """Gram matrix -> cosines; NaN in rows of length 0."""
    lengths = np.sqrt(np.maximum(np.diag(gram), 0.0))
    lengths = np.where(lengths > 1e-12 * max(float(lengths.max()), 1e-300), lengths, np.nan)
    return np.clip(gram / np.outer(lengths, lengths), -1.0, 1.0)


def _mean_off_diagonal(matrix: np.ndarray) -> float:
    off = matrix[~np.eye(len(matrix), dtype=bool)]
    return float(off.mean())
