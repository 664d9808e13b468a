"""Text generation with edits that are live at every step: `generate(model, token_ids, steps=..., edits=...)`.

    token t = choose(logits after reading prompt + tokens before t, under the edits)

Equal at every step to a whole pass over the sequence so far with the same edits (`live_edits`), which the
tests check in float64 for every family. Cost with the cache: one pass over the prompt, then one token per
step; without it (`method` "full", with the reason): one whole pass per step.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mi_core.engine.edits import Edit, normalise
from mi_core.engine.generate_cache import Growing, why_not_cached
from mi_core.engine.generate_edits import Where, live_edits
from mi_core.engine.run import check_tokens, context_limit, run
from mi_core.errors import Cancelled, EditError, InputError
from mi_core.model.model import LoadedModel

Stopped = Literal["steps", "eos", "cancelled"]
Method = Literal["cached", "full"]
OnToken = Callable[[int, int], None]
"""Called with (number of new tokens, id of the newest); may raise `Cancelled`."""
EditsSoFar = Callable[[Sequence[int]], Sequence[Edit]]
"""Called with the whole text so far before its newest tokens are read: the edits that act in a pass over it,
with explicit positions. What was given for earlier tokens must come again: a cache has read them already."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a token is chosen from the logits.

    Attributes:
        temperature: logits are divided by it; 0 = greedy, of equal logits the lowest id.
        top_p: sample from the fewest likeliest tokens that together have at least this probability.
        seed: of a generator of its own; the same seed gives the same text.

    Raises:
        InputError: a number is out of its range.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature <= 100:
            raise InputError(f"The temperature {self.temperature} is not between 0 and 100")
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p {self.top_p} is not above 0 and at most 1")
        if not 0 <= self.seed < 2**63:
            raise InputError(f"The seed {self.seed} is not between 0 and 2^63 - 1")


@dataclass(frozen=True, eq=False, slots=True)
class Generated:
    """What was generated.

    Attributes:
        ids: the new tokens; an end-of-text token, if one stopped it, is the last.
        log_probabilities: [step] natural log-probability of each, under the edits, before temperature and
            top_p.
        stopped: why it ended.
        method: with a key-value cache, or a whole pass per step.
        reason: why there was no cache; "" with one.
        logits: [step, d_vocab] float64 on the CPU if they were asked for.
        cut_rows: attention rows that lost all their keys to the edits and gave zero.
    """

    ids: tuple[int, ...]
    log_probabilities: Float[np.ndarray, " step"]
    stopped: Stopped
    method: Method
    reason: str = ""
    logits: Float[Tensor, "step d_vocab"] | None = None
    cut_rows: int = 0


def generate(
    model: LoadedModel,
    token_ids: Sequence[int],
    *,
    steps: int,
    edits: Sequence[Edit] = (),
    where: Where = "all",
    sampling: Sampling | None = None,
    on_token: OnToken | None = None,
    stop: Sequence[int] | None = None,
    keep_logits: bool = False,
    cache: bool = True,
    growing: EditsSoFar | None = None,
) -> Generated:
    """Continue a prompt, with edits live at every step.

    Args:
        model: the loaded model.
        token_ids: the prompt.
        steps: how many tokens to add at most.
        edits: positions given are positions of the prompt, and stay edited; positions None: see `where`.
        where: which positions positions=None means: of the "prompt", the "generated" tokens, or "all". A
            token is edited when it is read, so the last one chosen is never; the first one is chosen by the
            last token of the prompt.
        sampling: greedy when None.
        on_token: see `OnToken`; if it raises `Cancelled`, what is done is returned.
        stop: tokens that end the text; None = the model's own end-of-text tokens, () = none.
        keep_logits: keep the logits of every step (after edits, before sampling).
        cache: False takes a whole pass per step, for comparison.
        growing: further edits, those that depend on the text that is written; they act after `edits`.

    Raises:
        InputError: no tokens, ids outside the vocabulary, or more than the model's context holds.
        SiteMissing: the model lacks a site.
        EditError: an edit is out of the prompt, never took effect, or made the logits NaN.
        OutOfMemory: the device is too small.
    """
    _, n_prompt = check_tokens(model, torch.tensor([list(token_ids)], dtype=torch.long))
    _check_room(model, n_prompt, steps)
    live_edits(model, edits, where, n_prompt, n_prompt + 1)  # refuses before anything is computed
    reason = why_not_cached(model, n_prompt + steps - 1) if cache else "a whole pass per step was asked for"
    reader = _Reader(model, list(edits), where, n_prompt, growing, cached=not reason)
    ends = set(end_tokens(model) if stop is None else stop)
    text = _Text(Chooser(sampling or Sampling()), ends, keep_logits)
    try:
        for step in range(steps):
            if text.add(reader.next(list(token_ids) if step == 0 else text.ids[-1:]), on_token):
                break
    except Cancelled:
        text.stopped = "cancelled"
    reader.check_fired()
    return Generated(
        tuple(text.ids),
        np.array(text.scores),
        text.stopped,
        "full" if reason else "cached",
        reason,
        torch.stack(text.kept) if text.kept else None,
        reader.cut_rows,
    )


