"""Logit lens: what would the model say if it stopped at this layer (nostalgebraist 2020)?

    lens[l, t] = softcaps(unembed(final_norm(translate(l, x[l, t]))))

The plain lens does not translate: translate(l, x) = x. x is the residual stream before, inside or after block
l, or what attention or the MLP alone adds to it. Final norm, unembedding, scales and softcaps are the model's
own, so the lens of the last stream is the model's own output; that is checked on this very prompt, and a
model for which it fails is refused. The norm brings a component's small output to full size: a lens of
attn_out or mlp_out says in which direction it writes, not how much.

Cost: one forward pass per prompt (shared with every other page) and 2 * d_model * d_vocab floating-point
operations per layer and position. Statistics are in `logit_lens_statistics`.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mi_core.analyses.causal_trace_result import Step
from mi_core.analyses.logit_lens_checks import lens_checks, lens_warnings, output_gap
from mi_core.analyses.logit_lens_inputs import LensTarget, LogitLensInputs, lens_layers
from mi_core.analyses.logit_lens_result import PLAIN, LensWord, LogitLensResult
from mi_core.analyses.logit_lens_statistics import LensNumbers, lens_numbers, rows_per_chunk
from mi_core.analyses.logit_lens_words import lens_words
from mi_core.engine import observe, unembed
from mi_core.errors import Cancelled, InputError
from mi_core.metrics import log_probabilities
from mi_core.model.model import LoadedModel
from mi_core.provenance import Provenance
from mi_core.tokens import TokenizedPrompt, tokenize, visible_token

Translator = Callable[[int, Tensor], Tensor]
"""(layer, vectors [n, d_model]) -> vectors for the final norm; the plain lens gives them back."""

OnLensStep = Callable[[Step[LogitLensResult]], None]


@dataclass(frozen=True, slots=True)
class Lens:
    """How vectors are brought to the final norm.

    Attributes:
        name: for titles and tables.
        translate: gives the vectors back for the plain lens.
        fingerprint: identifies its weights, "" if it has none.
        warnings: sentences that its user must read.
    """

    name: str = PLAIN
    translate: Translator = lambda _layer, vectors: vectors
    fingerprint: str = ""
    warnings: tuple[str, ...] = ()


def logit_lens(
    model: LoadedModel, inputs: LogitLensInputs, *, on_step: OnLensStep | None = None
) -> LogitLensResult:
    """Read every layer through the model's own output; the module docstring has the formula.

    Args:
        model: a loaded model.
        inputs: prompt, site, lens, what to follow.
        on_step: told of progress; may raise `Cancelled` to stop.

    Returns:
        All statistics; after `Cancelled`, those of the positions done until then (`result.cancelled`).

    Raises:
        InputError: the inputs do not fit the model.
        SiteMissing: the model lacks the site.
        ModelError: the lens of the last stream is not the model's output, or a number is not finite.
        Cancelled: stopped before any position was done.
    """
    return read_through(model, inputs, _lens_of(model, inputs), on_step=on_step)


def read_through(
    model: LoadedModel, inputs: LogitLensInputs, lens: Lens, *, on_step: OnLensStep | None = None
) -> LogitLensResult:
    """The same with a lens that is at hand, such as one that is being trained; see `logit_lens`."""
    return _Reading(model, inputs, lens).result(on_step)


def _lens_of(model: LoadedModel, inputs: LogitLensInputs) -> Lens:
    """The lens that the inputs name."""
    if not inputs.lens:
        return Lens()
    from mi_core.analyses.tuned_lens_store import open_lens  # reads files; the plain lens needs none

    tuned = open_lens(model, inputs.lens)
    tuned.require_site(inputs.site)
    site = inputs.site
    return Lens(
        tuned.name,
        lambda layer, vectors: tuned.translate(site, layer, vectors),
        tuned.fingerprint,
        tuned.warnings,
    )


class _Reading:
    """One prompt's vectors, and what is read from them chunk by chunk."""

    def __init__(self, model: LoadedModel, inputs: LogitLensInputs, lens: Lens) -> None:
        self.started = time.perf_counter()
        self.model, self.inputs, self.lens = model, inputs, lens
        self.prompt = tokenize(model.tokenizer, inputs.prompt, bos=inputs.bos)
        self.positions = _positions(inputs, self.prompt)
        self.layers = lens_layers(model.dims.n_layers, inputs.stride)
        self.seen = observe(model, self.prompt.ids, [inputs.site, "resid_post", "logits"])
        top_token = int(self.seen["logits", None][-1].argmax())
        self.words, self.word_warnings = lens_words(
            model, self.prompt, inputs.answer, inputs.distractor, inputs.tracked, top_token
        )
        self.targets = target_ids(inputs.target, self.prompt, self.positions, self.words)
        self.gap = 0.0

    def result(self, on_step: OnLensStep | None) -> LogitLensResult:
        done: list[dict[str, np.ndarray]] = []
        n_done, cancelled = 0, False
        try:
            for positions in self._chunks():
                done.append(self._read(positions))
                n_done += len(positions)
                if on_step is not None:
                    left = (time.perf_counter() - self.started) * (len(self.positions) / n_done - 1)
                    on_step(Step(n_done, len(self.positions), left, None, "positions"))
        except Cancelled:
            if not done:
                raise
            cancelled = n_done < len(self.positions)
        arrays = {name: np.concatenate([part[name] for part in done], _axis(name)) for name in done[0]}
        return self._assembled(self.positions[:n_done], arrays, cancelled)

    def _chunks(self) -> Iterator[tuple[int, ...]]:
        """Positions that are read together, all layers of each."""
        at_once = max(1, self._rows // (len(self.layers) + 1))
        for start in range(0, len(self.positions), at_once):
            yield self.positions[start : start + at_once]

    @property
    def _rows(self) -> int:
        return rows_per_chunk(self.model.dims.d_vocab, self.model.dtype)

    def _read(self, positions: tuple[int, ...]) -> dict[str, np.ndarray]:
        """All arrays of some positions."""
        index = list(positions)
        own = self.seen["logits", None][index]
        last = self.seen["resid_post", self.model.dims.n_layers - 1][index]
        self.gap = max(self.gap, output_gap(self.model, unembed(self.model, last), own))
        final = log_probabilities(own)
        chosen = [self.positions.index(position) for position in index]
        targets = torch.tensor(self.targets, device=final.device)[chosen]
        words = torch.tensor([word.id for word in self.words], device=final.device)
        output = lens_numbers(own, final, targets, words, self.inputs.k)
        arrays = {f"output_{name}": value for name, value in _arrays(output).items() if name != "kl"}
        per_layer = max(1, self._rows // len(index))
        parts = [
            self._layers(self.layers[start : start + per_layer], index, final, targets, words)
            for start in range(0, len(self.layers), per_layer)
        ]
        return arrays | {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _layers(
        self, layers: tuple[int, ...], index: list[int], final: Tensor, targets: Tensor, words: Tensor
    ) -> dict[str, np.ndarray]:
        """The lens of some layers at some positions, as arrays [layer, position, ...]."""
        stacked = torch.cat([self._hidden(layer, index).to(final.device) for layer in layers])
        numbers = lens_numbers(
            unembed(self.model, stacked).to(final.device),
            final.repeat(len(layers), 1),
            targets.repeat(len(layers)),
            words,
            self.inputs.k,
        )
        return {
            name: value.reshape(len(layers), len(index), *value.shape[1:])
            for name, value in _arrays(numbers).items()
        }

    def _hidden(self, layer: int, index: list[int]) -> Float[Tensor, "n d_model"]:
        return self.lens.translate(layer, self.seen[self.inputs.site, layer][index])

    def _assembled(
        self, positions: tuple[int, ...], arrays: dict[str, np.ndarray], cancelled: bool
    ) -> LogitLensResult:
        targets = np.array(self.targets[: len(positions)], np.int64)
        return LogitLensResult(
            inputs=self.inputs,
            provenance=Provenance.of(self.model, seed=None),
            tokens=self.prompt.tokens,
            positions=positions,
            layers=self.layers,
            n_layers=self.model.dims.n_layers,
            words=self.words,
            target_ids=targets,
            vocabulary=self._vocabulary(targets, arrays),
            lens=self.lens.name,
            lens_fingerprint=self.lens.fingerprint,
            warnings=(
                *self.lens.warnings,
                *self.word_warnings,
                *lens_warnings(self.model, self.inputs.site, self.prompt),
            ),
            checks=lens_checks(self.model, self.inputs, self.gap, arrays),
            seconds=time.perf_counter() - self.started,
            cancelled=cancelled,
            **arrays,
        )

    def _vocabulary(self, targets: np.ndarray, arrays: dict[str, np.ndarray]) -> dict[int, str]:
        seen = [targets, *(arrays[name].ravel() for name in ("top_ids", "output_top_ids"))]
        ids = {*np.concatenate(seen).tolist(), *(word.id for word in self.words)}
        return {token: visible_token(self.model.tokenizer, token) for token in sorted(ids)}


def target_ids(
    target: LensTarget, prompt: TokenizedPrompt, positions: Sequence[int], words: Sequence[LensWord]
) -> list[int]:
    """The token that each position is asked about: the answer, or the token that really comes next."""
    asked = words[0].id
    following = (*prompt.ids[1:], asked)
    return [asked if target == "answer" else following[position] for position in positions]


def _positions(inputs: LogitLensInputs, prompt: TokenizedPrompt) -> tuple[int, ...]:
    positions = tuple(range(len(prompt))) if inputs.positions is None else inputs.positions
    if positions[-1] >= len(prompt):
        raise InputError(
            f"Position {positions[-1]} is not in the prompt",
            why=f"it has {len(prompt)} tokens, counted from 0",
        )
    return positions


def _arrays(numbers: LensNumbers) -> dict[str, np.ndarray]:
    """The same numbers on the CPU."""
    return {field.name: getattr(numbers, field.name).cpu().numpy() for field in fields(numbers)}


def _axis(name: str) -> int:
    """Where the position stands in an array."""
    return 0 if name.startswith("output_") else 1
