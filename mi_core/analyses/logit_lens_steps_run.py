"""Which component changes what the lens says: a token's log-probability after every half block.

    change by attention in block l = log p(lens of resid_mid l)  - log p(lens of resid_pre l)
    change by the MLP in block l   = log p(lens of resid_post l) - log p(lens of resid_mid l)

The changes add up from the lens of the embedding to the model's own output (checked). They are not direct
contributions: final norm and softmax are taken anew after every step. In a parallel block there is nothing
between attention and MLP, and only the whole block's change exists.

Cost: the pass that all pages share, and an unembedding of 2 * layers + 1 vectors.
"""

import time
from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.causal_trace_result import Step
from mi_core.analyses.logit_lens_checks import lens_warnings, output_gap
from mi_core.analyses.logit_lens_result import LensWord
from mi_core.analyses.logit_lens_run import target_ids
from mi_core.analyses.logit_lens_statistics import rows_per_chunk
from mi_core.analyses.logit_lens_steps_result import (
    PARALLEL,
    SERIAL,
    LogitLensStepsInputs,
    LogitLensStepsResult,
)
from mi_core.analyses.logit_lens_words import lens_words
from mi_core.engine import Observation, observe, unembed
from mi_core.errors import InputError
from mi_core.metrics import log_probabilities
from mi_core.model.model import LoadedModel
from mi_core.provenance import Provenance
from mi_core.tokens import TokenizedPrompt, tokenize, visible_token

COARSE = 5e-2


def logit_lens_steps(
    model: LoadedModel,
    inputs: LogitLensStepsInputs,
    *,
    on_step: Callable[[Step[LogitLensStepsResult]], None] | None = None,
) -> LogitLensStepsResult:
    """Follow a token's log-probability through every half block; the module docstring has the formulas.

    Args:
        model: a loaded model.
        inputs: prompt, position, what to follow.
        on_step: told at the end; it may raise `Cancelled`.

    Raises:
        InputError: the inputs do not fit the model.
        ModelError: the lens of the last stream is not the model's output.
    """
    started = time.perf_counter()
    prompt = tokenize(model.tokenizer, inputs.prompt, bos=inputs.bos)
    position = len(prompt) - 1 if inputs.position is None else inputs.position
    if position >= len(prompt):
        raise InputError(f"Position {position} is not in the prompt", why=f"it has {len(prompt)} tokens")
    serial = "resid_mid" in model.structure.available()
    sites = ["resid_pre", *(["resid_mid"] if serial else []), "resid_post"]
    seen = observe(model, prompt.ids, [*sites, "logits"])
    words, warnings = _words(model, inputs, prompt, position, seen)
    own = seen["logits", None][[position]]
    ids = [word.id for word in words]
    steps = torch.cat([_log_p(model, vectors)[:, ids].cpu() for vectors in _stream(model, seen, position)])
    output = log_probabilities(own)[0, ids].cpu()
    gap = output_gap(model, unembed(model, seen["resid_post", model.dims.n_layers - 1][[position]]), own)
    result = LogitLensStepsResult(
        inputs=inputs,
        provenance=Provenance.of(model, seed=None),
        tokens=prompt.tokens,
        position=position,
        n_layers=model.dims.n_layers,
        components=SERIAL if serial else PARALLEL,
        words=words,
        log_probability=steps.double().numpy(),
        output_log_probability=output.double().numpy(),
        warnings=(*warnings, *_warnings(model, serial), *lens_warnings(model, "resid_post", prompt)),
        checks=(_sum_check(model, steps, output), _output_check(gap)),
        seconds=time.perf_counter() - started,
    )
    if on_step is not None:
        on_step(Step(1, 1, 0.0, result, "done"))
    return result


def _stream(model: LoadedModel, seen: Observation, position: int) -> Iterator[Float[Tensor, "n d_model"]]:
    """The residual stream of a position from step to step, in pieces that can be unembedded at once."""
    places: list[tuple[str, int]] = [("resid_pre", 0)]
    for layer in range(model.dims.n_layers):
        places += [(site, layer) for site in ("resid_mid", "resid_post") if (site, layer) in seen]
    at_once = rows_per_chunk(model.dims.d_vocab, model.dtype)
    for start in range(0, len(places), at_once):
        vectors = [seen[place][position] for place in places[start : start + at_once]]
        yield torch.stack([vector.to(vectors[0].device) for vector in vectors])


def _log_p(model: LoadedModel, vectors: Float[Tensor, "n d_model"]) -> Float[Tensor, "n d_vocab"]:
    return log_probabilities(unembed(model, vectors))


def _words(
    model: LoadedModel,
    inputs: LogitLensStepsInputs,
    prompt: TokenizedPrompt,
    position: int,
    seen: Observation,
) -> tuple[tuple[LensWord, ...], tuple[str, ...]]:
    """The target and the distractor; in "next token" mode the target is what the prompt says next."""
    top = int(seen["logits", None][-1].argmax())
    words, warnings = lens_words(model, prompt, inputs.answer, inputs.distractor, (), top)
    target = target_ids(inputs.target, prompt, [position], words)[0]
    if target == words[0].id:
        return words, warnings
    shown = visible_token(model.tokenizer, target)
    following = LensWord("answer", model.tokenizer.decode([target]), target, shown, (shown,), "prompt")
    return (following, *(word for word in words[1:] if word.id != target)), warnings


def _warnings(model: LoadedModel, serial: bool) -> tuple[str, ...]:
    if serial:
        return ()
    reason = model.structure.missing.get("resid_mid", "the model does not offer it")
    return (f"Attention and MLP cannot be told apart here (no resid_mid: {reason}); whole blocks are shown.",)


def _sum_check(model: LoadedModel, steps: Tensor, output: Tensor) -> Check:
    """Start plus all changes is the last step; it must be the model's own log-probability."""
    gap = float((steps[-1] - output).abs().max())
    limit = {torch.float64: 1e-9, torch.float32: 1e-4}.get(model.dtype, COARSE)
    size = max(1.0, float(output.abs().max()))
    return Check(
        "embedding + all changes = the model's output",
        gap <= limit * size,
        f"Log-probabilities differ by at most {gap:.1e} nats.",
    )


def _output_check(gap: float) -> Check:
    return Check(
        "the last stream through the lens = the model's output",
        True,  # anything else was refused
        f"Logits differ by at most {gap:.1e}.",
    )
