"""Facts of the bundled model Atlas: tables, templates and the held-out split.

The tables below ``assets/atlas/data`` are tab-separated, one subject per row; ``relations.json`` says which
column of which table is a relation and in which sentences it is told. Every (subject, relation) pair keeps
some templates for training and holds out the others, chosen by a hash, so that the split never depends on a
random state.
"""

from __future__ import annotations

import csv
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DATA_DIR = Path(__file__).resolve().parent.parent / "assets" / "atlas" / "data"
HELD_OUT_PER_FACT = 2


@dataclass(frozen=True)
class Fact:
    """One (subject, relation, object) triple.

    Attributes:
        relation_id: Wikidata-style property id, such as ``P36``.
        relation: What the relation is, in words.
        subject: Name as written in the middle of a sentence.
        answer: The object, without a leading space.
        train_templates: Sentences with ``{}`` that the training set may use for this subject.
        held_templates: Sentences that training never shows with this subject.
    """

    relation_id: str
    relation: str
    subject: str
    answer: str
    train_templates: tuple[str, ...]
    held_templates: tuple[str, ...]


@dataclass(frozen=True)
class FixedFact:
    """A prompt with one answer that belongs to no table (``Water boils at`` -> ``100``)."""

    prompt: str
    answer: str


def stable_hash(*parts: str) -> int:
    """Returns a non-negative integer that depends on the text only (not on the Python process)."""
    digest = hashlib.sha256("\x1f".join(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big")


def read_table(path: Path) -> list[dict[str, str]]:
    """Reads one tab-separated table; empty and absent cells both become ``""``."""
    with path.open(encoding="utf-8", newline="") as handle:
        rows = csv.DictReader(handle, delimiter="\t", quoting=csv.QUOTE_NONE)
        return [{key: value or "" for key, value in row.items() if key} for row in rows]


def split_templates(relation: dict[str, Any], subject: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Splits the templates of a relation into (training, held out) for one subject.

    Templates in ``never_held`` also open longer ones ("is in" and "is in downtown"): held out, their right
    continuation would be open, so they are always trained and never tested.
    """
    free = [text for text in relation["templates"] if text not in relation.get("never_held", ())]
    ranked = sorted(free, key=lambda text: stable_hash(relation["name"], subject, text))
    held = set(ranked[:HELD_OUT_PER_FACT])
    templates = relation["templates"]
    return tuple(t for t in templates if t not in held), tuple(t for t in templates if t in held)


def load_facts(data_dir: Path = DATA_DIR) -> list[Fact]:
    """Loads every fact of every relation, in the order of ``relations.json``."""
    spec = json.loads((data_dir / "relations.json").read_text(encoding="utf-8"))
    facts: list[Fact] = []
    for relation in spec["relations"]:
        wanted = set(relation.get("limit_to", ()))
        for row in read_table(data_dir / relation["table"]):
            subject, answer = row["subject"], row[relation["column"]]
            if not answer or (wanted and subject not in wanted):
                continue
            if relation.get("inverse"):
                subject, answer = answer, subject
            train, held = split_templates(relation, subject)
            facts.append(Fact(relation["relation_id"], relation["name"], subject, answer, train, held))
    return facts


def load_fixed(data_dir: Path = DATA_DIR) -> list[FixedFact]:
    """Loads the prompts with a fixed answer."""
    return [FixedFact(row["prompt"], row["answer"]) for row in read_table(data_dir / "fixed_facts.tsv")]


def load_names(data_dir: Path = DATA_DIR) -> list[str]:
    """Loads the first names used in the indirect-object sentences, without repeats."""
    return list(dict.fromkeys((data_dir / "names.txt").read_text(encoding="utf-8").split()))


def fill(template: str, subject: str) -> tuple[str, int, int]:
    """Fills a template and finds the subject in it.

    Returns:
        The text, and the character range ``[start, end)`` of the subject. A subject that opens the sentence
        is capitalised, as in ordinary writing.
    """
    start = template.index("{}")
    name = subject[0].upper() + subject[1:] if start == 0 else subject
    return template.replace("{}", name), start, start + len(name)
