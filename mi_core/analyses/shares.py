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
    exact = {1: 12.7062, 2: 4.3027, 3: 3.1824, 4: 2.7764, 5: 2.5706, 6: 2.4469}
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


# --- bootstrap
# --------------------------------------------------------------------------------------------------------


def bootstrap_weights(n_items: int, resamples: int, seed: int) -> np.ndarray:
    """How often each item is drawn in each resample, [resample, item]; every row sums to `n_items`."""
    if n_items == 0:
        return np.zeros((resamples, 0))
    draws = np.random.default_rng(seed).multinomial(n_items, np.full(n_items, 1 / n_items), size=resamples)
    return draws.astype(float) if n_items > 1 else np.full((resamples, 1), np.nan)


def percentile_band(resampled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """2.5 and 97.5 % quantiles over the first axis.

    Resamples without the quantity (NaN) are left out; where more than half have none, the band is NaN.
    """
    ordered = np.sort(resampled, axis=0)  # NaN goes last
    count = np.isfinite(resampled).sum(axis=0)
    low, high = (_quantile(ordered, count, share) for share in (0.025, 0.975))
    enough = 2 * count > len(resampled)
    return np.where(enough, low, np.nan), np.where(enough, high, np.nan)


def _quantile(ordered: np.ndarray, count: np.ndarray, share: float) -> np.ndarray:
    """Quantile of the first `count` entries along axis 0, linear between neighbours."""
    place = share * np.maximum(count - 1, 0)
    below = np.floor(place).astype(int)
    above = np.minimum(below + 1, np.maximum(count - 1, 0))
    one = np.take_along_axis(ordered, below[None], axis=0)[0]
    other = np.take_along_axis(ordered, above[None], axis=0)[0]
    return one + (place - below) * (other - one)


def ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """Top / bottom, NaN where the denominator is 0 (or NaN)."""
    bottom = np.broadcast_to(np.asarray(bottom, float), np.shape(top))
    out = np.full(np.shape(top), np.nan)
    return np.divide(top, bottom, out=out, where=bottom != 0)
