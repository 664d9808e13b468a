"""A word as a direction that rows are compared with, and the spread of all words around it.

With x_v the direction of word v (writes: the final norm's gain times W_U[:, v]; reads: the embedding of v
behind the norm in front of the reader), for a row r

    effect      = r . (x_t - mean_v x_v)
    deviations  = effect / sqrt(r C r)         C = covariance of the x_v over the vocabulary

so that all readings of a row over the vocabulary need never be made.
Cost: 2 d_vocab d_model^2 operations for C, once per model; only the mean where deviations are not asked for.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor

from mi_core.analyses.circuit_gains import final_gain
from mi_core.analyses.circuit_vocabulary import embeddings, unembeddings
from mi_core.model.model import LoadedModel
from mi_core.transcoders.transcoder import Transcoder
from mi_core.transcoders.weights_stream import as_read, reader_gain

Vocabulary = Callable[[], Iterator[Float[Tensor, "token d_model"]]]
"""Makes the directions of all words, in order, in chunks, float64."""


@dataclass(frozen=True, slots=True, eq=False)
class Spread:
    """How all words of a vocabulary lie.

    Attributes:
        mean: over the vocabulary.
        covariance: over the vocabulary; empty where it was not asked for.
    """

    mean: Float[Tensor, "d_model"]
    covariance: Float[Tensor, "d_model *d_model"]


_KNOWN: WeakKeyDictionary[LoadedModel, dict[str, Spread]] = WeakKeyDictionary()


@dataclass(frozen=True, slots=True, eq=False)
class Words:
    """Some words among all words.

    Attributes:
        directions: of the words that are searched, relative to the mean.
        mean: over the vocabulary.
        covariance: over the vocabulary; empty where it was not asked for.
    """

    directions: Float[Tensor, "form d_model"]
    mean: Float[Tensor, "d_model"]
    covariance: Float[Tensor, "d_model *d_model"]

    def scores(self, rows: Float[Tensor, "n d_model"], rank_by: str) -> Float[Tensor, "n form"]:
        """What rows are ranked by; 0 for rows of zeros."""
        effects = rows @ self.directions.to(rows).T
        if rank_by == "effect":
            return effects
        if rank_by == "cosine":
            size = rows.norm(dim=-1)[:, None] * self.directions.norm(dim=-1).to(rows)
        else:
            spread = torch.einsum("nd,nd->n", rows @ self.covariance.to(rows), rows)
            size = spread.clamp_min(0).sqrt()[:, None].expand_as(effects)
        return torch.where(size > 0, effects / size.clamp_min(1e-30), torch.zeros_like(effects))


def written_words(model: LoadedModel) -> Vocabulary:
    """Every word as what a row must be for it to be promoted.

    Raises:
        SiteMissing: this model has no final norm that can be read.
        ModelError: the unembedding is not as wide as the stream.
    """
    gain = final_gain(model)

    def chunks() -> Iterator[Tensor]:
        for columns in unembeddings(model):
            yield gain.before(columns.to(gain.vector.device)).T

    return chunks


def read_words(model: LoadedModel, transcoder: Transcoder, layer: int) -> Vocabulary:
    """Every word's embedding, as the features of a layer would read it.

    Raises:
        ModelError: the embedding is not as wide as the stream, or the norm in front was not found.
    """
    gain = reader_gain(model, transcoder, layer)

    def chunks() -> Iterator[Tensor]:
        for rows in embeddings(model):
            yield as_read(gain, rows)

    return chunks


def known_spreads(model: LoadedModel) -> dict[str, Spread]:
    """Covariances of this model's words that were computed before; they leave with the model."""
    return _KNOWN.setdefault(model, {})


def words_of(vocabulary: Vocabulary, token_ids: tuple[int, ...], spread: Spread) -> Words:
    """Directions of some words among all words."""
    found: dict[int, Tensor] = {}
    count = 0
    for chunk in vocabulary():
        found |= {t: chunk[t - count] for t in token_ids if count <= t < count + len(chunk)}
        count += len(chunk)
    directions = torch.stack([found[token] for token in token_ids])
    return Words(directions - spread.mean, spread.mean, spread.covariance)


def spread_of(vocabulary: Vocabulary, *, covariance: bool) -> Spread:
    """Mean and (if asked for) covariance of all words, in one pass over the vocabulary."""
    width = next(vocabulary()).shape[1]
    total = torch.zeros(width).double()
    square = torch.zeros(width, width if covariance else 0).double()
    count = 0
    for chunk in vocabulary():
        total, square = total.to(chunk) + chunk.sum(0), square.to(chunk)
        if covariance:
            square += chunk.T @ chunk
        count += len(chunk)
    mean = total / count
    return Spread(mean, square / count - torch.outer(mean, mean) if covariance else square)
