"""Listed features of a word search, each read again by itself: in float64, against the whole vocabulary.

Only the row that writes the word most is read, chunk by chunk, so nothing as large as the vocabulary times
the features is ever held.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mi_core.transcoders.names import Feature
from mi_core.transcoders.words_direction import Vocabulary, Words
from mi_core.transcoders.words_inputs import RankBy, WordSearchInputs

SAME = 0.999
"""Rows with a larger cosine are one direction, split over features (mostly dead ones)."""


@dataclass(frozen=True, slots=True)
class Hit:
    """One listed feature, read again by itself.

    Attributes:
        feature: which.
        target: layer at which it writes the word most.
        token_id: form of the word.
        passed: the score that the pass over all features gave.
        effect: relative to the mean over the vocabulary.
        deviations: in standard deviations over the vocabulary.
        cosine: with the word's direction.
        rank: of the word among all tokens, from 1.
        total: effect of all target layers together.
        copies: further features of the layer with practically the same row there.
    """

    feature: Feature
    target: int
    token_id: int
    passed: float
    effect: float
    deviations: float
    cosine: float
    rank: int
    total: float
    copies: int

    def score(self, rank_by: RankBy) -> float:
        """What it is ranked by."""
        return {"effect": self.effect, "deviations": self.deviations, "cosine": self.cosine}[rank_by]


def read_again(
    found: Sequence[tuple[float, Feature]],
    rows: Float[Tensor, "n column d_model"],
    columns: Sequence[int],
    words: Words,
    forms: Sequence[int],
    vocabulary: Vocabulary,
    inputs: WordSearchInputs,
) -> list[Hit]:
    """Features of one layer with all their numbers; of several that write one direction only the best.

    Args:
        found: (score of the pass, feature).
        rows: what they write (read), float64.
        columns: target layer of every column.
        words: the word among all words.
        forms: its token ids.
        vocabulary: all words.
        inputs: what was asked for.
    """
    scores = words.scores(rows.flatten(0, 1), inputs.rank_by).cpu()
    by_column = scores.unflatten(0, rows.shape[:2]).flatten(1)
    winners = [divmod(int(one), len(forms)) for one in by_column.argmax(1)]  # (column, form)
    written = torch.stack([rows[place, column] for place, (column, _) in enumerate(winners)])
    groups = copies_of(written, [column for column, _ in winners])
    first = [places[0] for places in groups]
    best, chosen = [winners[place] for place in first], written[first]
    form = torch.tensor([form for _, form in best])
    effects, spread, above = _readings(chosen, words, form, vocabulary)
    direction = words.directions.cpu()[form]
    cosines = ratio((chosen * direction).sum(-1), chosen.norm(dim=-1) * direction.norm(dim=-1))
    totals = (rows[first].sum(1) * direction).sum(-1)
    deviations = ratio(effects, spread)
    return [
        Hit(
            found[places[0]][1],
            columns[best[n][0]],
            forms[best[n][1]],
            found[places[0]][0],
            float(effects[n]),
            float(deviations[n]),
            float(cosines[n]),
            1 + int(above[n]),
            float(totals[n]),
            len(places) - 1,
        )
        for n, places in enumerate(groups)
    ]


def copies_of(rows: Float[Tensor, "n d_model"], columns: Sequence[int]) -> list[list[int]]:
    """Places of rows that are practically one direction in one column, grouped; the first of each leads."""
    lengths = rows.norm(dim=-1, keepdim=True)
    units = rows / torch.where(lengths > 0, lengths, torch.ones_like(lengths))
    alike = (units @ units.T > SAME).tolist()
    groups: list[list[int]] = []
    for place, column in enumerate(columns):
        for group in groups:
            if columns[group[0]] == column and alike[group[0]][place]:
                group.append(place)
                break
        else:
            groups.append([place])
    return groups


def _readings(
    rows: Float[Tensor, "n d_model"], words: Words, form: Tensor, vocabulary: Vocabulary
) -> tuple[Tensor, Tensor, Tensor]:
    """Effect on the word, standard deviation over all words, and words above it, of every row."""
    own = (rows * (words.directions + words.mean).cpu()[form]).sum(-1)
    shift = rows @ words.mean.cpu()  # keeps the squares small; the mean is measured again below
    total, square, above = (torch.zeros(len(rows)).double() for _ in range(3))
    count = 0
    for chunk in vocabulary():
        readings = (chunk @ rows.T.to(chunk)).cpu()
        off = readings - shift
        total, square = total + off.sum(0), square + off.square().sum(0)
        # A little room: the word's own reading may come out an ulp above itself.
        above = above + (readings > own + 1e-12 * own.abs()).sum(0)
        count += len(chunk)
    mean = total / count
    return own - shift - mean, (square / count - mean.square()).clamp_min(0).sqrt(), above


def ratio(above: Tensor, below: Tensor) -> Tensor:
    """Quotients; 0 where there is nothing below."""
    return torch.where(below > 0, above / below.clamp_min(1e-300), torch.zeros_like(above))
