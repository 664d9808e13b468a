"""What does the model write while features are pushed?

    in every layer m that one of them writes to, at every token that `where` says, as long as the text grows:
        y_m[p] -> y_m[p] + sum over the listed features f of c_f W_dec_f,m

c_f is the number behind `add`, or minus the one behind `suppress`: all pushes act together, whether or not
the features are active. The default text is written without. Texts and KL are those of `generation`.

    ratio = median over the prompt's tokens of the largest over layers of
            ||what was added up to the layer|| / ||state after the layer||

Cost: per seed two texts from an exact key-value cache, and two whole passes for KL.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch

from mi_core.analyses.causal_trace_result import Step
from mi_core.analyses.generation_edits import LiveEdits
from mi_core.analyses.generation_result import GenerationResult
from mi_core.analyses.generation_run import continue_both
from mi_core.engine import Edit, observe
from mi_core.errors import InputError
from mi_core.model.model import LoadedModel
from mi_core.tokens import TokenizedPrompt, tokenize
from mi_core.transcoders.encode import masked_positions
from mi_core.transcoders.feature_generation_inputs import FeatureGenerationInputs
from mi_core.transcoders.feature_generation_result import FeatureGenerationResult
from mi_core.transcoders.feature_vectors import Push, push_of
from mi_core.transcoders.planning_words import FAR
from mi_core.transcoders.store import load_transcoder
from mi_core.transcoders.transcoder import Transcoder

OnStep = Callable[[Step[FeatureGenerationResult]], None]


def feature_generation(
    model: LoadedModel, inputs: FeatureGenerationInputs, *, on_step: OnStep | None = None
) -> FeatureGenerationResult:
    """Continue a prompt with and without features pushed; the module docstring has the formulas.

    Args:
        model: a loaded model.
        inputs: prompt, features, length, sampling.
        on_step: told after every token; may raise `Cancelled`: seeds that are done are returned, and it
            passes through while there are none.

    Raises:
        InputError: no feature is listed, one is not there, or the prompt leaves no room.
        TranscoderError: there is no such transcoder, it does not fit the model, or it has no decoder here.
    """
    transcoder = load_transcoder(model, inputs.transcoder)
    prompt = tokenize(model.tokenizer, inputs.prompt, bos=inputs.bos)
    push = push_of(transcoder, inputs.weights)
    masked = len(masked_positions(model, prompt.ids))
    ratio = _ratio(model, prompt, push, masked)
    edits = _edits(push, inputs, range(masked, len(prompt)))
    if not edits:
        raise InputError(
            "There is no token to push the features at", why="the prompt has special tokens only"
        )
    live = LiveEdits(edits, None, _warnings(transcoder, ratio))

    def made(texts: GenerationResult) -> FeatureGenerationResult:
        return FeatureGenerationResult(
            inputs=inputs,
            texts=texts,
            transcoder=transcoder.name,
            features=tuple(feature.text for feature in inputs.weights),
            weights=np.array(list(inputs.weights.values())),
            norms=push.norms(model.dims.n_layers),
            ratio=ratio,
        )

    def tell(step: Step[GenerationResult]) -> None:
        if on_step is not None:
            partial = None if step.partial is None else made(step.partial)
            on_step(Step(step.done, step.total, step.seconds_left, partial, step.text))

    return made(continue_both(model, inputs.plain, prompt, live, tell))


def _edits(push: Push, inputs: FeatureGenerationInputs, unmasked: Sequence[int]) -> list[Edit]:
    """At the prompt's tokens by position; without positions for generated ones."""
    edits: list[Edit] = []
    if inputs.where != "generated" and len(unmasked):
        edits += push.edits(tuple(unmasked))
    if inputs.where != "prompt":
        edits += [replace(edit, positions=None) for edit in push.edits(None)]
    return edits


def _ratio(model: LoadedModel, prompt: TokenizedPrompt, push: Push, masked: int) -> float:
    """Length of the push over the length of the states of the prompt."""
    seen, sums = observe(model, prompt.ids, ["resid_post"]), push.sums(model.dims.n_layers)
    states = torch.stack(
        [seen["resid_post", layer].double().norm(dim=-1).cpu() for layer in range(model.dims.n_layers)]
    ).numpy()[:, min(masked, len(prompt) - 1) :]
    return float(np.median((sums[:, None] / np.maximum(states, 1e-30)).max(0)))


def _warnings(transcoder: Transcoder, ratio: float) -> tuple[str, ...]:
    if ratio <= FAR:
        return transcoder.warnings
    return (
        *transcoder.warnings,
        f"The push is {ratio:.2g} times as long as the states of the prompt: what the model writes then says "
        "little about the features.",
    )
