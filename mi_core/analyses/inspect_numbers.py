"""Numbers of a weight, exactly, in little memory: moments in float64, norms of rows, singular values.

A weight is read in chunks of at most `CHUNK` numbers, which are widened to float64 on the weight's own device
(on the CPU where the device has no float64). Means and squared deviations of chunks are merged as Chan, Golub
and LeVeque describe (1979), so a gain of 1 +- 1e-6 has the right deviation. Deviations divide by n.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

CHUNK = 1 << 19  # 4 MB in float64: fits into a cache
FLOPS_PER_SECOND = 5e9
LONG = 3  # times longer than wide: then a QR decomposition comes first


@dataclass(frozen=True, slots=True)
class Moments:
    """What is known about the entries of a tensor.

    Attributes:
        count: entries.
        mean: their mean.
        deviation: sum of squared deviations from the mean.
        minimum: smallest entry.
        maximum: largest entry.
    """

    count: int
    mean: float
    deviation: float
    minimum: float
    maximum: float

    @property
    def std(self) -> float:
        """Standard deviation over all entries (divided by n)."""
        return (self.deviation / self.count) ** 0.5

    @property
    def frobenius(self) -> float:
        """Square root of the sum of squares."""
        return (self.deviation + self.count * self.mean * self.mean) ** 0.5


def merged(one: Moments, other: Moments) -> Moments:
    """Moments of two tensors together."""
    count, apart = one.count + other.count, other.mean - one.mean
    return Moments(
        count,
        one.mean + apart * other.count / count,
        one.deviation + other.deviation + apart * apart * one.count * other.count / count,
        min(one.minimum, other.minimum),
        max(one.maximum, other.maximum),
    )


def double(tensor: Tensor) -> Tensor:
    """The tensor in float64; moved to the CPU if its device has no such numbers."""
    return (tensor.cpu() if tensor.device.type == "mps" else tensor).double()


def row_chunks(tensor: Float[Tensor, "row *rest"]) -> Iterator[Float[Tensor, "part *rest"]]:
    """Consecutive rows, `CHUNK` numbers at a time, in float64."""
    rows = max(1, CHUNK // max(1, tensor[0].numel()))
    for part in tensor.split(rows):
        yield double(part)


def moments_of(tensor: Tensor) -> Moments:
    """Moments of all entries of a vector or a matrix.

    Args:
        tensor: any floating-point tensor with at least one entry.
    """
    whole: Moments | None = None
    for part in row_chunks(tensor.reshape(1) if tensor.dim() == 0 else tensor):
        one = _plain(part)
        whole = one if whole is None else merged(whole, one)
    if whole is None:
        raise ValueError("a weight without entries has no moments")
    return whole


def _plain(part: Tensor) -> Moments:
    variance, mean = torch.var_mean(part, correction=0)
    low, high = torch.aminmax(part)
    return Moments(part.numel(), float(mean), float(variance) * part.numel(), float(low), float(high))


def row_norms(matrix: Float[Tensor, "row width"]) -> Float[Tensor, " row"]:
    """Euclidean norm of every row, in float64 on the CPU."""
    return torch.cat([part.norm(dim=1).cpu() for part in row_chunks(matrix)])


def singular_values(matrix: Float[Tensor, "rows columns"]) -> Float[Tensor, " rank"]:
    """All singular values of a matrix in float64, largest first, on the CPU.

    A long matrix is first reduced to the triangle of its QR decomposition, one chunk of rows after the other:
    the triangle has the same singular values, and unlike a Gram matrix it does not square their rounding.
    """
    tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
    width = tall.shape[1]
    if tall.shape[0] <= LONG * width:
        return torch.linalg.svdvals(double(tall)).cpu()
    triangle = double(tall[:0])
    for part in tall.split(max(2 * width, CHUNK // width)):
        triangle = torch.linalg.qr(torch.cat([triangle, double(part)]), mode="r").R
    return torch.linalg.svdvals(triangle).cpu()


def decomposition_seconds(flops: float) -> float:
    """How long singular values take, roughly and from above (two CPU cores; a GPU is faster)."""
    return flops / FLOPS_PER_SECOND


def singular_flops(shape: tuple[int, ...]) -> float:
    """Rough number of operations of `singular_values`, m >= n: 4 m n^2 + 8/3 n^3; 0 for vectors.

    The first reduction of a long matrix is counted as m n^2: its products run several times faster.
    """
    if len(shape) != 2:
        return 0.0
    long, short = max(shape), min(shape)
    return (1.0 if long > LONG * short else 4.0) * long * short**2 + 8 / 3 * short**3
