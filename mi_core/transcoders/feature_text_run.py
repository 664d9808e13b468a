"""One feature at every token of a text of one's own.

    pre[t] = W_enc[f] . x[t] + b_enc[f];   activation[t] = pre[t] where it passes the threshold, else 0

The colours end at the feature's largest activation in the corpus where that is known, so that they mean the
same for every text. Cost: one forward pass (shared with all pages).
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.neuron_texts import context_of
from mi_core.errors import InputError, LanternError
from mi_core.model.model import LoadedModel
from mi_core.provenance import Provenance
from mi_core.tokens import tokenize
from mi_core.transcoders.corpus_density import fitting_summary
from mi_core.transcoders.encode import active_features, masked_positions, read_values
from mi_core.transcoders.feature_files_places import feature_files
from mi_core.transcoders.feature_text_inputs import FeatureTextInputs
from mi_core.transcoders.feature_text_result import FeatureTextResult
from mi_core.transcoders.names import Feature, parse_feature
from mi_core.transcoders.store import load_transcoder
from mi_core.transcoders.transcoder import Transcoder

OnStep = Callable[[Any], None]


def feature_on_text(
    model: LoadedModel, inputs: FeatureTextInputs, *, on_step: OnStep | None = None
) -> FeatureTextResult:
    """Look at one feature in one text.

    Args:
        model: a loaded model.
        inputs: text and feature.
        on_step: never called: it is one pass.

    Raises:
        TranscoderError: there is no such transcoder.
        InputError: there is no such feature, or no token, or too many of them.
    """
    transcoder, feature = load_transcoder(model, inputs.transcoder), parse_feature(inputs.feature)
    transcoder.check(feature.layer, feature.index)
    tokens = tokenize(model.tokenizer, inputs.text, bos=inputs.bos)
    limit = context_of(model)
    if limit is not None and len(tokens) > limit:
        raise InputError(
            f"The text has {len(tokens):,} tokens; this model reads at most {limit:,}", fix="Shorten it"
        )
    first = 0 if inputs.show_bos else len(masked_positions(model, tokens.ids))
    found = active_features(model, transcoder, tokens.ids, show_bos=inputs.show_bos)
    activations = np.zeros(len(tokens), np.float32)
    part = found.of_layer(feature.layer)
    own = found.feature[part] == feature.index
    activations[found.position[part][own].cpu().numpy()] = found.activation[part][own].cpu().numpy()
    pre, threshold, top_k = _before(model, transcoder, feature, tokens.ids)
    bound, bound_from = _bound(inputs, transcoder, feature, float(activations[first:].max(initial=0.0)))
    return FeatureTextResult(
        inputs=inputs,
        provenance=Provenance.of(model),
        transcoder=transcoder.name,
        tokens=tuple(token.visible for token in tokens.tokens),
        first=first,
        activations=activations,
        pre_activations=pre,
        threshold=threshold,
        top_k=top_k,
        bound=bound,
        bound_from=bound_from,
        warnings=transcoder.warnings,
        checks=(_rule_check(activations[first:], pre[first:], threshold, top_k),),
    )


def _before(
    model: LoadedModel, transcoder: Transcoder, feature: Feature, ids: tuple[int, ...]
) -> tuple[np.ndarray, float, bool]:
    """Pre-activations from this feature's own row alone, and its rule."""
    encoder = transcoder.encoder(feature.layer)
    read = read_values(model, transcoder, ids)[transcoder.layers.index(feature.layer)]
    if encoder.centre is not None:
        read = read - encoder.centre
    row = encoder.some(torch.tensor([feature.index]))[0]
    pre = (read.to(row) @ row + encoder.b_enc[feature.index]).cpu().numpy().astype(np.float32)
    threshold = 0.0 if encoder.threshold is None else float(encoder.threshold[feature.index])
    return pre, threshold, encoder.k is not None


def _rule_check(activations: np.ndarray, pre: np.ndarray, threshold: float, top_k: bool) -> Check:
    """All features at once and this one alone give the same; within rounding of the threshold either may."""
    expected = np.where(pre > max(threshold, 0.0), pre, 0.0)
    scale = max(float(np.abs(pre).max(initial=0.0)), 1e-30)
    near = np.abs(pre - max(threshold, 0.0)) <= 1e-4 * scale
    beaten = top_k & (activations == 0)  # stronger features may have switched it off
    off = np.where(near | beaten, 0.0, np.abs(expected - activations))
    worst = float(off.max(initial=0.0)) / scale
    return Check(
        "the feature alone gives the same activations",
        worst <= 1e-4,
        f"Its own row, bias and threshold ({threshold:.4g}) give them to {worst:.1e} of the largest.",
    )


def _bound(
    inputs: FeatureTextInputs, transcoder: Transcoder, feature: Feature, largest: float
) -> tuple[float, str]:
    """End of the colours, and where it comes from."""
    known = _largest_known(transcoder, feature)
    if inputs.bound and abs(inputs.bound - known) > 1e-6 * known:
        return inputs.bound, "you"
    return (known, "corpus") if known > 0 else (largest, "text")


def _largest_known(transcoder: Transcoder, feature: Feature) -> float:
    """Largest activation of the corpus; 0 where it cannot be told at once."""
    try:
        summary = fitting_summary(transcoder)
        if summary is not None and feature.layer in summary.largest:
            values = summary.largest[feature.layer]
            return float(values[feature.index]) if feature.index < len(values) else 0.0
        files = feature_files(transcoder)
        record = None if files is None else files.record(feature.layer, feature.index)
    except LanternError:  # damaged or not to be fetched: said where the files themselves are shown
        return 0.0
    return 0.0 if record is None else record.largest
