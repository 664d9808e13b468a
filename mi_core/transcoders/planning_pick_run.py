"""Which features of a prompt make it say its word, and not another one?

    effect of s at token p = a_s[p] * sum over m of W_dec_s,m . d (logit_word - logit_other) / d y_m[p]

read at the prompt's end; only tokens before the end count, so that what is found is what the end reads from
earlier tokens, not what is written at the end itself. Features are ranked by their largest effect at any of
these tokens, and those with less than a share of the strongest one's are left out. First order: the planning
experiment then shows what they really do.
Cost: one forward and one backward pass, and the decoder rows of the active features.
"""

import time
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from mi_core.analyses.ablation_sweep_reading import ask
from mi_core.analyses.causal_trace_result import Step
from mi_core.engine import gradients
from mi_core.model.model import LoadedModel
from mi_core.provenance import Provenance
from mi_core.transcoders.encode import ActiveFeatures, active_features
from mi_core.transcoders.planning_pick import PlanningPickInputs, PlanningPickResult
from mi_core.transcoders.prompt_effects import feature_effects
from mi_core.transcoders.store import load_transcoder

OnStep = Callable[[Step[PlanningPickResult]], None]


def planning_features(
    model: LoadedModel,
    inputs: PlanningPickInputs,
    *,
    on_step: OnStep | None = None,
) -> PlanningPickResult:
    """The features that make a prompt say its word; the module docstring has the formula.

    Args:
        model: a loaded model.
        inputs: prompt and words.
        on_step: told once; may raise `Cancelled`, which passes through.

    Raises:
        InputError: the prompt or a word cannot be used.
        TranscoderError: there is no such transcoder, or it has no decoder here.
    """
    started = time.perf_counter()
    transcoder, question = load_transcoder(model, inputs.transcoder), ask(model, inputs)
    if on_step is not None:
        on_step(Step(0, 1, None, None, "one forward and one backward pass"))
    other = question.distractor

    def score(logits: Tensor) -> Tensor:
        own = logits[0, -1, question.answer.id]
        return own if other is None else own - logits[0, -1, other.id]

    site = transcoder.writes.site
    places = [(site, layer) for layer in transcoder.written_layers]
    found = gradients(model, question.ids, score, places)
    slopes = {layer: found.gradients[site, layer][0].detach() for layer in transcoder.written_layers}
    active = active_features(model, transcoder, question.prompt.ids)
    effects = feature_effects(transcoder, active, slopes).cpu().numpy()
    chosen = _strongest(active, effects, len(question.prompt) - 1, inputs)
    warnings = list(question.warnings)
    if not len(chosen):
        warnings.append("No feature before the last token pushes towards the word.")
    return PlanningPickResult(
        inputs=inputs,
        provenance=Provenance.of(model),
        tokens=question.prompt.tokens,
        answer=question.answer,
        distractor=other,
        layers=active.layer.cpu().numpy()[chosen],
        indices=active.feature.cpu().numpy()[chosen],
        positions=active.position.cpu().numpy()[chosen],
        activations=active.activation.double().cpu().numpy()[chosen],
        effects=effects[chosen].astype(np.float64),
        warnings=tuple(warnings),
        seconds=time.perf_counter() - started,
    )


def _strongest(
    active: ActiveFeatures, effects: Float[np.ndarray, "n"], end: int, inputs: PlanningPickInputs
) -> Int[np.ndarray, "feature"]:
    """Entries with the largest positive effect before the end, each feature once."""
    layers, indices = active.layer.cpu().numpy(), active.feature.cpu().numpy()
    early = (active.position.cpu().numpy() < end) & (effects > 0)
    strongest = effects[early].max(initial=0.0)
    early &= effects >= inputs.share * strongest
    chosen: dict[tuple[int, int], int] = {}
    for entry in np.argsort(-effects, kind="stable"):
        if early[entry] and len(chosen) < inputs.count:
            chosen.setdefault((int(layers[entry]), int(indices[entry])), int(entry))
    return np.array(list(chosen.values()), np.int64)
