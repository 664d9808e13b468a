"""Prediction sweep: at which layer does the right answer become the lens' top token, prompt by prompt?

Every layer's residual stream at the last position goes through the model's final norm and unembedding (the
logit lens, see `logit_lens_run`). Words like "appears" and "depth" are defined in `prediction_sweep_result`.

Cost: one forward pass over all prompts, in batches of equal length that keep only the last position, and one
unembedding per layer and prompt.
"""

import contextlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.causal_trace_result import Step
from mi_core.analyses.logit_lens_checks import output_gap
from mi_core.analyses.logit_lens_cost import lens_seconds
from mi_core.analyses.logit_lens_statistics import LensNumbers, lens_numbers, rows_per_chunk
from mi_core.analyses.prediction_sweep_result import (
    WHOLE,
    LeftOut,
    PredictionSweepInputs,
    PredictionSweepResult,
    SweptCase,
    sweep_shapes,
)
from mi_core.answers import choose_answer
from mi_core.engine import run, unembed
from mi_core.errors import Cancelled, InputError
from mi_core.metrics import log_probabilities
from mi_core.model.model import LoadedModel
from mi_core.model.structure import text_config
from mi_core.provenance import Provenance
from mi_core.tokens import tokenize, visible_token

OnSweepStep = Callable[[Step[PredictionSweepResult]], None]

TOKENS_PER_BATCH = 2048
ROWS_PER_BATCH = 64
SECONDS_BETWEEN_PARTIALS = 0.2


def prediction_sweep(
    model: LoadedModel, inputs: PredictionSweepInputs, *, on_step: OnSweepStep | None = None
) -> PredictionSweepResult:
    """Read every layer's answer to every prompt; the module docstring has the method.

    Args:
        model: a loaded model.
        inputs: the prompts.
        on_step: told of progress after every batch, with what is done; may raise `Cancelled` to stop.

    Returns:
        Everything; after `Cancelled`, the prompts done until then (`result.cancelled`).

    Raises:
        SiteMissing: the model lacks the site.
        ModelError: the lens of the last stream is not the model's output.
    """
    for layer in range(model.dims.n_layers):
        model.structure.require(inputs.site, layer)
    sweep = _Sweep(model, inputs)
    try:
        for batch in sweep.batches():
            sweep.report(on_step)
            sweep.read(batch)
    except Cancelled:
        return sweep.result(cancelled=True)
    with contextlib.suppress(Cancelled):  # everything is done already
        sweep.report(on_step)
    return sweep.result()


