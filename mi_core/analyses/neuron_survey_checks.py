"""Identities that a survey of neurons must satisfy, tried on its very numbers."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch

from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.neuron_state import LayerState
from mi_core.analyses.neuron_survey_result import NeuronSurveyResult
from mi_core.analyses.neuron_texts import ReadText, agreement
from mi_core.engine import run
from mi_core.model.model import LoadedModel


def finite_check(layers: Iterable[LayerState]) -> Check:
    """Nothing was infinite or no number."""
    wrong = sum(state.not_finite for state in layers)
    detail = "All are numbers." if not wrong else f"{wrong:,} are infinite or no number; they count as 0."
    return Check("activations are finite", not wrong, detail)


def means_check(result: NeuronSurveyResult) -> Check:
    """Means of the kinds, weighted by their tokens, are the mean over all."""
    weighted = np.nansum(result.category_means * result.token_counts, axis=1) / result.n_tokens
    scale = np.maximum(np.abs(result.mean), np.maximum(result.deviation, 1e-30))
    off = float(np.max(np.abs(weighted - result.mean) / scale, initial=0.0))
    return Check("kinds add up to the whole", off < 1e-9, f"Largest relative difference {off:.1e}.")


def contexts_check(model: LoadedModel, read: Sequence[ReadText], result: NeuronSurveyResult) -> Check:
    """One text is run again by itself: its stored contexts come out, and nothing in it is stronger."""
    strongest = int(np.abs(result.context_values[:, 0]).argmax())
    index = int(result.context_texts[strongest, 0])
    text = next(text for text in read if text.index == index)
    again = run(model, torch.tensor([text.ids]), capture=["mlp_post"], last=1)
    worst, count = 0.0, 0
    for layer in range(result.n_layers):
        direct = np.abs(again["mlp_post", layer][0].double().cpu().numpy())
        rows = np.flatnonzero(result.layers == layer)
        scale = max(float(result.layer_peak[layer]), 1e-30)
        over = direct[text.first :, result.neurons[rows]].max(axis=0) - np.abs(result.peak[rows])
        worst = max(worst, float(over.max(initial=0.0)) / scale)
        row, rank = np.nonzero(result.context_texts[rows] == index)
        found = direct[result.context_positions[rows[row], rank], result.neurons[rows[row]]]
        off = np.abs(found - np.abs(result.context_values[rows[row], rank]))
        worst, count = max(worst, float(off.max(initial=0.0)) / scale), count + len(row)
    detail = (
        f"Text {index} run by itself: {count:,} stored contexts agree to {worst:.1e} of the layer's peak."
    )
    return Check("contexts come out again", worst <= agreement(model), detail)
