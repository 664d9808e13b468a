"""The attention of a prompt: every head's pattern, what it moves, and numbers that tell heads apart.

    weights         A = softmax(softcap(q k^T * scale) + mask), per head; rows sum to 1
    value-weighted  || A v W_O ||, contribution A (v W_O) . d: see `attention_weighing`
    per head        entropy, distance, shares of attention: see `attention_metrics`;
                    effect on target: (z W_O) . d at the last token, d the frozen way to the logit

A prompt longer than the window keeps the window's queries and keys; what its rows give to earlier keys is
kept as one number per row, and the numbers per head are over all rows all the same.

Cost: one forward pass per prompt (none if another page looked at it), and per layer a few passes over its
pattern. Memory: layers * heads * window^2 numbers per prompt.
"""

import math
import time
from collections.abc import Callable
from typing import Any

from mi_core.analyses.attention_checks import attention_checks
from mi_core.analyses.attention_inputs import AttentionInputs
from mi_core.analyses.attention_result import AttentionResult
from mi_core.analyses.attention_side import SideNumbers, side_numbers
from mi_core.analyses.causal_trace_result import Step
from mi_core.errors import InputError
from mi_core.model.model import LoadedModel
from mi_core.provenance import Provenance
from mi_core.tokens import TokenizedPrompt, require_equal_length, tokenize

MAX_NUMBERS = 2**26
"""Numbers of all patterns kept together (268 MB); models with very many heads get a smaller window."""

WINDOW_STEP = 32
"""A window around a token moves in steps of this many, so that nearby selections share a result."""


def window_around(n_tokens: int, position: int | None, size: int) -> int | None:
    """`window_start` for a selected token: the token lies near the middle of the window.

    Args:
        n_tokens: length of the prompt.
        position: the selected token; None, or one that the prompt does not have: the end of the prompt.
        size: tokens in the window.

    Returns:
        A multiple of `WINDOW_STEP`, or None for the last window and for a prompt that needs none.
    """
    if n_tokens <= size or position is None or position >= n_tokens:
        return None
    start = max(0, position - size // 2) // WINDOW_STEP * WINDOW_STEP
    return start if start < n_tokens - size else None


def attention_patterns(
    model: LoadedModel, inputs: AttentionInputs, *, on_step: Callable[[Step], None] | None = None
) -> AttentionResult:
    """Look at the attention of a prompt, or of two prompts of equal length.

    Args:
        model: the loaded model.
        inputs: what to look at.
        on_step: told after each layer; may raise Cancelled, which passes: half of the layers is no answer.

    Raises:
        SiteMissing: this model's attention cannot be looked into; the message says why.
        InputError: an empty or too long prompt, prompts of different lengths (`LengthMismatch`), a window
            beyond the prompt, a distractor that begins with the target's token.
        ModelError: contributions were asked for and this model's logits are not linear at a frozen scale.
    """
    started = time.perf_counter()
    model.structure.require("pattern", 0)
    prompts = _prompts(model, inputs)
    span = _window(model, inputs, len(prompts[0]), len(prompts))
    sides: list[SideNumbers] = []
    for index, prompt in enumerate(prompts):
        on_layer = _reporter(model, index, len(prompts), on_step)
        target = sides[0].target if sides else None
        sides.append(side_numbers(model, inputs, prompt, span, target=target, on_layer=on_layer))
    first = sides[0]
    second: dict[str, Any] = {}
    if len(sides) > 1:
        second = {f"second_{name}": array for name, array in sides[1].arrays().items()}
    return AttentionResult(
        inputs=inputs,
        provenance=Provenance.of(model),
        tokens=prompts[0].tokens,
        second_tokens=prompts[1].tokens if second else (),
        window=span,
        answer=None if first.target is None else first.target.answer,
        distractor=None if first.target is None else first.target.distractor,
        **first.arrays(),
        **second,
        warnings=(*_warnings(inputs, prompts, span), *first.warnings),
        checks=attention_checks(model, inputs, sides),
        seconds=time.perf_counter() - started,
    )


def _reporter(
    model: LoadedModel, index: int, count: int, on_step: Callable[[Step], None] | None
) -> Callable[[int], None]:
    layers = model.dims.n_layers

    def on_layer(layer: int) -> None:
        if on_step is not None:
            on_step(Step(index * layers + layer + 1, count * layers, None, None, "layers"))

    return on_layer


def _prompts(model: LoadedModel, inputs: AttentionInputs) -> list[TokenizedPrompt]:
    texts = [inputs.prompt, *([] if inputs.second_prompt is None else [inputs.second_prompt])]
    prompts = [tokenize(model.tokenizer, text, bos=inputs.bos) for text in texts]
    if len(prompts) > 1:
        require_equal_length(prompts[0], prompts[1], ("A", "B"))
    return prompts


def _window(model: LoadedModel, inputs: AttentionInputs, n_tokens: int, n_prompts: int) -> tuple[int, int]:
    heads = model.dims.n_layers * model.dims.n_heads * n_prompts
    size = min(inputs.window, n_tokens, max(1, math.isqrt(MAX_NUMBERS // heads)))
    start = n_tokens - size if inputs.window_start is None else inputs.window_start
    if start >= n_tokens:
        raise InputError(
            f"The window starts at token {start}", why=f"the prompt has tokens 0 to {n_tokens - 1}"
        )
    start = min(start, n_tokens - size)
    return start, start + size


def _warnings(
    inputs: AttentionInputs, prompts: list[TokenizedPrompt], span: tuple[int, int]
) -> tuple[str, ...]:
    n_tokens, (start, end) = len(prompts[0]), span
    said = []
    if end - start < n_tokens:
        smaller = "" if end - start == inputs.window else f" (not {inputs.window}: there are very many heads)"
        said.append(
            f"The prompt has {n_tokens:,} tokens. Patterns show {end - start} of them{smaller}, {start} to "
            f"{end - 1}; the numbers per head are over the whole prompt."
        )
    if n_tokens == 1:
        said.append("The prompt is one token, which can only read itself: the numbers per head do not exist.")
    if len(prompts) > 1 and prompts[0].ids == prompts[1].ids:
        said.append("A and B are the same tokens: their difference is zero.")
    return tuple(said)
