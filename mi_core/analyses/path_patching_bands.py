"""Means over prompts with their 95 % bands."""

import numpy as np
from jaxtyping import Float

from mi_core.analyses.shares import student_t


def mean_band(
    samples: Float[np.ndarray, "prompt *rest"],
) -> tuple[Float[np.ndarray, "*rest"], Float[np.ndarray, "*rest"], Float[np.ndarray, "*rest"]]:
    """Mean over prompts and its 95 % band: mean -+ t(0.975, n - 1) s / sqrt(n); NaN ends for one prompt."""
    n = len(samples)
    mean = np.asarray(samples.mean(0))
    if n < 2:
        nothing = np.full_like(mean, np.nan)
        return mean, nothing, nothing
    half = np.asarray(student_t(n - 1) * samples.std(0, ddof=1) / np.sqrt(n))
    return mean, np.asarray(mean - half), np.asarray(mean + half)
