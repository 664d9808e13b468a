"""Identities that every attribution must satisfy, tried on the attribution itself and shown with it."""

from collections.abc import Callable, Iterator

import numpy as np
import torch

from mi_core.analyses.attribution_inputs import parse_head
from mi_core.analyses.attribution_result import PROMPT_NAMES, TOKEN_NAMES, AttributionResult
from mi_core.analyses.causal_trace_parts import Check

TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}
"""Largest difference, relative to the logit (at least 1), that rounding in a model of this dtype explains.

Not less for float64: RMS norms of transformers compute in float32 whatever the model's dtype.
"""


def attribution_checks(dtype: torch.dtype, result: AttributionResult) -> tuple[Check, ...]:
    """Try all identities that apply.

    Args:
        dtype: of the model.
        result: the numbers, without checks.
    """
    limit = TOLERANCE[dtype]
    return tuple(
        [
            _parts_add_up(result, limit),
            _gives_the_models_logit(result, limit),
            *_heads_add_up(result, limit),
            *_neurons_add_up(result, limit),
            *_sources_add_up(result, limit),
        ]
    )


def _off(one: np.ndarray, other: np.ndarray, result: AttributionResult) -> float:
    """Largest difference, relative to the size of the logits of its prompt (at least 1)."""
    size = np.maximum(1.0, np.abs(result.logits).max(axis=1))
    return float((np.abs(one - other).reshape(result.n_prompts, -1).max(axis=1, initial=0) / size).max())


def _parts_add_up(result: AttributionResult, limit: float) -> Check:
    off = _off(result.sums, result.logits, result)
    where = " before the softcap" if result.softcap is not None else ""
    named = _named(result, lambda p, t: f"sum {result.sums[p, t]:.6f}, logit {result.logits[p, t]:.6f}")
    return Check(
        "parts + biases = logit",
        off <= limit,
        f"{named}{where}; largest difference {off:.1e} of the logit (limit {limit:g}).",
    )


def _gives_the_models_logit(result: AttributionResult, limit: float) -> Check:
    sums, cap = result.sums, result.softcap
    if cap is not None:
        sums = cap * np.tanh(sums / cap)
    off = _off(sums, result.model_logits, result)
    name = "the sum is the model's own logit"
    if cap is not None:
        name = f"{cap:g} tanh(sum / {cap:g}) is the model's own logit"
    named = _named(result, lambda p, t: f"{sums[p, t]:.6f}, the model says {result.model_logits[p, t]:.6f}")
    return Check(name, off <= limit, f"{named}; largest difference {off:.1e} of the logit.")


def _named(result: AttributionResult, say: Callable[[int, int], str]) -> str:
    """A clause per prompt and token."""
    several = result.n_prompts > 1
    read = range(result.logits.shape[1])
    return "; ".join(
        f"{PROMPT_NAMES[prompt] + ', ' if several else ''}{TOKEN_NAMES[token]}: {say(prompt, token)}"
        for prompt in range(result.n_prompts)
        for token in read
    )


def _heads_add_up(result: AttributionResult, limit: float) -> Iterator[Check]:
    if not result.n_heads:
        return
    off = _off(result.heads.sum(axis=-1) + result.attention_bias, result.attention, result)
    yield Check(
        "heads + bias = attention output, every layer",
        off <= limit,
        f"{result.n_layers} layers; largest difference {off:.1e} of the logit.",
    )


def _neurons_add_up(result: AttributionResult, limit: float) -> Iterator[Check]:
    if not result.has_neurons:
        return
    total = result.neuron_rest + result.mlp_bias
    for layer in range(result.n_layers):
        total[:, layer] += result.neuron_values[:, result.neuron_layers == layer].sum(axis=-1)
    off = _off(total, result.mlp, result)
    yield Check(
        "neurons + bias = MLP output, every layer",
        off <= limit,
        f"{result.n_layers} layers; largest difference {off:.1e} of the logit.",
    )


def _sources_add_up(result: AttributionResult, limit: float) -> Iterator[Check]:
    names = result.inputs.split_heads
    if not names:
        return
    heads = np.array([[row[parse_head(name)] for name in names] for row in result.heads])
    off = _off(np.nansum(result.sources, axis=-1), heads, result)
    yield Check(
        "source tokens add up to their head",
        off <= limit,
        f"{', '.join(names)}: largest difference {off:.1e} of the logit.",
    )