def end_tokens(model: LoadedModel) -> tuple[int, ...]:
    """The model's end-of-text tokens, as its generation settings or its configuration say."""
    for source in (getattr(model.hf, "generation_config", None), model.hf.config):
        found: Any = getattr(source, "eos_token_id", None)
        if found is not None:
            return tuple(found) if isinstance(found, (list, tuple)) else (int(found),)
    return ()


class Chooser:
    """Chooses tokens; its random numbers come from a generator of its own.

    Args:
        sampling: how.
    """

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling
        self._random = torch.Generator().manual_seed(sampling.seed)

    def __call__(self, logits: Float[np.ndarray, " d_vocab"]) -> tuple[int, float]:
        """One token, and its log-probability in the distribution of these logits as they are."""
        sampling = self._sampling
        if sampling.temperature == 0:
            token = int(np.argmax(logits))  # the first, that is the lowest id, of equal ones
        else:
            order = np.argsort(-logits, kind="stable")
            chances = np.exp(log_softmax(logits / sampling.temperature))[order]
            before = np.cumsum(chances) - chances
            n_kept = max(1, int((before < sampling.top_p).sum()))
            reached = np.cumsum(chances[:n_kept])
            draw = float(torch.rand((), generator=self._random, dtype=torch.float64)) * reached[-1]
            token = int(order[min(int(np.searchsorted(reached, draw, side="right")), n_kept - 1)])
        return token, float(log_softmax(logits)[token])


def log_softmax(logits: Float[np.ndarray, " d_vocab"]) -> Float[np.ndarray, " d_vocab"]:
    """Natural log-probabilities."""
    shifted = logits - logits.max()
    return shifted - np.log(np.exp(shifted).sum())


class _Text:
    """The text as it grows.

    Args:
        choose: how a token is chosen.
        ends: tokens that end it.
        keep_logits: whether the logits of every step are kept.
    """

    def __init__(self, choose: Chooser, ends: set[int], keep_logits: bool) -> None:
        self._choose, self._ends, self._keep = choose, ends, keep_logits
        self.ids: list[int] = []
        self.scores: list[float] = []
        self.kept: list[Tensor] = []
        self.stopped: Stopped = "steps"

    def add(self, logits: Float[Tensor, " d_vocab"], on_token: OnToken | None) -> bool:
        """One more token; whether it ends the text.

        Raises:
            EditError: the logits are not numbers.
        """
        if bool(logits.isnan().any()):
            raise EditError(
                f"The logits of step {len(self.ids) + 1} are not numbers (NaN)",
                why="an edit has a NaN in it",
            )
        token, score = self._choose(logits.numpy())
        self.ids.append(token)
        self.scores.append(score)
        self.kept += [logits] if self._keep else []
        if on_token is not None:
            on_token(len(self.ids), token)
        if token in self._ends:
            self.stopped = "eos"
        return self.stopped == "eos"


class _Reader:
    """Gives the logits after each token, from a cache or from whole passes."""

    def __init__(
        self,
        model: LoadedModel,
        edits: list[Edit],
        where: Where,
        n_prompt: int,
        more: EditsSoFar | None,
        *,
        cached: bool,
    ) -> None:
        self._model, self._edits, self._n_prompt, self._more = model, edits, n_prompt, more
        self._where: Where = where
        self._growing = Growing(model) if cached else None
        self._tokens: list[int] = []
        self._wanted: set[tuple[str, int | None]] = set()
        self._acted: set[tuple[str, int | None]] = set()
        self._cut_rows = 0

    def next(self, tokens: list[int]) -> Float[Tensor, " d_vocab"]:
        """Read more tokens; the logits after the last of them, float64 on the CPU."""
        self._tokens += tokens
        live = live_edits(self._model, self._edits, self._where, self._n_prompt, len(self._tokens))
        if self._more is not None:
            live += [
                normalise(edit, self._model.structure, len(self._tokens)) for edit in self._more(self._tokens)
            ]
        if self._growing is None:
            done = run(self._model, torch.tensor([self._tokens]), edits=live, last=1)
            self._cut_rows = done.cut_rows
            return done.logits[0, -1].cpu().double()
        logits, session = self._growing.read(tokens, live)
        self._wanted |= {(edit.site, edit.layer) for edit in live}
        self._acted |= {place for place, count in session.acted.items() if count}
        return logits.cpu().double()

    @property
    def cut_rows(self) -> int:
        """Attention rows that lost all their keys, over the whole sequence."""
        return self._cut_rows if self._growing is None else self._growing.cut_rows

    def check_fired(self) -> None:
        """Every edit that had something to act on must have acted (`run` checks whole passes itself)."""
        for name, layer in sorted(self._wanted - self._acted, key=str):
            raise EditError(
                f"The edit at {name!r}, layer {layer}, never took effect", why="its hook did not fire"
            )


def _check_room(model: LoadedModel, n_prompt: int, steps: int) -> None:
    """The last token chosen is not read, so prompt + steps - 1 tokens must fit.

    Raises:
        InputError: they do not.
    """
    if steps < 1:
        raise InputError(f"{steps} tokens are to be generated", fix="Ask for at least 1")
    limit = context_limit(model)
    if limit and n_prompt + steps - 1 > limit:
        raise InputError(
            f"A prompt of {n_prompt} tokens and {steps} more do not fit",
            why=f"the model reads at most {limit} tokens",
            fix=f"Ask for at most {limit - n_prompt + 1} tokens, or shorten the prompt",
        )
