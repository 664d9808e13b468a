"""Which features are active on a prompt, where, how strongly, and how well the transcoder fits there.

    a_l[p] = phi(W_enc_l x_l[p] + b_enc_l)        phi: ReLU, JumpReLU (strictly above its threshold) or top-k
    y^_m[p] = b_dec_m + sum over l <= m of a_l[p] W_dec_l[:, m - l] (+ skip)      error = ||y - y^|| / ||y||
    effect = a times what a unit of the feature adds to the target's logit, to first order (`prompt_effects`)

The target's logit is taken above the distractor's, or above the mean of all logits where there is none: what
raises every token alike raises none. Leading special tokens (BOS) are masked unless asked for.
Sources: Ameisen et al. 2025, "Circuit Tracing" (cross-layer transcoders); Dunefsky et al. 2024.
Cost: one forward pass shared with all pages, 2 tokens x features x d_model operations per layer, and with
effects one backward pass and the decoder rows of the active features.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mi_core.analyses.ablation_sweep_reading import Question, ask
from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.causal_trace_result import Step
from mi_core.analyses.neuron_texts import context_of
from mi_core.engine import gradients
from mi_core.errors import TranscoderError
from mi_core.model.model import LoadedModel
from mi_core.provenance import Provenance
from mi_core.tokens import TokenizedPrompt, tokenize
from mi_core.transcoders.encode import ActiveFeatures, active_features, fit, reconstruct
from mi_core.transcoders.prompt_effects import feature_effects
from mi_core.transcoders.prompt_inputs import FeaturesOnPromptInputs
from mi_core.transcoders.prompt_label import TranscoderLabel
from mi_core.transcoders.prompt_parts import (
    NEAR,
    corpus_densities,
    counts,
    judged,
    listing_checks,
    listing_warnings,
    of_features,
    strongest,
    thresholds,
)
from mi_core.transcoders.prompt_result import FeaturesOnPromptResult
from mi_core.transcoders.store import load_transcoder
from mi_core.transcoders.transcoder import Transcoder

OnStep = Callable[[Step[FeaturesOnPromptResult]], None]


def features_on_prompt(
    model: LoadedModel, inputs: FeaturesOnPromptInputs, *, on_step: OnStep | None = None
) -> FeaturesOnPromptResult:
    """List every active feature of a prompt; the module docstring has the formulas.

    Args:
        model: a loaded model.
        inputs: prompt, transcoder, and whether effects are wanted.
        on_step: told before each part of the work; may raise `Cancelled`, and then there is no result.

    Raises:
        InputError: the prompt or the target cannot be read.
        TranscoderError: there is no such transcoder, or effects are wanted and only encoders are here.
        SiteMissing: the model does not have what the transcoder reads.
        OutOfMemory: the device is too small.
    """
    tell = on_step or (lambda step: None)
    steps = 3 if inputs.effects else 2
    tell(Step(0, steps, None, None, "features"))
    transcoder = load_transcoder(model, inputs.transcoder)
    prompt = tokenize(model.tokenizer, inputs.prompt, bos=inputs.bos, limit=context_of(model))
    active = active_features(model, transcoder, prompt.ids, show_bos=inputs.show_bos)
    tell(Step(1, steps, None, None, "reconstruction"))
    fitted = _fitted(model, transcoder, prompt, show_bos=inputs.show_bos)
    if inputs.effects:
        tell(Step(2, steps, None, None, "effects on the target"))
    effects = _effects(model, transcoder, inputs, active) if inputs.effects else None
    return _result(model, transcoder, inputs, prompt, active, fitted, effects)


@dataclass(frozen=True, slots=True, eq=False)
class _Fitted:
    """How well the transcoder fits; NaN where only its encoders are here."""

    targets: tuple[int, ...]
    unexplained: Float[np.ndarray, " target"]
    unexplained_all: float
    error: Float[np.ndarray, "target pos"]


def _fitted(
    model: LoadedModel, transcoder: Transcoder, prompt: TokenizedPrompt, *, show_bos: bool
) -> _Fitted:
    targets = transcoder.written_layers
    if not judged(transcoder):
        nothing = np.full((len(targets), len(prompt)), np.nan, np.float32)
        return _Fitted(targets, np.full(len(targets), np.nan), float("nan"), nothing)
    found = fit(model, transcoder, prompt.ids, show_bos=show_bos)
    error = found.error.float().cpu().numpy()
    return _Fitted(found.layers, found.unexplained.double().cpu().numpy(), found.unexplained_all, error)


@dataclass(frozen=True, slots=True, eq=False)
class _Effects:
    """The linear effects of all active features, and what they are about."""

    question: Question
    values: Float[Tensor, " n"]
    check: Check


def _effects(
    model: LoadedModel, transcoder: Transcoder, inputs: FeaturesOnPromptInputs, active: ActiveFeatures
) -> _Effects:
    if not judged(transcoder):
        raise TranscoderError(
            "Effects on the target need the decoders of all active features", kind="no_decoder",
            why="they are not on this machine", fix="Sort by activation, or get the decoder files",
        )  # fmt: skip
    question = ask(model, inputs)
    target, other = question.answer.id, None if question.distractor is None else question.distractor.id

    def score(logits: Float[Tensor, "row pos vocab"]) -> Float[Tensor, ""]:
        last = logits[0, -1].to(torch.promote_types(logits.dtype, torch.float32))
        return last[target] - (last.mean() if other is None else last[other])

    site = transcoder.writes.site
    places = [(site, layer) for layer in transcoder.written_layers]
    found = gradients(model, question.ids, score, places)
    slopes = {layer: found.gradients[site, layer][0] for layer in transcoder.written_layers}
    values = feature_effects(transcoder, active, slopes)
    return _Effects(question, values, _adds_up(model, transcoder, active, slopes, values))


def _adds_up(
    model: LoadedModel,
    transcoder: Transcoder,
    active: ActiveFeatures,
    slopes: dict[int, Tensor],
    values: Float[Tensor, " n"],
) -> Check:
    """A second way to the sum of all effects: the reconstruction with features minus that without."""
    nothing = torch.zeros(0, dtype=torch.long, device=active.layer.device)
    none = ActiveFeatures(active.tokens, active.masked, nothing, nothing, nothing, nothing.float())
    told = (reconstruct(model, transcoder, active) - reconstruct(model, transcoder, none)).cpu().double()
    slope = torch.stack([slopes[layer] for layer in transcoder.written_layers]).to(told)
    whole, size = float((told * slope).sum()), float((told * slope).abs().sum())
    off = abs(float(values.sum()) - whole) / max(size, 1e-30)
    detail = f"{float(values.sum()):.6f} against {whole:.6f} logits; off by {off:.1e} of what is summed"
    return Check("the features' effects add up to the reconstruction's", off <= NEAR, detail)


def _result(
    model: LoadedModel,
    transcoder: Transcoder,
    inputs: FeaturesOnPromptInputs,
    prompt: TokenizedPrompt,
    active: ActiveFeatures,
    fitted: _Fitted,
    effects: _Effects | None,
) -> FeaturesOnPromptResult:
    kept = strongest(active.activation, inputs.most)
    layer, position, feature = (
        part[kept].cpu().numpy() for part in (active.layer, active.position, active.feature)
    )
    question = None if effects is None else effects.question
    made = FeaturesOnPromptResult(
        inputs=inputs,
        provenance=Provenance.of(model),
        transcoder=TranscoderLabel.of(transcoder),
        tokens=prompt.tokens,
        masked=active.masked,
        layers=transcoder.layers,
        n_features=tuple(transcoder.n_features[one] for one in transcoder.layers),
        targets=fitted.targets,
        counts=counts(transcoder, active),
        layer=layer,
        position=position,
        feature=feature,
        activation=active.activation[kept].cpu().numpy(),
        threshold=of_features(layer, feature, thresholds(transcoder)),
        density=of_features(layer, feature, corpus_densities(model, transcoder)),
        effect=_kept(effects, kept),
        unexplained=fitted.unexplained,
        unexplained_all=fitted.unexplained_all,
        error=fitted.error,
        target=None if question is None else question.answer,
        distractor=None if question is None else question.distractor,
    )
    warnings = listing_warnings(model, transcoder, prompt, active, len(kept), fitted.unexplained_all)
    checks = [*listing_checks(model, transcoder, active, made.share)]
    if effects is not None:
        warnings, checks = (*warnings, *effects.question.warnings), [*checks, effects.check]
    return replace(made, warnings=tuple(dict.fromkeys(warnings)), checks=tuple(checks))


def _kept(effects: _Effects | None, kept: Int[Tensor, " kept"]) -> Float[np.ndarray, " kept"]:
    """The effects of the listed features; NaN where none were asked for."""
    if effects is None:
        return np.full(len(kept), np.nan)
    return effects.values[kept.to(effects.values.device)].cpu().numpy()
