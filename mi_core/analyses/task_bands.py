"""Bands over the prompts of a task.

mean:  mean -+ t(0.975, n - 1) s / sqrt(n), s with n - 1            (prompts are taken as independent draws)
share: Wilson's interval, which stays inside 0 to 1 and is not empty at 0 and 1 (Wilson 1927)
"""

import math

import numpy as np
from jaxtyping import Float

from mi_core.analyses.shares import standard_error, student_t

Z = 1.959964
Band = tuple[np.ndarray, np.ndarray, np.ndarray]

FEW_PROMPTS = 8
"""Below this a mean over a template's prompts is hardly a mean, and a band a rough guess."""


def mean_with_band(samples: Float[np.ndarray, "*rest prompt"]) -> Band:
    """Mean over prompts with its 95 % band (low, high); the band is NaN for a single prompt."""
    mean = np.asarray(samples.mean(-1))
    half = np.asarray(student_t(samples.shape[-1] - 1) * standard_error(samples))
    return mean, np.asarray(mean - half), np.asarray(mean + half)


def share_with_band(right: int, n: int) -> tuple[float, float, float]:
    """Share right / n with Wilson's 95 % band; NaN without prompts."""
    if n < 1:
        return math.nan, math.nan, math.nan
    share, spread = right / n, Z * Z / n
    middle = (share + spread / 2) / (1 + spread)
    half = Z / (1 + spread) * math.sqrt(share * (1 - share) / n + spread / (4 * n))
    return share, max(0.0, middle - half), min(1.0, middle + half)
