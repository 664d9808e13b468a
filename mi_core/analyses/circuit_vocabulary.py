"""Directions of the residual stream read through the vocabulary, a few thousand tokens at a time.

    through W_E:   embedding(token) . direction                       (the embedding module's own output, so
                                                                       that Gemma's scale is in it)
    through W_U:   (gain * centre(direction)) W_U[:, token]           (final norm at scale 1; no bias, no
                                                                       softcap, no logit scale)

What position embeddings add to the stream, and what layers before have written, is not in W_E.
Cost: 2 * d_vocab * d_model * directions floating-point operations; no [d_vocab d_model] copy is ever made.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mi_core.analyses.causal_trace_result import Step
from mi_core.analyses.circuit_gains import final_gain, wide
from mi_core.errors import ModelError
from mi_core.model.model import LoadedModel
from mi_core.model.weights import embedding, unembedding

CHUNK = 8192  # tokens at a time: 256 MB in float64 for d_model = 4,096

OnChunk = Callable[[int], None]
"""Told how many tokens have been read; may raise Cancelled."""


@dataclass(slots=True)
class VocabularyWatch:
    """Progress over a vocabulary that is gone through more than once, in tokens.

    Attributes:
        total: tokens of all rounds together.
        started: when it began, as `time.perf_counter` says.
        on_step: told of progress; may raise `Cancelled`.
        before: tokens of the rounds that are done.
    """

    total: int
    started: float
    on_step: Callable[[Step[Any]], None] | None
    before: int = 0

    def __call__(self, done: int) -> None:
        """Tell the caller how many tokens of this round are done."""
        if self.on_step is None:
            return
        done += self.before
        left = (time.perf_counter() - self.started) / done * (self.total - done)
        self.on_step(Step(done, self.total, left, None, f"token {done:,} of {self.total:,}"))


def embeddings(model: LoadedModel) -> Iterator[Float[Tensor, "token d_model"]]:
    """What the embedding module gives for every token id, in chunks, float64.

    Raises:
        ModelError: kind "unsupported": the embedding is not as wide as the stream, or not in memory.
    """
    table = embedding(model.hf)
    _require_width(model, table.shape[1], "token embeddings")
    module = model.hf.get_input_embeddings()
    for start in range(0, model.dims.d_vocab, CHUNK):
        ids = torch.arange(start, min(start + CHUNK, model.dims.d_vocab), device=table.device)
        with model.lock, torch.inference_mode():
            rows = module(ids)
        yield wide(rows)


def unembeddings(model: LoadedModel) -> Iterator[Float[Tensor, "d_model token"]]:
    """Columns of W_U in chunks, float64.

    Raises:
        ModelError: see `embeddings`.
    """
    table = unembedding(model.hf)
    _require_width(model, table.shape[0], "unembedding")
    for start in range(0, model.dims.d_vocab, CHUNK):
        yield wide(table[:, start : min(start + CHUNK, model.dims.d_vocab)])


def read_embedding(
    model: LoadedModel, directions: Float[Tensor, "d_model n"], on_chunk: OnChunk
) -> Float[Tensor, "d_vocab n"]:
    """Dot product of every token's embedding with every direction."""
    return _gather((rows @ directions.to(rows.device) for rows in embeddings(model)), on_chunk)


def read_unembedding(
    model: LoadedModel, directions: Float[Tensor, "d_model n"], on_chunk: OnChunk
) -> Float[Tensor, "d_vocab n"]:
    """What a unit of every direction adds to every token's logit, at scale 1 of the final norm."""
    gain = final_gain(model)
    written = gain.after(directions.T.to(gain.vector.device))
    return _gather(
        ((written.to(columns.device) @ columns).T for columns in unembeddings(model)),
        on_chunk,
    )


def _gather(parts: Iterator[Tensor], on_chunk: OnChunk) -> Tensor:
    gathered, done = [], 0
    for part in parts:
        gathered.append(part.cpu())
        done += len(part)
        on_chunk(done)
    return torch.cat(gathered)


def _require_width(model: LoadedModel, width: int, what: str) -> None:
    if width != model.dims.d_model:
        raise ModelError(
            "This model's circuits cannot be read through its vocabulary",
            kind="unsupported",
            why=f"its {what} have {width} numbers, its residual stream {model.dims.d_model}",
        )
