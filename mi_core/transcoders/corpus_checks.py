"""Identities that a corpus pass must satisfy, tried on its very numbers."""

from collections.abc import Mapping

import numpy as np

from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.neuron_texts import agreement
from mi_core.model.model import LoadedModel
from mi_core.transcoders.corpus_encode import layer_activations
from mi_core.transcoders.corpus_gather import Gather
from mi_core.transcoders.corpus_state import LayerState
from mi_core.transcoders.corpus_text import Row
from mi_core.transcoders.encode import active_features
from mi_core.transcoders.transcoder import Transcoder


def finite_check(states: Mapping[int, LayerState]) -> Check:
    """Nothing was infinite or no number."""
    wrong = sum(state.not_finite for state in states.values())
    detail = "All are numbers." if not wrong else f"{wrong:,} are infinite or no number; they do not count."
    return Check("activations are finite", not wrong, detail)


def counts_check(states: Mapping[int, LayerState]) -> Check:
    """Every active token stands in the histogram once."""
    off = sum(
        int(np.abs(state.histogram.sum(1, dtype=np.int64) - state.counts).sum()) for state in states.values()
    )
    total = sum(int(state.counts.sum()) for state in states.values())
    return Check(
        "histograms add up to the counts",
        off == 0,
        f"{total:,} active tokens, {off:,} not where they belong.",
    )


def examples_check(model: LoadedModel, gather: Gather) -> Check:
    """The second reading, in other batches, gives the activations of the first."""
    return Check(
        "examples come out again",
        gather.off <= 10 * agreement(model),
        f"Read a second time, stored examples are at most {gather.off:.1e} of their activation off.",
    )


def prompt_check(model: LoadedModel, transcoder: Transcoder, row: Row) -> Check:
    """The features of one row, read as the pages read a prompt: the same are active.

    Sizes are compared where both readings agree that a feature is active; one that is within rounding of its
    threshold may be on in one of them alone.
    """
    found = active_features(model, transcoder, row.ids)
    alone = np.zeros(0)
    off, apart, total = 0.0, 0, 0
    for layer, dense in layer_activations(model, transcoder, [row]):
        here, part = dense.cpu().numpy(), found.of_layer(layer)
        other = np.zeros_like(here)
        positions = found.position[part].cpu().numpy() - row.first
        other[positions, found.feature[part].cpu().numpy()] = found.activation[part].cpu().numpy()
        both = (here > 0) & (other > 0)
        apart += int(((here > 0) != (other > 0)).sum())
        total += int(both.sum())
        alone = np.abs(here[both] - other[both]) / np.maximum(other.max(initial=1e-30), 1e-30)
        off = max(off, float(alone.max(initial=0.0)))
    return Check(
        "one row as a prompt gives the same features",
        off <= agreement(model) and apart <= 0.001 * max(1, total) + 1,
        f"Row {row.number}: {total:,} active features agree to {off:.1e}; {apart} are on in one only.",
    )
