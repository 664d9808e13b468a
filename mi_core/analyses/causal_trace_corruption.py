"""The two runs of a causal trace: which tokens, where they differ, and the noise.

Noise comes from numpy's RandomState, drawn in float64 on the CPU and cast once, so a seed gives the same
numbers on every device; seed 1 gives those of ROME's program (arXiv 2202.05262). The same draws serve every
cell (common random numbers), so differences between cells are not noise.
"""

import threading
import weakref
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mi_core.analyses.causal_trace_inputs import CausalTraceInputs
from mi_core.engine import Edit
from mi_core.errors import InputError
from mi_core.model.measure import embedding_sigma
from mi_core.model.model import LoadedModel
from mi_core.tokens import TokenizedPrompt, require_equal_length, tokenize


@dataclass(frozen=True, slots=True)
class PromptPair:
    """The clean and the corrupted prompt in tokens.

    Attributes:
        clean: the clean prompt.
        corrupted: the corrupted one; the same object when noise corrupts.
        subject: token span [start, end) that is marked, and noised when noise corrupts.
        first_difference: first position at which the runs differ.
    """

    clean: TokenizedPrompt
    corrupted: TokenizedPrompt
    subject: tuple[int, int]
    first_difference: int


def tokenize_pair(model: LoadedModel, inputs: CausalTraceInputs) -> PromptPair:
    """Tokenise the prompts and find the subject.

    Raises:
        InputError: prompts of different length (both tokenisations are shown, aligned) or equal prompts; no
            subject for the noise; a subject outside the prompt or over the BOS token.
    """
    clean = tokenize(model.tokenizer, inputs.prompt, bos=inputs.bos)
    if inputs.corrupted_prompt is None:
        if inputs.subject is None:
            raise InputError(
                "No subject was chosen",
                fix="Choose the tokens that noise should hide, or give a second prompt",
            )
        _check_subject(clean, inputs.subject)
        return PromptPair(clean, clean, inputs.subject, inputs.subject[0])
    corrupted = tokenize(model.tokenizer, inputs.corrupted_prompt, bos=inputs.bos)
    require_equal_length(clean, corrupted)
    pairs = enumerate(zip(clean.ids, corrupted.ids, strict=True))
    differing = [position for position, (one, other) in pairs if one != other]
    if not differing:
        raise InputError("The two prompts are the same in tokens", fix="Change a word in one of them")
    subject = inputs.subject or (differing[0], differing[-1] + 1)
    _check_subject(clean, subject)
    return PromptPair(clean, corrupted, subject, differing[0])


def differing_span(clean: TokenizedPrompt, corrupted: TokenizedPrompt) -> tuple[int, int]:
    """Token span [start, end) of the clean prompt between what both prompts begin and what both end with.

    Raises:
        InputError: nothing is left, because the clean prompt holds no token that the other has not.
    """
    one, other = clean.ids, corrupted.ids
    shorter = min(len(one), len(other))
    start = next((index for index in range(shorter) if one[index] != other[index]), shorter)
    rest = shorter - start
    tail = next((index for index in range(rest) if one[-1 - index] != other[-1 - index]), rest)
    if start == len(one) - tail:
        raise InputError("The clean prompt has no token of its own to put noise on")
    return start, len(one) - tail


def _check_subject(prompt: TokenizedPrompt, span: tuple[int, int]) -> None:
    start, end = span
    if end > len(prompt):
        raise InputError(
            f"The subject is tokens {start} to {end - 1}", why=f"the prompt has only {len(prompt)} tokens"
        )
    if start < prompt.bos:
        raise InputError(
            "The subject covers the beginning-of-sequence token",
            why="it is no part of the text, and a model without it computes something else altogether",
            fix=f"Start the subject at token {prompt.bos} or later",
        )


_SIGMAS: "weakref.WeakKeyDictionary[LoadedModel, dict[tuple[str, ...], float]]" = weakref.WeakKeyDictionary()
_SIGMAS_LOCK = threading.Lock()
_SIGMAS_KEPT = 8  # per model


def sigma_of(model: LoadedModel, subjects: tuple[str, ...] = ()) -> float:
    """Standard deviation of the token-embedding module's outputs, over all their entries.

    Args:
        model: the model; Gemma's embedding scale is part of the module and counts.
        subjects: texts to measure on, each tokenised alone and without BOS, as ROME does with its known
            subjects; empty = every token of the vocabulary once.

    Returns:
        Embedding units.
    """
    with _SIGMAS_LOCK:
        known = _SIGMAS.setdefault(model, {}).get(subjects)
    if known is not None:
        return known
    ids = [token for text in subjects for token in tokenize(model.tokenizer, text, bos="never").ids]
    # Half a second for 256,000 tokens, and an average asks for every prompt: worth keeping.
    sigma = embedding_sigma(model.hf, torch.tensor(ids) if subjects else None)
    with _SIGMAS_LOCK:
        kept = _SIGMAS.setdefault(model, {})
        if len(kept) >= _SIGMAS_KEPT:
            kept.pop(next(iter(kept)))
        kept[subjects] = sigma
    return sigma


def draw_noise(
    inputs: CausalTraceInputs, scale: float, n_tokens: int, width: int
) -> Float[np.ndarray, "sample position width"]:
    """The noise of one trace, float64.

    Args:
        inputs: distribution, samples and seed.
        scale: standard deviation (gaussian) or half width (uniform), embedding units.
        n_tokens: tokens of the subject.
        width: d_model.
    """
    random = np.random.RandomState(inputs.seed)  # the legacy stream, because ROME's numbers come from it
    shape = (inputs.samples, n_tokens, width)
    draws = random.uniform(-1, 1, shape) if inputs.noise == "uniform" else random.standard_normal(shape)
    return scale * draws


def noise_edit(model: LoadedModel, inputs: CausalTraceInputs, span: tuple[int, int], scale: float) -> Edit:
    """The edit that adds each sample's noise to the subject's embeddings; row = sample."""
    noise = draw_noise(inputs, scale, span[1] - span[0], model.dims.d_model)
    value = torch.from_numpy(noise).to(model.device, model.dtype)
    return Edit("embed", operation="add", positions=tuple(range(*span)), value=value)


def token_rows(prompt: TokenizedPrompt, continuation: tuple[int, ...], rows: int) -> Int[Tensor, "row pos"]:
    """The prompt and the answer's tokens that are given to the model, repeated for every row."""
    return torch.tensor([[*prompt.ids, *continuation]]).repeat(rows, 1)
