"""Shares and spreads of numbers that were read from runs, guarded where a denominator vanishes."""

import numpy as np

MIN_RELATIVE_GAP = 1e-6  # float32 rounds at 6e-8; a gap near that is rounding, not an effect
MIN_GAP = 1e-12
MIN_KL = 1e-10


def recovered_share(value: np.ndarray, low: float, high: float) -> np.ndarray:
    """(value - low) / (high - low): 0 = the low run, 1 = the high run. Not clipped.

    Args:
        value: numbers, any shape.
        low: the same number of the corrupted run.
        high: of the clean run; may lie below `low` (then corruption helped, and 1 is still the clean run).

    Returns:
        Shares, shape of `value`; all NaN when the two runs agree to rounding, because then there is nothing
        to recover.
    """
    gap = high - low
    if not abs(gap) > max(MIN_GAP, MIN_RELATIVE_GAP * max(abs(high), abs(low))):
        return np.full(np.shape(value), np.nan)
    return (np.asarray(value) - low) / gap


def kl_recovery(kl_patched: np.ndarray, kl_corrupted: float) -> np.ndarray:
    """1 - KL(clean||patched) / KL(clean||corrupted).

    1 = the clean run's output, 0 = as far away from it as the corrupted run.

    Args:
        kl_patched: nats, any shape.
        kl_corrupted: nats.

    Returns:
        Shares, at most 1, below 0 where patching makes it worse; all NaN when the corrupted run's output is
        the clean one.
    """
    if not kl_corrupted > MIN_KL:
        return np.full(np.shape(kl_patched), np.nan)
    return 1 - np.asarray(kl_patched) / kl_corrupted


def standard_error(samples: np.ndarray) -> np.ndarray:
    """Standard error of the mean over the last axis (n - 1 in the variance); NaN for a single sample."""
    count = samples.shape[-1]
    if count < 2:
        return np.full(samples.shape[:-1], np.nan)
    return samples.std(axis=-1, ddof=1) / np.sqrt(count)


def student_t(degrees: int) -> float:
    """97.5 % quantile of Student's t, from its expansion about the normal quantile (error < 1e-3).

    Args:
        degrees: degrees of freedom; below 1 there is no spread to speak of and the result is NaN.
    """
    exact = {1: 12.7062, 2: 4.3027, 3: 3.1824, 4: 2.7764}
    if degrees < 1:
        return float("nan")
    if degrees in exact:
        return exact[degrees]
    z = 1.959964
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return sum(term / degrees**power for power, term in enumerate(terms))
