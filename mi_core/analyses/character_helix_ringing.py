"""Ringing: how the cosine of two character counts changes with their distance.

c(s) is the mean cosine of all pairs of counts s characters apart, for s up to half the range, so that at
least half of the counts have a partner.
"""

import numpy as np
from jaxtyping import Float, Int


def cosine_by_distance(
    cosine: Float[np.ndarray, "count count"], counts: Int[np.ndarray, "count"]
) -> tuple[Int[np.ndarray, "distance"], Float[np.ndarray, "distance"]]:
    """Mean cosine of all pairs s characters apart, for every s from 1 to half the range that has a pair.

    Returns:
        The distances, and the mean cosine at each.
    """
    apart = counts[None, :] - counts[:, None]
    distances = [s for s in range(1, int(counts[-1] - counts[0]) // 2 + 1) if (apart == s).any()]
    means = [float(cosine[apart == s].mean()) for s in distances]
    return np.array(distances, dtype=np.int64), np.array(means, dtype=np.float64)


def ringing(cosine: Float[np.ndarray, "count count"], counts: Int[np.ndarray, "count"]) -> float:
    """The largest rise of the mean cosine after any lower point; NaN without three distances."""
    _, profile = cosine_by_distance(cosine, counts)
    if len(profile) < 3 or not np.isfinite(profile).all():
        return float("nan")
    return float((profile - np.minimum.accumulate(profile)).max())
