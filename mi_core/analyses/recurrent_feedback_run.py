"""Does a model that thinks twice find the rhyme?

    H0 = stream entering layer `start`;   B = layers start .. end - 1
    strength 0:   B(B(...B(H0)))  depth times, at every token and in every step
    otherwise:    B(H0 + strength * d) at the prompt's last token, with mode "sustained" at every generated
                  token too;   d = mean embedding of the rhymes' last tokens, made to length 1
    second line = greedy;   hit = its last word is one of the rhymes

candle-mi's experiment (recurrent_feedback). As there, feedback always begins at H0, so with a strength the
depth changes nothing, which is said. Cost: per couplet `steps` cached steps for the model as it is, and
`steps` whole passes with the repeated block.
"""

import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.causal_trace_result import Step
from mi_core.analyses.recurrent_feedback_inputs import Couplet, RecurrentFeedbackInputs
from mi_core.analyses.recurrent_feedback_result import RecurrentFeedbackResult
from mi_core.answers import choose_answer
from mi_core.engine import generate, run
from mi_core.engine.generate import end_tokens
from mi_core.engine.generate_loop import Loop, loop_logits
from mi_core.errors import Cancelled, InputError
from mi_core.model.model import LoadedModel
from mi_core.model.weights import embedding
from mi_core.provenance import Provenance
from mi_core.tokens import tokenize
from mi_core.visible import visible_token

OnStep = Callable[[Step[RecurrentFeedbackResult]], None]


def recurrent_feedback(
    model: LoadedModel, inputs: RecurrentFeedbackInputs, *, on_step: OnStep | None = None
) -> RecurrentFeedbackResult:
    """Continue couplets with and without a repeated block of layers; the module docstring has the formulas.

    Args:
        model: a loaded model.
        inputs: couplets, layers, depth, strength.
        on_step: told before every couplet; may raise `Cancelled`: couplets that are done are returned, and it
            passes through while there are none.

    Raises:
        InputError: there is no such block of layers, or a line leaves no room for a second.
    """
    started = time.perf_counter()
    start, end = _block(model, inputs)
    done: list[_Pair] = []
    cancelled = False
    try:
        for index, couplet in enumerate(inputs.couplets):
            if on_step is not None:
                left = (time.perf_counter() - started) / index if index else None
                left = None if left is None else left * (len(inputs.couplets) - index)
                on_step(Step(index, len(inputs.couplets), left, None, "couplets"))
            done.append(_pair(model, inputs, couplet, start, end))
    except Cancelled:
        if not done:
            raise
        cancelled = True
    result = _result(model, inputs, done, start, end)
    return replace(result, cancelled=cancelled, seconds=time.perf_counter() - started)


@dataclass(frozen=True, slots=True, eq=False)
class _Side:
    """One run of one couplet: logits after the first line, and the second line."""

    logits: Float[Tensor, " d_vocab"]
    line: str


@dataclass(frozen=True, slots=True, eq=False)
class _Pair:
    """Both runs of one couplet."""

    couplet: Couplet
    ids: tuple[int, ...]
    target: int
    sides: tuple[_Side, _Side]


def _block(model: LoadedModel, inputs: RecurrentFeedbackInputs) -> tuple[int, int]:
    start = model.dims.n_layers // 2 if inputs.start is None else inputs.start
    end = start + 1 if inputs.end is None else inputs.end
    if not start < end <= model.dims.n_layers:
        raise InputError(
            f"There is no block of layers {start} to {end - 1}",
            why=f"the model's layers are 0 to {model.dims.n_layers - 1}",
            fix="`end` is one past the last layer",
        )
    return start, end


def _pair(
    model: LoadedModel, inputs: RecurrentFeedbackInputs, couplet: Couplet, start: int, end: int
) -> _Pair:
    prompt = tokenize(model.tokenizer, couplet.line, bos=inputs.bos)
    vector = inputs.strength * rhyme_direction(model, couplet.rhymes) if inputs.strength else None
    loop = Loop(start, end, inputs.depth, vector)
    plain = generate(model, prompt.ids, steps=inputs.steps, keep_logits=True)
    if plain.logits is None:
        raise InputError("Nothing was generated", why="there are no logits")
    first, ids = _looped(model, prompt.ids, loop, inputs)
    sides = (_Side(plain.logits[0], _line(model, plain.ids)), _Side(first, _line(model, ids)))
    return _Pair(couplet, prompt.ids, choose_answer(model.tokenizer, prompt, couplet.target).ids[0], sides)


