"""What does the model write while features are pushed, or held at a value?

    in every layer m that one of them writes to, at every token p that `where` says, while the text grows:
        y_m[p] -> y_m[p] + sum over the listed features f of c_f[p] W_dec_f,m

c_f is the number behind `add`, or minus the one behind `suppress`, whether or not the features are active.
For `set`, `scale` and `ablate` it is new - present, with the activation read anew at every token while all
edits before it act (`feature_edits_growing`). The default text is written without. Texts and KL are those of
`generation`. A whole pass over the finished text with the same edits must give the same log-probabilities.

    ratio = median over the prompt's tokens of the largest over layers of
            ||what was added up to the layer|| / ||state after the layer||

Cost: per seed two texts from an exact key-value cache, and three whole passes for KL and the check; with set,
scale or ablate one more whole pass per token and source layer of such edits.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.causal_trace_result import Step
from mi_core.analyses.generation_edits import LiveEdits
from mi_core.analyses.generation_result import GenerationResult
from mi_core.analyses.generation_run import continue_both
from mi_core.engine import Edit, live_edits, observe, run
from mi_core.errors import InputError
from mi_core.model.model import LoadedModel
from mi_core.tokens import TokenizedPrompt, tokenize
from mi_core.transcoders.encode import masked_positions
from mi_core.transcoders.feature_edits_compile import compile_placed, place
from mi_core.transcoders.feature_edits_growing import GrowingFeatureEdits
from mi_core.transcoders.feature_generation_inputs import FeatureGenerationInputs
from mi_core.transcoders.feature_generation_result import FeatureGenerationResult
from mi_core.transcoders.feature_vectors import Push, push_of
from mi_core.transcoders.planning_words import FAR
from mi_core.transcoders.store import load_transcoder
from mi_core.transcoders.transcoder import Transcoder

OnStep = Callable[[Step[FeatureGenerationResult]], None]


@dataclass(frozen=True, slots=True, eq=False)
class _Asked:
    """The inputs, resolved on the model."""

    model: LoadedModel
    transcoder: Transcoder
    inputs: FeatureGenerationInputs
    prompt: TokenizedPrompt
    masked: int

    @property
    def live(self) -> LiveEdits:
        """What acts while the text is written."""
        if self.inputs.held:  # then all of the list, so that each edit finds what the others did
            return LiveEdits([], None, (), self.growing)
        push = push_of(self.transcoder, self.inputs.weights)
        return LiveEdits(_edits(push, self.inputs, range(self.masked, len(self.prompt))), None, ())

    def growing(self) -> GrowingFeatureEdits:
        """The list for a text that begins now."""
        n_prompt, where = len(self.prompt), self.inputs.where
        first = n_prompt if where == "generated" else self.masked
        end = n_prompt if where == "prompt" else None
        return GrowingFeatureEdits(self.model, self.transcoder, self.inputs.edits, first, end)


def feature_generation(
    model: LoadedModel, inputs: FeatureGenerationInputs, *, on_step: OnStep | None = None
) -> FeatureGenerationResult:
    """Continue a prompt with and without features edited; the module docstring has the formulas.

    Args:
        model: a loaded model.
        inputs: prompt, features, length, sampling.
        on_step: told after every token; may raise `Cancelled`: seeds that are done are returned, and it
            passes through while there are none.

    Raises:
        InputError: no feature is listed, one is not there, two edits of one contradict each other, or the
            prompt leaves no room.
        TranscoderError: there is no such transcoder, it does not fit the model, or it has no decoder here.
    """
    transcoder = load_transcoder(model, inputs.transcoder)
    prompt = tokenize(model.tokenizer, inputs.prompt, bos=inputs.bos)
    asked = _Asked(model, transcoder, inputs, prompt, len(masked_positions(model, prompt.ids)))
    if not inputs.edits:
        raise InputError("No feature is chosen", fix="Give one or more, such as L5F102:add=2")
    norms, ratio = _size(asked)
    if inputs.where == "prompt" and asked.masked == len(prompt):
        raise InputError(
            "There is no token to push the features at", why="the prompt has special tokens only"
        )
    live = replace(asked.live, warnings=_warnings(transcoder, ratio))

    def made(texts: GenerationResult, found: np.ndarray | None = None) -> FeatureGenerationResult:
        shape = (len(texts.seeds), len(inputs.held), len(prompt) + inputs.steps)
        return FeatureGenerationResult(
            inputs=inputs,
            texts=texts,
            transcoder=transcoder.name,
            features=tuple(feature.text for feature in inputs.weights),
            weights=np.array(list(inputs.weights.values())),
            held=tuple(edit.text for edit in inputs.held),
            found=np.full(shape, np.nan) if found is None else found,
            norms=norms,
            ratio=ratio,
        )

    def tell(step: Step[GenerationResult]) -> None:
        if on_step is not None:
            partial = None if step.partial is None else made(step.partial)
            on_step(Step(step.done, step.total, step.seconds_left, partial, step.text))

    texts = continue_both(model, inputs.plain, prompt, live, tell)
    found, check = _read_again(asked, texts)
    return made(replace(texts, checks=(*texts.checks, check)), found)


def _edits(push: Push, inputs: FeatureGenerationInputs, unmasked: Sequence[int]) -> list[Edit]:
    """At the prompt's tokens by position; without positions for generated ones."""
    edits: list[Edit] = []
    if inputs.where != "generated" and len(unmasked):
        edits += push.edits(tuple(unmasked))
    if inputs.where != "prompt":
        edits += [replace(edit, positions=None) for edit in push.edits(None)]
    return edits


