"""The parts of a prompt's features: what is listed, thresholds, densities, counts, checks, warnings."""

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mi_core.analyses.causal_trace_parts import Check
from mi_core.model.model import LoadedModel
from mi_core.tokens import TokenizedPrompt, prompt_warnings
from mi_core.transcoders.corpus_density import densities
from mi_core.transcoders.encode import ActiveFeatures, read_values
from mi_core.transcoders.sizes import lacking_decoders
from mi_core.transcoders.transcoder import Transcoder

AGAIN = 64
"""How many activations are computed a second time, each by itself."""
NEAR = 1e-3
"""Largest relative difference that rounding in float32 explains."""


def strongest(activation: Float[Tensor, " n"], most: int) -> Int[Tensor, " kept"]:
    """Indices of the largest activations, in their old order; of equal ones the first."""
    if len(activation) <= most:
        return torch.arange(len(activation), device=activation.device)
    return torch.sort(activation, descending=True, stable=True).indices[:most].sort().values


def counts(transcoder: Transcoder, active: ActiveFeatures) -> Int[np.ndarray, "layer pos"]:
    """How many features are active at every source layer and token."""
    n_pos = len(active.tokens)
    found = torch.bincount(active.layer * n_pos + active.position, minlength=transcoder.n_layers * n_pos)
    table = found.reshape(-1, n_pos).cpu().numpy()
    return table[list(transcoder.layers)]


def of_features(
    layer: Int[np.ndarray, " n"], feature: Int[np.ndarray, " n"], table: Mapping[int, np.ndarray | None]
) -> Float[np.ndarray, " n"]:
    """A number of every listed feature from one row per layer; NaN where there is none."""
    found = np.full(len(layer), np.nan, np.float32)
    for one in np.unique(layer).tolist():
        row, here = table.get(one), layer == one
        if row is not None:
            found[here] = row[feature[here]]
    return found


def thresholds(transcoder: Transcoder) -> dict[int, np.ndarray | None]:
    """The thresholds of every source layer; None where its activation has none."""
    found = {layer: transcoder.encoder(layer).threshold for layer in transcoder.layers}
    return {layer: None if one is None else one.cpu().numpy() for layer, one in found.items()}


def corpus_densities(model: LoadedModel, transcoder: Transcoder) -> Mapping[int, np.ndarray | None]:
    """Densities of a corpus pass by layer; empty where none was made, or one of another size."""
    found = densities(model, transcoder) or {}
    return {layer: row for layer, row in found.items() if len(row) == transcoder.n_features.get(layer)}


def listing_checks(
    model: LoadedModel, transcoder: Transcoder, active: ActiveFeatures, share: Float[np.ndarray, " n"]
) -> Iterator[Check]:
    """Activations computed again, and compared with their thresholds."""
    if len(active):
        yield _again(model, transcoder, active)
    known = share[np.isfinite(share)]
    if len(known):
        lowest = float(known.min())
        detail = f"smallest activation {lowest:.6g} times its threshold; {len(known):,} compared"
        yield Check("every listed feature is above its threshold", lowest > 1, detail)


def _again(model: LoadedModel, transcoder: Transcoder, active: ActiveFeatures) -> Check:
    """Some activations as single dot products in float64; the list was made by matrix products."""
    chosen = torch.linspace(0, len(active) - 1, min(AGAIN, len(active))).round().long().unique().tolist()
    read = read_values(model, transcoder, active.tokens)
    worst = 0.0
    for index in chosen:
        layer, position = int(active.layer[index]), int(active.position[index])
        encoder = transcoder.encoder(layer)
        x = read[transcoder.layers.index(layer), position].cpu().double()
        x = x if encoder.centre is None else x - encoder.centre.cpu().double()
        row = encoder.some(active.feature[index : index + 1])[0].cpu().double()
        terms = row * x
        alone = float(terms.sum() + encoder.b_enc[active.feature[index]].cpu().double())
        size = float(terms.abs().sum()) or 1.0
        worst = max(worst, abs(alone - float(active.activation[index])) / size)
    detail = (
        f"{len(chosen)} of {len(active):,} as single sums in float64, off by at most {worst:.1e} of the terms"
    )
    return Check("activations computed again agree", worst <= NEAR, detail)


def listing_warnings(
    model: LoadedModel,
    transcoder: Transcoder,
    prompt: TokenizedPrompt,
    active: ActiveFeatures,
    listed: int,
    unexplained_all: float,
) -> Iterator[str]:
    """What has to be known before the figures are read."""
    yield from transcoder.warnings
    if unexplained_all > 1:
        yield bad_fit(unexplained_all)
    if not judged(transcoder):
        yield (
            "The decoders of this transcoder are not on this machine, or not all of them: its features can "
            "be listed, but its reconstruction cannot be judged."
        )
    if listed < len(active):
        yield (
            f"Only the {listed:,} strongest of {len(active):,} active features at tokens are listed; "
            "the counts are of all."
        )
    if not active.masked and _begins_special(model, prompt):
        yield (
            "Leading special tokens are shown: many features answer to them far more strongly than to any "
            "word, and transcoders are not made for them."
        )
    if len(active.masked) == len(active.tokens):
        yield "Every token of this prompt is masked: only special tokens are there."
    yield from prompt_warnings(prompt, model.tokenizer)


def bad_fit(unexplained_all: float) -> str:
    """The sentence about a transcoder that does worse than a constant."""
    return (
        f"The transcoder leaves {unexplained_all:.3g} times the variance of what it should reconstruct "
        "unexplained on this prompt, more than a constant would: wrong hooks or wrong model, or a text "
        "unlike all that it was made for. Its features mean little here."
    )


def judged(transcoder: Transcoder) -> bool:
    """Whether the thousands of decoder rows that a prompt needs can be read; not over the network."""
    return transcoder.has_decoder and transcoder.local and not lacking_decoders(transcoder)


def _begins_special(model: LoadedModel, prompt: TokenizedPrompt) -> bool:
    return prompt.ids[0] in set(getattr(model.tokenizer, "all_special_ids", None) or ())
