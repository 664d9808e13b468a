"""Statistics of one neuron over a set of texts: bins, and means of kinds of text with their bands."""

import numpy as np
from jaxtyping import Float, Int

from mi_core.analyses.shares import bootstrap_weights, percentile_band, ratio


def histogram_edges(values: Float[np.ndarray, "token"], bins: int) -> Float[np.ndarray, "edge"]:
    """Equal bins over the range of the values; a range of nothing is widened to 1."""
    low, high = float(values.min()), float(values.max())
    if not high - low > 1e-9 * max(1.0, abs(low), abs(high)):
        low, high = low - 0.5, high + 0.5
    return np.linspace(low, high, bins + 1)


def category_bands(
    sums: Float[np.ndarray, "text"],
    counts: Int[np.ndarray, "text"],
    categories: Int[np.ndarray, "text"],
    n_categories: int,
    resamples: int,
    seed: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean per token of each kind of text, with a 95 % bootstrap band over its texts.

    Tokens of one text are alike, so texts are what is drawn again, not tokens.

    Args:
        sums: sum of activations over the tokens of each text that count.
        counts: number of these tokens.
        categories: kind of each text.
        n_categories: number of kinds.
        resamples: how often the texts are drawn.
        seed: of the draws.

    Returns:
        Mean, low and high per kind; NaN where there is no token, and bands NaN for a single text.
    """
    means, lows, highs = (np.full(n_categories, np.nan) for _ in range(3))
    for kind in range(n_categories):
        mine = (categories == kind) & (counts > 0)
        if not mine.any():
            continue
        means[kind] = sums[mine].sum() / counts[mine].sum()
        weights = bootstrap_weights(int(mine.sum()), resamples, seed + kind)
        drawn = ratio(weights @ sums[mine], weights @ counts[mine])
        low, high = percentile_band(drawn[:, None])
        lows[kind], highs[kind] = low[0], high[0]
    return means, lows, highs
