"""An average of causal traces made without a model: plausible numbers, not true ones."""

import numpy as np

from mi_core.analyses.cases import Case
from mi_core.analyses.causal_trace_average_types import (
    CausalTraceAverageInputs,
    CausalTraceAverageResult,
    UsedCase,
)
from tests.examples import N_LAYERS, example_provenance


def example_average(
    n: int = 12, *, middle_in: int = 5, seed: int = 0, window: int = 1
) -> CausalTraceAverageResult:
    """An average over `n` prompts, `middle_in` of which have a subject with a middle token."""
    random, layers = np.random.default_rng(seed), np.arange(N_LAYERS)
    counts = np.ones((n, 6), int)
    counts[:, 1] = np.arange(n) < middle_in
    sums = {}
    for kind, strength in (("state", 1.0), ("attn", 0.3), ("mlp", 0.6)):
        shape = np.full((6, N_LAYERS), 0.03)
        shape[2] = 0.4 * strength * np.exp(-((layers - 2.5) ** 2) / 5)
        shape[5] = 0.8 * strength / (1 + np.exp(-(layers - 4) * 1.5))
        spread = 1 + 0.2 * random.standard_normal((n, 6, 1))
        sums[kind] = shape * spread * (counts > 0)[:, :, None]
    cases = tuple(Case(prompt=f"Fact {i} is", subject="Fact", answer=" x") for i in range(n))
    return CausalTraceAverageResult(
        inputs=CausalTraceAverageInputs(cases=cases, window=window, set_name="made-up facts", resamples=200),
        provenance=example_provenance(),
        n_layers=N_LAYERS,
        used=tuple(UsedCase(i, 9, (1, 4), "·x") for i in range(n)),
        skipped=(),
        clean=np.full(n, 0.95),
        corrupted=np.clip(0.1 + 0.05 * random.standard_normal(n), 0, 1),
        counts=counts,
        sums=sums,
    )
