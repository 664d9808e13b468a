"""Shares, standard errors and bootstrap bands."""

import numpy as np
import pytest

from mi_core.analyses.shares import (
    bootstrap_weights,
    kl_recovery,
    percentile_band,
    ratio,
    recovered_share,
    standard_error,
    student_t,
)


def test_the_two_ends_are_zero_and_one():
    np.testing.assert_array_equal(recovered_share(np.array([0.1, 0.5, 0.9]), 0.1, 0.9), [0, 0.5, 1])
    np.testing.assert_array_equal(kl_recovery(np.array([2.0, 1.0, 0.0, 4.0]), 2.0), [0, 0.5, 1, -1])


def test_shares_are_not_clipped_and_the_clean_run_is_one_even_if_it_lies_lower():
    np.testing.assert_allclose(recovered_share(np.array([0.0, 1.0]), 0.25, 0.75), [-0.5, 1.5])
    np.testing.assert_allclose(recovered_share(np.array([0.9, 0.1]), 0.9, 0.1), [0, 1])


@pytest.mark.parametrize(("low", "high"), [(0.3, 0.3), (0.3, 0.3 + 1e-8), (0.0, 0.0), (0.0, float("nan"))])
def test_trap_28_no_gap_is_no_share(low, high):
    assert np.isnan(recovered_share(np.array([0.1, 0.2]), low, high)).all()


def test_trap_28_small_probabilities_have_shares_as_long_as_the_gap_is_no_rounding():
    np.testing.assert_allclose(recovered_share(np.array([2e-9]), 1e-9, 3e-9), 0.5)


def test_trap_28_kl_recovery_without_divergence_is_nothing():
    assert np.isnan(kl_recovery(np.array([0.0, 1.0]), 0.0)).all()


def test_standard_error_by_hand():
    np.testing.assert_allclose(standard_error(np.array([[1.0, 2.0, 3.0]])), 1 / np.sqrt(3))
    assert np.isnan(standard_error(np.array([[1.0]]))).all()


@pytest.mark.parametrize(
    ("degrees", "value"),
    [(1, 12.7062), (2, 4.3027), (4, 2.7764), (5, 2.5706), (9, 2.2622), (29, 2.0452), (999, 1.9623)],
)
def test_student_quantiles_of_the_printed_tables(degrees, value):
    assert student_t(degrees) == pytest.approx(value, abs=1e-3)


def test_one_sample_has_no_spread():
    assert np.isnan(student_t(0))


def test_every_resample_has_as_many_items():
    weights = bootstrap_weights(7, 500, seed=1)
    np.testing.assert_array_equal(weights.sum(1), 7)
    np.testing.assert_array_equal(weights, bootstrap_weights(7, 500, seed=1))
    assert not np.array_equal(weights, bootstrap_weights(7, 500, seed=2))


def test_the_bootstrap_band_of_a_mean_is_that_of_theory():
    """For normal data the percentile band of the mean is about +-1.96 sd / sqrt(n)."""
    values = np.random.default_rng(0).standard_normal(400)
    weights = bootstrap_weights(400, 4000, seed=0)
    low, high = percentile_band(weights @ values[:, None] / 400)
    half = 1.96 * values.std() / 20
    np.testing.assert_allclose([low[0], high[0]], [values.mean() - half, values.mean() + half], atol=0.006)


def test_the_band_of_a_constant_is_the_constant():
    weights = bootstrap_weights(5, 200, seed=0)
    low, high = percentile_band(weights @ np.full((5, 1), 3.0) / 5)
    np.testing.assert_allclose([low[0], high[0]], 3)


def test_band_quantiles_equal_numpy_and_skip_what_is_missing():
    values = np.random.default_rng(1).standard_normal((101, 3))
    low, high = percentile_band(values)
    np.testing.assert_allclose(low, np.quantile(values, 0.025, axis=0))
    np.testing.assert_allclose(high, np.quantile(values, 0.975, axis=0))
    some = values.copy()
    some[:20, 0], some[:60, 1] = np.nan, np.nan
    low, high = percentile_band(some)
    np.testing.assert_allclose(low[0], np.quantile(values[20:, 0], 0.025))
    assert np.isnan(low[1])  # most resamples had no such item
    assert np.isfinite(low[2])


@pytest.mark.parametrize("items", [0, 1])
def test_fewer_than_two_items_have_no_band(items):
    weights = bootstrap_weights(items, 100, seed=0)
    assert weights.shape == (100, items)
    low, high = percentile_band(ratio(weights @ np.ones((items, 1)), weights.sum(1, keepdims=True)))
    assert np.isnan([low[0], high[0]]).all()


def test_ratio_is_nan_without_a_denominator():
    np.testing.assert_array_equal(ratio(np.array([1.0, 2.0]), np.array([0.0, 4.0])), [np.nan, 0.5])
