"""What products of weights cost, and how long they will take here."""

import functools
import time

import torch

_SIZE = 384  # a product large enough to reach full speed, over in milliseconds
_REPEATS = 3


def seconds_for(flops: float, device: torch.device, dtype: torch.dtype) -> float:
    """Expected duration of matrix products of that many floating-point operations."""
    return flops / matmul_speed(str(device), dtype)


@functools.cache
def matmul_speed(device: str, dtype: torch.dtype) -> float:
    """Floating-point operations per second of a matrix product, measured once per device and dtype."""
    one = torch.ones(_SIZE, _SIZE, dtype=dtype, device=device)
    _finished(one @ one)  # the first product also loads the library
    best = float("inf")
    for _ in range(_REPEATS):
        started = time.perf_counter()
        _finished(one @ one)
        best = min(best, time.perf_counter() - started)
    return 2.0 * _SIZE**3 / max(best, 1e-7)


def _finished(product: torch.Tensor) -> None:
    """Wait for the device: reading a number needs it."""
    float(product[0, 0])