def sweep_seconds(model: LoadedModel, inputs: PredictionSweepInputs) -> float | None:
    """Expected duration, from a few of the prompts; None before the model's speed was measured."""
    looked_at = inputs.cases[:: max(1, len(inputs.cases) // 20)]
    lengths = [len(model.tokenizer(case.prompt)["input_ids"]) for case in looked_at]
    tokens = round(sum(lengths) / len(lengths) * len(inputs.cases))
    return lens_seconds(model, tokens, len(inputs.cases) * model.dims.n_layers)


@dataclass(frozen=True, slots=True)
class _Prompt:
    """A case in tokens."""

    case: SweptCase
    ids: tuple[int, ...]
    answer: int


@dataclass(slots=True)
class _Sweep:
    """What the batches so far have given."""

    model: LoadedModel
    inputs: PredictionSweepInputs
    started: float = field(default_factory=time.perf_counter)
    prompts: list[_Prompt] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    done: list[_Prompt] = field(default_factory=list)
    parts: list[dict[str, np.ndarray]] = field(default_factory=list)
    gap: float = 0.0
    drawn: float = 0.0

    def __post_init__(self) -> None:
        limit = getattr(text_config(self.model.hf.config), "max_position_embeddings", None)
        for index, case in enumerate(self.inputs.cases):
            try:
                prompt = tokenize(self.model.tokenizer, case.prompt, bos=self.inputs.bos, limit=limit)
                answer = choose_answer(self.model.tokenizer, prompt, case.answer)
            except InputError as error:
                self.left_out.append(LeftOut(index, error.what + (f": {error.why}" if error.why else "")))
                continue
            swept = SweptCase(index, len(prompt), answer.pieces)
            self.prompts.append(_Prompt(swept, prompt.ids, answer.ids[0]))

    def batches(self) -> Iterator[list[_Prompt]]:
        """Prompts of equal length, the shortest first."""
        by_length: dict[int, list[_Prompt]] = defaultdict(list)
        for prompt in self.prompts:
            by_length[len(prompt.ids)].append(prompt)
        fitting = min(ROWS_PER_BATCH, rows_per_chunk(self.model.dims.d_vocab, self.model.dtype))
        for length in sorted(by_length):
            rows = max(1, min(fitting, TOKENS_PER_BATCH // length))
            starts = [*range(0, len(by_length[length]), rows), len(by_length[length])]
            for start, stop in pairwise(starts):
                yield by_length[length][start:stop]

    def read(self, batch: list[_Prompt]) -> None:
        """One forward pass, then the lens of every layer at the last position."""
        model, site, n_layers = self.model, self.inputs.site, self.model.dims.n_layers
        last_stream = ("resid_post", n_layers - 1)
        seen = run(
            model,
            torch.tensor([prompt.ids for prompt in batch]),
            capture=[site, last_stream],
            last=1,
            reduce=lambda _place, value: value[:, -1].clone(),
        )
        own = seen.logits[:, -1]
        self.gap = max(self.gap, output_gap(model, unembed(model, seen[last_stream]), own))
        final = log_probabilities(own)
        answers = torch.tensor([prompt.answer for prompt in batch], device=final.device)
        output = lens_numbers(own, final, answers, answers[:0], 1)
        layers = [self._lens(seen[site, layer], final, answers) for layer in range(n_layers)]
        self.parts.append(
            {
                "answer_ids": answers.cpu().numpy(),
                "top_ids": _stacked([one.top_ids[:, 0] for one in layers]),
                "top_probabilities": _stacked([one.top_probabilities[:, 0] for one in layers]),
                "answer_log_probability": _stacked([one.log_probability for one in layers]),
                "answer_rank": _stacked([one.rank for one in layers]),
                "output_top_ids": output.top_ids[:, 0].cpu().numpy(),
                "output_top_probabilities": output.top_probabilities[:, 0].cpu().numpy(),
            }
        )
        self.done += batch

    def _lens(self, vectors: Tensor, final: Tensor, answers: Tensor) -> LensNumbers:
        logits = unembed(self.model, vectors.to(final.device)).to(final.device)
        return lens_numbers(logits, final, answers, answers[:0], 1)

    def report(self, on_step: OnSweepStep | None) -> None:
        """Tell the caller; may raise Cancelled."""
        if on_step is None:
            return
        now, done, total = time.perf_counter(), len(self.done), len(self.prompts)
        left = (now - self.started) / done * (total - done) if done else None
        partial = None
        if done and (now - self.drawn > SECONDS_BETWEEN_PARTIALS or done == total):
            partial, self.drawn = self.result(cancelled=done < total), now
        on_step(Step(done, total, left, partial, "prompts"))

    def result(self, *, cancelled: bool = False) -> PredictionSweepResult:
        """What is done, in the order of the cases."""
        order = np.argsort([prompt.case.index for prompt in self.done], kind="stable")
        arrays = {
            name: np.concatenate([part[name] for part in self.parts], axis=-1)[..., order]
            if self.parts
            else np.zeros(shape, np.int64 if name in WHOLE else np.float64)
            for name, shape in sweep_shapes(self.model.dims.n_layers, 0).items()
        }
        ids = {*arrays["answer_ids"].tolist(), *arrays["top_ids"].ravel().tolist()}
        ids |= {*arrays["output_top_ids"].tolist()}
        return PredictionSweepResult(
            inputs=self.inputs,
            provenance=Provenance.of(self.model, seed=None),
            n_layers=self.model.dims.n_layers,
            swept=tuple(self.done[index].case for index in order),
            left_out=tuple(self.left_out),
            vocabulary={token: visible_token(self.model.tokenizer, token) for token in sorted(ids)},
            warnings=self._warnings(arrays),
            checks=self._checks(arrays),
            seconds=time.perf_counter() - self.started,
            cancelled=cancelled,
            **arrays,
        )

    def _warnings(self, arrays: dict[str, np.ndarray]) -> tuple[str, ...]:
        warnings, n = [], len(self.done)
        wrong = int((arrays["output_top_ids"] != arrays["answer_ids"]).sum())
        if wrong:
            warnings.append(
                f"The model itself gets {wrong} of {n} prompts wrong; their answers never stabilise and are "
                "not in the histogram."
            )
        if self.left_out:
            total = len(self.inputs.cases)
            warnings.append(f"{len(self.left_out)} of {total} prompts cannot be read; the list says why.")
        several = sum(len(prompt.case.pieces) > 1 for prompt in self.done)
        if several:
            warnings.append(
                f"{several} of {n} answers have several tokens; only their first one is looked for."
            )
        return tuple(warnings)

    def _checks(self, arrays: dict[str, np.ndarray]) -> tuple[Check, ...]:
        if not self.done:
            return ()
        checks = [
            Check(
                "the last stream through the lens = the model's output",
                True,  # anything else was refused
                f"Logits differ by at most {self.gap:.1e}, on {len(self.done)} prompts.",
            )
        ]
        if self.inputs.site == "resid_post":
            gap = np.abs(arrays["top_probabilities"][-1] - arrays["output_top_probabilities"]).max()
            limit = 1e-5 if self.model.dtype in (torch.float32, torch.float64) else 5e-2
            checks.append(
                Check(
                    "the last row is the model's output",
                    bool(gap <= limit),
                    f"Probabilities of the top token differ by at most {gap:.1e}.",
                )
            )
        return tuple(checks)


def _stacked(rows: list[Tensor]) -> np.ndarray:
    return torch.stack(rows).cpu().numpy()
