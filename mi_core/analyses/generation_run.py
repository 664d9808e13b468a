"""What does the model write, and what does it write while it is edited?

    default:  token s = choose(P(. | prompt, default tokens before s))
    edited:   token s = choose(P_edited(. | prompt, edited tokens before s))      edits live at every step
    KL(s)   = sum over the vocabulary of P log(P / P_edited), both after the prompt and the DEFAULT tokens
              before s: how far the edit pushes at s before the texts part

Both draw with the same seed: step s of both uses the same random number. A token is changed where the two
continuations differ at the same step; after the first difference nothing is realigned, so that an inserted
word marks everything behind it.

Cost: per seed two texts, one token a step from an exact key-value cache, and two whole passes for KL.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.causal_trace_result import Step
from mi_core.analyses.generation_edits import LiveEdits, generation_edits
from mi_core.analyses.generation_inputs import GenerationInputs
from mi_core.analyses.generation_result import GenerationResult, Stop
from mi_core.engine import Edit, Generated, Sampling, generate, live_edits, run
from mi_core.engine.generate_edits import pinned_to_prompt
from mi_core.errors import Cancelled
from mi_core.model.model import LoadedModel
from mi_core.provenance import Provenance
from mi_core.tokens import TokenizedPrompt, prompt_warnings, tokenize
from mi_core.visible import visible_token

OnStep = Callable[[Step[GenerationResult]], None]


def continuations(
    model: LoadedModel, token_ids: Sequence[int], edits: Sequence[Edit], steps: int
) -> tuple[Generated, Generated]:
    """Greedy continuations before and after edits: (default, edited).

    Edits at named positions act on these tokens of the prompt; others act on every token, generated ones
    included, unless they have a value for each token of the prompt.

    Raises:
        InputError: the continuation does not fit into the model's context.
    """
    fixed = pinned_to_prompt(edits, len(token_ids))
    default = generate(model, token_ids, steps=steps)
    return default, generate(model, token_ids, steps=steps, edits=fixed) if edits else default


def generation(
    model: LoadedModel, inputs: GenerationInputs, *, on_step: OnStep | None = None
) -> GenerationResult:
    """Continue a prompt with and without edits; the module docstring has the formulas.

    Args:
        model: a loaded model.
        inputs: prompt, edits, length, sampling.
        on_step: told after every token; may raise `Cancelled`: seeds that are done are returned, and it
            passes through while there are none.

    Raises:
        InputError: the prompt cannot be read, or does not leave room for so many tokens.
        SiteMissing: the model lacks a site of an edit.
        EditError: an edit does not fit, or never took effect.
    """
    prompt = tokenize(model.tokenizer, inputs.prompt, bos=inputs.bos)
    return continue_both(model, inputs, prompt, generation_edits(model, prompt.ids, inputs), on_step)


def continue_both(
    model: LoadedModel,
    inputs: GenerationInputs,
    prompt: TokenizedPrompt,
    live: LiveEdits,
    on_step: OnStep | None = None,
) -> GenerationResult:
    """Continue a prompt with and without edits that are compiled already.

    Args:
        model: a loaded model.
        inputs: length and sampling, and where edits without positions act.
        prompt: its tokens.
        live: the edits.
        on_step: as in `generation`.

    Raises:
        InputError, SiteMissing, EditError: as in `generation`.
    """
    started = time.perf_counter()
    report = _Report(on_step, 2 * len(inputs.used_seeds) * inputs.steps)
    pairs: list[_Pair] = []
    cancelled = False
    try:
        for seed in inputs.used_seeds:
            pairs.append(_pair(model, prompt.ids, inputs, live, seed, report))
            report.finished += 2 * inputs.steps
            report.partial = _result(model, inputs, prompt, live, pairs)
    except Cancelled:
        if not pairs:
            raise
        cancelled = True
    result = _result(model, inputs, prompt, live, pairs)
    return replace(result, cancelled=cancelled, seconds=time.perf_counter() - started)


class _Pair:
    """The two continuations of one seed, and what was measured on the default one."""

    def __init__(
        self, default: Generated, edited: Generated, kl: np.ndarray, error: float, span: float
    ) -> None:
        self.default, self.edited, self.kl = default, edited, kl
        self.error, self.span = error, span  # of the cache; of all log-probabilities, for its rounding


class _Report:
    """Tells how many tokens are there."""

    def __init__(self, on_step: OnStep | None, total: int) -> None:
        self._on_step, self._total, self._started = on_step, total, time.perf_counter()
        self.finished = 0
        self.partial: GenerationResult | None = None

    def after(self, offset: int) -> Callable[[int, int], None]:
        """A callback for one continuation that begins at `offset` tokens."""

        def on_token(count: int, _token: int) -> None:
            if self._on_step is not None:
                done = min(self._total, self.finished + offset + count)
                left = (time.perf_counter() - self._started) * (self._total - done) / max(1, done)
                self._on_step(Step(done, self._total, left, self.partial, "generating"))

        return on_token


def _pair(
    model: LoadedModel,
    ids: Sequence[int],
    inputs: GenerationInputs,
    live: LiveEdits,
    seed: int,
    report: _Report,
) -> _Pair:
    settings: dict[str, Any] = {
        "steps": inputs.steps,
        "sampling": Sampling(inputs.temperature, inputs.top_p, seed),
        "stop": None if inputs.stop_at_end else (),
    }
    texts = []
    for offset, own, more in ((0, (), None), (inputs.steps, live.edits, live.of_text())):
        told = report.after(offset)
        text = generate(model, ids, edits=own, where=inputs.where, on_token=told, growing=more, **settings)
        if text.stopped == "cancelled":
            raise Cancelled
        texts.append(text)
    default, edited = texts
    plain = _read(model, ids, default.ids, LiveEdits([], None, ()), inputs)
    kl = kl_by_step(plain, _read(model, ids, default.ids, live, inputs))
    chosen = plain[range(len(default.ids)), list(default.ids)].numpy()
    error = float(np.abs(chosen - default.log_probabilities).max())
    span = float(torch.where(plain.isfinite(), plain, torch.zeros_like(plain)).abs().max())
    return _Pair(default, edited, kl, error, span)


def _read(
    model: LoadedModel,
    ids: Sequence[int],
    continuation: Sequence[int],
    live: LiveEdits,
    inputs: GenerationInputs,
) -> Float[Tensor, "step d_vocab"]:
    """Log-probabilities for every token of a continuation that is given, in one whole pass; float64."""
    tokens, more = [*ids, *continuation[:-1]], live.of_text()
    acting = live_edits(model, live.edits, inputs.where, len(ids), len(tokens))
    acting += [] if more is None else more(tokens)
    logits = run(model, torch.tensor([tokens]), edits=acting, last=len(continuation)).logits[0]
    return logits.to("cpu", torch.float64).log_softmax(-1)


def kl_by_step(
    default: Float[Tensor, "step d_vocab"], edited: Float[Tensor, "step d_vocab"]
) -> Float[np.ndarray, " step"]:
    """KL(default || edited) of log-probabilities, in nats; infinite where a possible token is forbidden."""
    chances = default.exp()
    terms = torch.where(chances > 0, chances * (default - edited), torch.zeros_like(chances))
    return terms.sum(-1).clamp(min=0.0).numpy()  # rounding may leave -1e-17


def _result(
    model: LoadedModel,
    inputs: GenerationInputs,
    prompt: TokenizedPrompt,
    live: LiveEdits,
    pairs: Sequence[_Pair],
) -> GenerationResult:
    used = sorted({token for pair in pairs for text in (pair.default, pair.edited) for token in text.ids})
    stops: list[tuple[Stop, ...]] = [
        tuple("eos" if text.stopped == "eos" else "steps" for text in texts)
        for texts in ([pair.default for pair in pairs], [pair.edited for pair in pairs])
    ]
    steps = inputs.steps
    return GenerationResult(
        inputs=inputs,
        provenance=Provenance.of(model),
        tokens=prompt.tokens,
        seeds=inputs.used_seeds[: len(pairs)],
        default_ids=_stacked([np.array(pair.default.ids) for pair in pairs], steps, -1.0).astype(np.int64),
        edited_ids=_stacked([np.array(pair.edited.ids) for pair in pairs], steps, -1.0).astype(np.int64),
        default_log_probabilities=_stacked([p.default.log_probabilities for p in pairs], steps, np.nan),
        edited_log_probabilities=_stacked([p.edited.log_probabilities for p in pairs], steps, np.nan),
        kl=_stacked([pair.kl for pair in pairs], steps, np.nan),
        default_stopped=stops[0],
        edited_stopped=stops[1],
        vocabulary={token_id: visible_token(model.tokenizer, token_id) for token_id in used},
        method=pairs[0].default.method,
        layer=live.layer,
        warnings=tuple(_warnings(model, inputs, prompt, live, pairs)),
        checks=tuple(_checks(model, live, pairs)),
    )


def _stacked(rows: Sequence[np.ndarray], steps: int, filler: float) -> Float[np.ndarray, "seed step"]:
    out = np.full((len(rows), steps), filler)
    for index, row in enumerate(rows):
        out[index, : len(row)] = row
    return out


def _warnings(
    model: LoadedModel,
    inputs: GenerationInputs,
    prompt: TokenizedPrompt,
    live: LiveEdits,
    pairs: Sequence[_Pair],
) -> Iterator[str]:
    yield from prompt_warnings(prompt, model.tokenizer)
    yield from live.warnings
    if len(inputs.used_seeds) < len(inputs.seeds):
        yield "Greedy decoding draws nothing, so there is one pair of texts, whatever the seeds."
    if pairs[0].default.reason:
        yield f"No key-value cache was used: {pairs[0].default.reason}."
    cut = sum(pair.edited.cut_rows for pair in pairs)
    if cut:
        yield f"{cut} rows of attention lost all their keys; such a head gives zero there."
    if any(not np.isfinite(pair.kl).all() for pair in pairs):
        yield "Some tokens cannot occur at all in the edited model, so KL is infinite there (drawn as a gap)."


def _checks(model: LoadedModel, live: LiveEdits, pairs: Sequence[_Pair]) -> Iterator[Check]:
    """The cache is exact, and an edit that does nothing changes nothing."""
    error = max(pair.error for pair in pairs)
    precise = 1e-9 if model.dtype == torch.float64 else 1e-4
    rounding = max(precise, 4 * float(torch.finfo(model.dtype).eps) * max(pair.span for pair in pairs))
    yield Check(
        "log-probabilities step by step equal those of one whole pass",
        error <= rounding,
        f"largest deviation {error:.1e} nats; rounding of {str(model.dtype).removeprefix('torch.')} "
        f"explains {rounding:.1e}",
    )
    if not live.edits and live.growing is None:
        same = all(pair.default.ids == pair.edited.ids for pair in pairs)
        yield Check("without edits both texts are the same", same, "compared token by token")