def _looped(
    model: LoadedModel, prompt: Sequence[int], loop: Loop, inputs: RecurrentFeedbackInputs
) -> tuple[Float[Tensor, " d_vocab"], list[int]]:
    """First logits and greedy tokens with the repeated block, a whole pass per step."""
    ids: list[int] = []
    ends = end_tokens(model)
    first = None
    for _ in range(inputs.steps):
        last = len(prompt) - 1
        fed = range(last, len(prompt) + len(ids)) if inputs.mode == "sustained" else (last,)
        logits = loop_logits(model, [*prompt, *ids], loop, tuple(fed))
        first = logits if first is None else first
        ids.append(int(np.argmax(logits.numpy())))
        if ids[-1] in ends:
            break
    if first is None:
        raise InputError("Nothing was generated", why="no step was asked for")
    return first, ids


def rhyme_direction(model: LoadedModel, rhymes: Sequence[str]) -> Float[Tensor, " d_model"]:
    """Mean embedding of the rhymes' last tokens, of length 1, in float32 at least.

    Raises:
        InputError: the mean is zero, so there is no direction.
    """
    last = []
    for word in rhymes:
        pieces = model.tokenizer(f" {word.strip()}", add_special_tokens=False)["input_ids"]
        last += pieces[-1:]
    rows = embedding(model.hf)[last]
    mean = rows.to("cpu", torch.promote_types(rows.dtype, torch.float32)).mean(0)
    if not last or not float(mean.norm()) > 0:
        raise InputError("The rhymes give no direction", why="the mean of their embeddings is zero")
    return mean / mean.norm()


def _line(model: LoadedModel, ids: Sequence[int]) -> str:
    """The second line as text, up to its first line break."""
    text = model.tokenizer.decode(list(ids), skip_special_tokens=True)
    return text.lstrip("\n").split("\n", 1)[0]


def last_word(line: str) -> str:
    """Last word of a line in lower case; "" if it has none."""
    words = re.findall(r"[^\W\d_]+(?:['\u2019][^\W\d_]+)*", line)
    return words[-1].lower() if words else ""


def _result(
    model: LoadedModel, inputs: RecurrentFeedbackInputs, done: Sequence[_Pair], start: int, end: int
) -> RecurrentFeedbackResult:
    logits = torch.stack([torch.stack([pair.sides[side].logits for pair in done]) for side in (0, 1)])
    chances = logits.softmax(-1)
    tops = chances.sort(stable=True, dim=-1, descending=True)
    k = min(inputs.k, chances.shape[-1])
    targets = torch.tensor([pair.target for pair in done])
    own = logits.gather(-1, targets.expand(2, -1)[..., None])
    lines = tuple(tuple(pair.sides[side].line for pair in done) for side in (0, 1))
    words = tuple(tuple(map(last_word, run_lines)) for run_lines in lines)
    rhymes = [{word.strip().lower() for word in pair.couplet.rhymes} for pair in done]
    hits = np.array([[word in known for word, known in zip(run, rhymes, strict=True)] for run in words])
    top_ids = tops.indices[..., :k].numpy()
    named = sorted({*top_ids.ravel().tolist(), *targets.tolist()})
    return RecurrentFeedbackResult(
        inputs=inputs,
        provenance=Provenance.of(model),
        start=start,
        end=end,
        n_layers=model.dims.n_layers,
        d_model=model.dims.d_model,
        top_ids=top_ids,
        top_probabilities=tops.values[..., :k].numpy(),
        target_ids=targets.numpy(),
        target_probabilities=chances.gather(-1, targets.expand(2, -1)[..., None])[..., 0].numpy(),
        target_ranks=(1 + (logits > own).sum(-1)).numpy(),
        hits=hits,
        lines=(lines[0], lines[1]),
        words=(words[0], words[1]),
        vocabulary={token_id: visible_token(model.tokenizer, token_id) for token_id in named},
        warnings=tuple(_warnings(inputs)),
        checks=tuple(_checks(model, done[0], start, end)),
    )


def _warnings(inputs: RecurrentFeedbackInputs) -> Iterator[str]:
    if inputs.strength and inputs.depth > 1:
        yield "With feedback every round begins at the same input, so the depth changes nothing."
    if not inputs.strength and inputs.depth == 1:
        yield "Depth 1 without feedback is the model as it is."


def _checks(model: LoadedModel, pair: _Pair, start: int, end: int) -> Iterator[Check]:
    once = loop_logits(model, pair.ids, Loop(start, end, 1), ())
    own = run(model, torch.tensor([list(pair.ids)]), last=1).logits[0, -1].cpu().double()
    yield Check(
        "running the block once is the model as it is, bit for bit",
        torch.equal(once, own),
        f"largest difference of the logits {float((once - own).abs().max()):.1e}",
    )
