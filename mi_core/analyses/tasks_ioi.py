"""Indirect objects: sentence frames, names, and which pairs of names count as unseen.

The frames have the form of Wang et al. 2022, appendix E: two people, a place, a thing, and one of them acts.
The bundled model Atlas was trained on such sentences with a tenth of all name pairs left out; those pairs,
told by a hash, are drawn here for every model. What another model saw in training is not known.
"""

import hashlib
import random
from typing import Any

from mi_core.analyses.tasks import NameOrder, Task, TaskPair
from mi_core.analyses.tasks_pairs import make_pair, single_words, too_few
from mi_core.tokens import Bos

FRAMES: tuple[tuple[str, str], ...] = (
    ("went", "When [1] and [2] went to the [P], [S] gave a [O] to"),
    ("found", "When [1] and [2] got a [O] at the [P], [S] decided to give it to"),
    ("worked", "While [1] and [2] were working at the [P], [S] gave a [O] to"),
    ("then", "Then, [1] and [2] went to the [P]. [S] gave a [O] to"),
)
PLACES = (
    "store",
    "garden",
    "restaurant",
    "school",
    "hospital",
    "office",
    "house",
    "station",
    "market",
    "park",
)
THINGS = ("drink", "ring", "kiss", "bone", "computer", "necklace", "snack", "book", "letter", "flower")
_NAMES = """
Mary John Tom Anna Peter Paul Sarah James David Emma Jack Kate Mark Lucy Adam Alice Bob Carol Dan Eve
Frank Grace Henry Irene Julia Karl Laura Mike Nina Oscar Paula Rachel Sam Tina Victor Wendy Alex Ben
Clara Diana Eric Fiona George Helen Ivan Jane Kevin Linda Max Nora Olga Philip Rose Simon Tony Ursula
Vera Will Amy Brian Chris Dora Edward Felix Greta Hugo Iris Jason Karen Leo Megan Nick Olivia Patrick
Ruth Steve Teresa Vincent Walter Amber Bruce Crystal Daniel Ella Fred Gary Hannah Jacob Kelly Louis
Matthew Nicole Richard Sean Thomas Andrew Jessica Michael Robert Susan William
"""
NAMES = tuple(_NAMES.split())
NAMES_NEEDED = 5  # object and subject, and three others for the counterfactual
TRIES_PER_PROMPT = 20
MIN_UNSEEN_PAIRS = 8  # with fewer, one pair of names would make most of the set


def is_unseen(name: str, other: str) -> bool:
    """Whether Atlas's training left this pair of names out (`tools/atlas_lines.py` has the same rule)."""
    digest = hashlib.sha256("\x1f".join(sorted((name, other))).encode()).digest()
    return int.from_bytes(digest[:8], "big") % 10 == 0


def draw_ioi(tokenizer: Any, n: int, seed: int, order: NameOrder, bos: Bos) -> Task:
    """See `mi_core.analyses.tasks.ioi_task`."""
    names = single_words(tokenizer, NAMES)
    places, things = single_words(tokenizer, PLACES, "the"), single_words(tokenizer, THINGS, "a")
    if len(names) < NAMES_NEEDED or not places or not things:
        raise too_few(
            "Indirect objects cannot be asked of this model",
            f"{len(names)} names, {len(places)} places and {len(things)} things are single tokens of its "
            f"vocabulary; {NAMES_NEEDED} names, a place and a thing are needed",
        )
    every = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    unseen = [pair for pair in every if is_unseen(*pair)]
    pairs = unseen if len(unseen) >= MIN_UNSEEN_PAIRS else every
    orders = ("ABBA", "BABA") if order == "both" else (order,)
    rng, made = random.Random(seed), []
    for _ in range(n * TRIES_PER_PROMPT):
        index = len(made)
        if index == n:
            break
        kind = orders[index % len(orders)]
        title, frame = FRAMES[index // len(orders) % len(FRAMES)]
        pair = _pair(tokenizer, rng, (title, frame, kind), names, rng.choice(pairs), (places, things), bos)
        if pair is not None:
            made.append(pair)
    if len(made) < n:
        raise too_few(
            "Indirect objects cannot be asked of this model",
            "words of the sentences are not in its vocabulary, or names are not single tokens in them",
        )
    kind = "unseen pairs (those that Atlas's training left out)" if pairs is unseen else "pairs"
    note = (
        f"Indirect objects in {min(len(FRAMES), n)} frames in the form of Wang et al. 2022, "
        f"{' and '.join(orders)}; "
        f"{kind} of {len(names)} names that are single tokens; counterfactual: three other names (ABC)."
    )
    return Task("ioi", tuple(made), note)


def _pair(
    tokenizer: Any,
    rng: random.Random,
    form: tuple[str, str, str],
    names: list[str],
    both: tuple[str, str],
    words: tuple[list[str], list[str]],
    bos: Bos,
) -> TaskPair | None:
    """One pair: who acts is drawn, and the counterfactual has three names that are in neither place."""
    title, frame, order = form
    indirect, subject = both if rng.random() < 0.5 else both[::-1]
    others = rng.sample([name for name in names if name not in both], 3)
    fixed = {"P": rng.choice(words[0]), "O": rng.choice(words[1])}
    first, second = (indirect, subject) if order == "ABBA" else (subject, indirect)
    marks = {"IO": "1", "S1": "2", "S2": "S"} if order == "ABBA" else {"IO": "2", "S1": "1", "S2": "S"}
    return make_pair(
        tokenizer,
        frame,
        {"1": first, "2": second, "S": subject, **fixed},
        {"1": others[0], "2": others[1], "S": others[2], **fixed},
        roles=marks,
        answer=f" {indirect}",
        wrong=f" {subject}",
        template=f"{title} {order}",
        bos=bos,
    )