def _read_again(asked: _Asked, texts: GenerationResult) -> tuple[Float[np.ndarray, "seed held token"], Check]:
    """Whole passes over the finished texts: what the held features were, and whether the steps were exact."""
    model, inputs, n_prompt = asked.model, asked.inputs, len(asked.prompt)
    held = [place for place, edit in enumerate(inputs.edits) if edit.needs_present]
    found, off, span = [], 0.0, 1.0
    for ids, told in zip(texts.edited_ids, texts.edited_log_probabilities, strict=True):
        chosen = [token for token in ids.tolist() if token >= 0]
        tokens = [*asked.prompt.ids, *chosen[:-1]]
        new, live = asked.growing(), asked.live
        acting = live_edits(model, live.edits, inputs.plain.where, n_prompt, len(tokens))
        acting += new(tokens) if live.growing else []
        logits = run(model, torch.tensor([tokens]), edits=acting, last=len(chosen)).logits[0]
        numbers = logits.to("cpu", torch.float64).log_softmax(-1).numpy()
        off = max(off, float(np.abs(numbers[range(len(chosen)), chosen] - told[: len(chosen)]).max()))
        span = max(span, float(np.abs(numbers[np.isfinite(numbers)]).max()))
        found.append(new.present(n_prompt + inputs.steps)[held])
    # What is set was read by another pass than the one it acts in: rounding, and no more.
    limit = max(1e-4, 16 * float(torch.finfo(model.dtype).eps) * span)
    return np.stack(found), Check(
        "steered log-probabilities step by step equal those of one whole pass with the same edits",
        off <= limit,
        f"largest deviation {off:.1e} nats (limit {limit:.1e})",
    )


def _size(asked: _Asked) -> tuple[Float[np.ndarray, "layer"], float]:
    """Length of what is added in each layer (median over the prompt's tokens), and the ratio above."""
    model, n_pos = asked.model, len(asked.prompt)
    tokens = range(min(asked.masked, n_pos - 1), n_pos)
    added = torch.zeros(model.dims.n_layers, len(tokens), model.dims.d_model, dtype=torch.float64)
    for layer, delta in _added(asked, tokens).items():
        added[layer] = delta
    seen = observe(model, asked.prompt.ids, ["resid_post"])
    states = torch.stack(
        [seen["resid_post", layer].double().norm(dim=-1).cpu() for layer in range(model.dims.n_layers)]
    )[:, tokens.start :]
    ratios = (added.cumsum(0).norm(dim=-1) / states.clamp(min=1e-30)).amax(0)
    return np.median(added.norm(dim=-1).numpy(), axis=1), float(np.median(ratios.numpy()))


def _added(asked: _Asked, tokens: range) -> dict[int, Float[Tensor, "token d_model"]]:
    """Layer -> what the list adds at tokens of the prompt, float64.

    Raises:
        InputError: two edits of one feature contradict each other, or one is not there.
    """
    inputs, transcoder, ids = asked.inputs, asked.transcoder, asked.prompt.ids
    if not inputs.held:
        push = push_of(transcoder, inputs.weights)
        values = (torch.from_numpy(vector).expand(len(tokens), -1) for vector in push.vectors)
        return dict(zip(push.layers, values, strict=True))
    special = asked.masked == len(asked.prompt)  # then the size is told at the last of them
    here = [replace(edit, positions=tuple(tokens)) if special else edit for edit in inputs.edits]
    compiled = compile_placed(asked.model, transcoder, ids, place(asked.model, transcoder, ids, here))
    return {layer: delta.cpu().double() for layer, delta in compiled.deltas.items()}


def _warnings(transcoder: Transcoder, ratio: float) -> tuple[str, ...]:
    if ratio <= FAR:
        return transcoder.warnings
    return (
        *transcoder.warnings,
        f"The push is {ratio:.2g} times as long as the states of the prompt: what the model writes then says "
        "little about the features.",
    )
