"""Finished results are kept up to a number of bytes."""

import numpy as np

from pages.shared.cache import ResultCache, size_of
from tests.examples import example_result


def test_size_counts_arrays_inside_dataclasses() -> None:
    result = example_result()
    arrays = sum(values.nbytes for grid in result.grids.values() for values in grid.samples.values())
    assert arrays < size_of(result) < 3 * arrays + 100_000


def test_the_least_recently_used_goes_first() -> None:
    cache = ResultCache(capacity=3000)
    for name in "abc":
        cache.put(name, np.zeros(1000, np.uint8))
    assert cache.get("a") is not None
    cache.put("d", np.zeros(1000, np.uint8))
    assert cache.get("b") is None
    assert cache.get("a") is not None
    assert (len(cache), cache.size) == (3, 3000)


def test_replacing_and_oversized_values_keep_the_count_right() -> None:
    cache = ResultCache(capacity=1000)
    cache.put("a", np.zeros(400, np.uint8))
    cache.put("a", np.zeros(500, np.uint8))
    assert cache.size == 500
    cache.put("a", np.zeros(5000, np.uint8))  # does not fit at all, and the old value would be stale
    assert (len(cache), cache.size) == (0, 0)
    cache.put("b", np.zeros(10, np.uint8))
    cache.clear()
    assert (len(cache), cache.size) == (0, 0)
