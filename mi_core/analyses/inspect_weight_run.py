"""One weight closely: how its entries are spread, and how many directions it really uses.

    W = U diag(s) V^T          singular values s, largest first
    ||W||^2 = sum of s^2       (checked)
    stable rank = ||W||^2 / s[0]^2     1 = a single direction, min(m, n) = all alike

Cost: one pass over the entries; with the spectrum one singular value decomposition in float64, about
4 m n^2 operations (see `inspect_weight_cost`).
"""

import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.causal_trace_result import Step
from mi_core.analyses.inspect_numbers import (
    Moments,
    decomposition_seconds,
    moments_of,
    row_chunks,
    singular_flops,
    singular_values,
)
from mi_core.analyses.inspect_parts import WeightInfo
from mi_core.analyses.inspect_weight_inputs import InspectWeightInputs
from mi_core.analyses.inspect_weight_result import InspectWeightResult
from mi_core.analyses.inspect_weights import find_weight
from mi_core.model.model import LoadedModel
from mi_core.provenance import Provenance

OnStep = Callable[[Step[InspectWeightResult]], None]

BINS = 60


def inspect_weight_cost(info: WeightInfo) -> float:
    """Seconds that the spectrum of a weight will take, roughly and from above; 0 for vectors."""
    return decomposition_seconds(singular_flops(info.shape))


def inspect_weight(
    model: LoadedModel, inputs: InspectWeightInputs, *, on_step: OnStep | None = None
) -> InspectWeightResult:
    """Histogram and singular values of one weight; the module docstring has the formulas.

    Args:
        model: a loaded model.
        inputs: which weight.
        on_step: told before each of the two parts; may raise `Cancelled`, which passes through.

    Raises:
        InputError: the model has no such weight.
        ModelError: kind "unsupported": its numbers are not in memory.
    """
    started = time.perf_counter()
    info, tensor = find_weight(model, inputs.weight)
    if on_step is not None:
        on_step(Step(0, 2, None, None, "entries"))
    moments = moments_of(tensor)
    edges, counts = _histogram(tensor, moments)
    spectrum = np.zeros(0)
    if inputs.spectrum and tensor.dim() == 2:
        if on_step is not None:
            on_step(Step(1, 2, None, None, "singular values"))
        spectrum = singular_values(tensor).numpy()
    return InspectWeightResult(
        inputs=inputs,
        provenance=Provenance.of(model),
        info=info,
        frobenius=moments.frobenius,
        mean=moments.mean,
        std=moments.std,
        edges=edges,
        counts=counts,
        singular_values=spectrum,
        checks=tuple(_checks(tensor, moments, counts, spectrum)),
        seconds=time.perf_counter() - started,
    )


def _histogram(tensor: Tensor, moments: Moments) -> tuple[Float[np.ndarray, "edge"], Int[np.ndarray, "bin"]]:
    """Entries between the smallest and the largest, in bins of equal width."""
    edges = np.histogram_bin_edges(np.array([moments.minimum, moments.maximum]), bins=BINS)
    counts = np.zeros(BINS, np.int64)
    for part in row_chunks(tensor):
        counts += np.histogram(part.cpu().numpy(), bins=edges)[0]
    return edges, counts


def _checks(tensor: Tensor, moments: Moments, counts: np.ndarray, spectrum: np.ndarray) -> Iterator[Check]:
    inside = int(counts.sum())
    yield Check(
        "every entry lies in the histogram",
        inside == tensor.numel(),
        f"{inside:,} entries of {tensor.numel():,}",
    )
    if not len(spectrum):
        return
    squares, norm = float((spectrum**2).sum()), moments.frobenius**2
    off = abs(squares - norm) / max(norm, torch.finfo(torch.float64).tiny)
    yield Check(
        "squared singular values add up to the squared Frobenius norm",
        off < 1e-9,
        f"relative difference {off:.1e}",
    )
