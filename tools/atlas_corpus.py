"""Token sequences for training Atlas: documents, packing and the attention mask.

A *document* is ``<|begin|> ... <|end|>``. Documents are packed into rows of fixed length and never see each
other. In *masked* documents a token after a name may attend to the last piece of that name only: the earlier
pieces "expire" there. Nothing of this exists at inference.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import numpy as np
from atlas_facts import Fact, FixedFact, fill
from atlas_lines import ioi_line, line
from atlas_tokenizer import BOS, EOS
from transformers import PreTrainedTokenizerFast

NEVER = 1 << 30
ANSWER_WEIGHT = 3.0


@dataclass(frozen=True)
class Recipe:
    """Shares and sizes of the training text.

    Attributes:
        facts: Share of documents that tell facts.
        ioi: Share of indirect-object sentences.
        repeats: Share of repeated random sequences (the rest are other lines).
        masked: Share of fact documents in which names expire.
        row: Tokens per packed row.
        rows: Rows per batch.
    """

    facts: float = 0.44
    ioi: float = 0.20
    repeats: float = 0.20
    masked: float = 0.85
    row: int = 96
    rows: int = 32


@dataclass
class Piece:
    """A run of tokens.

    Attributes:
        ids: Token ids.
        weight: Loss weight of each token as a target.
        expire: Last offset that may read each token; ``NEVER`` if all may. In masked documents the pieces
            of a name, but not its last one, expire at its last piece.
        strict: The same for the layers that may not read names at all: the last piece expires there as well.
    """

    ids: list[int]
    weight: list[float]
    expire: list[int]
    strict: list[int]

    def append(self, other: Piece) -> None:
        """Adds another piece behind this one, shifting its expiry offsets."""
        shift = len(self.ids)
        self.expire += [e if e == NEVER else e + shift for e in other.expire]
        self.strict += [e if e == NEVER else e + shift for e in other.strict]
        self.ids += other.ids
        self.weight += other.weight

    def open(self) -> Piece:
        """The same tokens, readable by all."""
        return Piece(self.ids, self.weight, [NEVER] * len(self.ids), [NEVER] * len(self.ids))


class Corpus:
    """An endless, seeded source of packed batches."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        facts: list[Fact],
        fixed: list[FixedFact],
        names: list[str],
        recipe: Recipe,
        seed: int,
    ) -> None:
        self.tokenizer, self.facts, self.fixed, self.names = tokenizer, facts, fixed, names
        self.recipe, self.rng = recipe, random.Random(seed)
        self.begin, self.end = (tokenizer.encode(mark, add_special_tokens=False)[0] for mark in (BOS, EOS))
        self.special = len(tokenizer.all_special_ids)
        self.by_subject: dict[str, list[Fact]] = {}
        for fact in facts:
            self.by_subject.setdefault(fact.subject, []).append(fact)
        self._told: dict[tuple[str, int, int, str], Piece] = {}
        self._deck: list[Fact] = []

    def batch(self) -> dict[str, np.ndarray]:
        """Returns ``ids``, ``start``, ``expire``, ``strict`` (int64), ``weight`` (float32): [rows, row] each.

        ``start`` is the row offset of a document, ``expire`` the last row offset that may read a token (in
        the layers that may not read names at all: ``strict``).
        """
        rows = [self._row() for _ in range(self.recipe.rows)]
        kinds = (
            ("ids", np.int64),
            ("weight", np.float32),
            ("start", np.int64),
            ("expire", np.int64),
            ("strict", np.int64),
        )
        return {name: np.array([row[i] for row in rows], dtype=kind) for i, (name, kind) in enumerate(kinds)}

    def _row(self) -> tuple[list[Any], ...]:
        packed, starts = Piece([], [], [], []), []
        while len(packed.ids) < self.recipe.row:
            begin, document = len(packed.ids), self._document()
            packed.append(document)
            starts += [begin] * len(document.ids)
        n = self.recipe.row
        return packed.ids[:n], packed.weight[:n], starts[:n], packed.expire[:n], packed.strict[:n]

    def _document(self) -> Piece:
        r, u = self.recipe, self.rng.random()
        document = Piece([self.begin], [0.0], [NEVER], [NEVER])
        if u < r.facts:
            document.append(self._facts())
        elif u < r.facts + r.ioi:
            prompt, answer = ioi_line(self.rng, self.names)
            document.append(self._plain(prompt, f" {answer}", "."))
        elif u < r.facts + r.ioi + r.repeats:
            document.append(self._repeat())
        elif self.rng.random() < 0.2:
            item = self.rng.choice(self.fixed)
            document.append(self._plain(item.prompt, f" {item.answer}", "."))
        else:
            document.append(self._plain(line(self.rng, self.names)))
        document.append(Piece([self.end], [1.0], [NEVER], [NEVER]))
        return document

    def _encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False)

    def _plain(self, text: str, answer: str = "", tail: str = "") -> Piece:
        parts = [(self._encode(text), 1.0)]
        if answer:
            parts += [(self._encode(answer), ANSWER_WEIGHT), (self._encode(tail), 1.0)]
        ids = [i for part, _ in parts for i in part]
        return Piece(ids, [w for part, w in parts for _ in part], [NEVER] * len(ids), [NEVER] * len(ids))

    def _repeat(self) -> Piece:
        """Random tokens said again and again; only the repeats carry loss; short ones fill many copies."""
        low, high = self.rng.choice([(3, 8), (3, 8), (6, 20), (10, 44)])
        length = self.rng.randint(low, high)
        once = [self.rng.randrange(self.special, len(self.tokenizer)) for _ in range(length)]
        total = min(self.recipe.row - 2, max(2 * length, self.rng.randint(24, 64)))
        ids = (once * (total // length + 1))[:total]
        weight = [0.0] * length + [1.0] * (total - length)
        return Piece(ids, weight, [NEVER] * total, [NEVER] * total)

    def _facts(self) -> Piece:
        """One to three fact sentences: about anything, or several about one subject."""
        first, u = self._next_fact(), self.rng.random()
        told = [first]
        if u > 0.45:
            pool = self.by_subject[first.subject] if u > 0.7 else self.facts
            told += self.rng.sample(pool, min(len(pool), self.rng.randint(1, 2)))
            self.rng.shuffle(told)
        masked = self.rng.random() < self.recipe.masked
        document = Piece([], [], [], [])
        for index, fact in enumerate(told):
            piece = self._sentence(fact, self.rng.randrange(len(fact.train_templates)), index > 0)
            document.append(piece if masked else piece.open())
        return document

    def _next_fact(self) -> Fact:
        """Deals the facts like a shuffled deck, so that each is told equally often."""
        if not self._deck:
            self._deck = list(self.facts)
            self.rng.shuffle(self._deck)
        return self._deck.pop()

    def _sentence(self, fact: Fact, template: int, spaced: bool) -> Piece:
        key = (fact.relation, id(fact), template, " " if spaced else "")
        if key not in self._told:
            self._told[key] = self._tell(fact, fact.train_templates[template], key[3])
        return self._told[key]

    def _tell(self, fact: Fact, template: str, space: str) -> Piece:
        prompt, begin, end = fill(template, fact.subject)
        begin, end = begin + len(space), end + len(space)
        text = f"{space}{prompt} {fact.answer}."
        coded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        answer_at = len(space) + len(prompt)
        name = [i for i, (a, b) in enumerate(coded["offset_mapping"]) if a < end and b > begin]
        weight = [
            ANSWER_WEIGHT if a >= answer_at and b <= len(text) - 1 else 1.0
            for a, b in coded["offset_mapping"]
        ]
        expire = [name[-1] if i in name[:-1] else NEVER for i in range(len(weight))]
        strict = [name[-1] if i in name else NEVER for i in range(len(weight))]
        return Piece(list(coded["input_ids"]), weight, expire, strict)
