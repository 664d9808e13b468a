"""Greater-than (years) and subject-verb agreement: sentences made of words that are single tokens."""

import random
from typing import Any

from mi_core.analyses.tasks import Task
from mi_core.analyses.tasks_pairs import make_pair, single_words, too_few
from mi_core.tokens import Bos

EVENTS = (
    "war", "trial", "project", "campaign", "journey", "siege", "study", "treaty", "reform", "dispute",
    "voyage", "marriage", "strike", "career", "plan", "conflict", "work", "raid", "search", "trip",
)  # fmt: skip
CENTURIES = tuple(range(11, 20))
YEAR_FRAME = "The [E] lasted from the year [C][Y] to the year [D]"
FARTHEST = 40  # years between the start and either answer
FIRST_YEAR = "01"  # the counterfactual start: every two digits but 00 and 01 are later

NOUNS = (
    ("key", "keys"), ("book", "books"), ("letter", "letters"), ("picture", "pictures"),
    ("student", "students"), ("teacher", "teachers"), ("doctor", "doctors"), ("friend", "friends"),
    ("brother", "brothers"), ("sister", "sisters"), ("author", "authors"), ("worker", "workers"),
    ("farmer", "farmers"), ("guard", "guards"), ("door", "doors"), ("car", "cars"), ("house", "houses"),
    ("window", "windows"), ("table", "tables"), ("cabinet", "cabinets"), ("manager", "managers"),
    ("king", "kings"), ("queen", "queens"), ("dog", "dogs"), ("cat", "cats"), ("boy", "boys"),
    ("girl", "girls"), ("star", "stars"), ("song", "songs"),
)  # fmt: skip
VERBS = ((" is", " are"), (" was", " were"), (" has", " have"))
LINKS = ("near", "behind", "with", "to", "beside")
MIN_NOUNS = 3
TRIES_PER_PROMPT = 20


def draw_greater_than(tokenizer: Any, n: int, seed: int, bos: Bos) -> Task:
    """See `mi_core.analyses.tasks.greater_than_task`.

    Hanna et al. compare the probability of all later years with that of all earlier ones. Here a pair has one
    later and one earlier answer, equally far from the start, so that a head acts on one logit difference.
    """
    rng, made = random.Random(seed), []
    events = single_words(tokenizer, EVENTS, "The")
    for _ in range(n * TRIES_PER_PROMPT if events else 0):
        if len(made) == n:
            break
        century, start = str(rng.choice(CENTURIES)), rng.randint(12, 88)
        apart = rng.randint(1, min(start - 2, 98 - start, FARTHEST))
        words = {"E": rng.choice(events), "C": century, "Y": f"{start:02d}", "D": century}
        pair = make_pair(
            tokenizer,
            YEAR_FRAME,
            words,
            {**words, "Y": FIRST_YEAR},
            roles={"century": "C", "year": "Y"},
            answer=f"{start + apart:02d}",
            wrong=f"{start - apart:02d}",
            template="years",
            bos=bos,
        )
        if pair is not None:
            made.append(pair)
    if len(made) < n:
        raise too_few(
            "Greater-than cannot be asked of this model",
            "its tokenizer does not split a year such as 1732 into two tokens of two digits",
        )
    note = (
        "Years as in Hanna et al. 2023, one later and one earlier answer equally far from the start; "
        f"counterfactual: the start {FIRST_YEAR}."
    )
    return Task("greater-than", tuple(made), note)


def draw_subject_verb(tokenizer: Any, n: int, seed: int, bos: Bos) -> Task:
    """See `mi_core.analyses.tasks.subject_verb_task`."""
    words = set(single_words(tokenizer, sorted({word for noun in NOUNS for word in noun}), "The"))
    nouns = [noun for noun in dict.fromkeys(NOUNS) if set(noun) <= words]
    links = single_words(tokenizer, LINKS, "key")
    rng, made = random.Random(seed), []
    enough = len(nouns) >= MIN_NOUNS and links
    for _ in range(n * TRIES_PER_PROMPT if enough else 0):
        if len(made) == n:
            break
        (subject, attractor), plural = rng.sample(nouns, 2), len(made) % 2
        link, verbs = rng.choice(links), rng.choice(VERBS)
        fixed = {"L": link, "A": attractor[1 - plural]}
        pair = make_pair(
            tokenizer,
            "The [S] [L] the [A]",
            {"S": subject[plural], **fixed},
            {"S": subject[1 - plural], **fixed},
            roles={"subject": "S", "attractor": "A"},
            answer=verbs[plural],
            wrong=verbs[1 - plural],
            template="plural subject" if plural else "singular subject",
            bos=bos,
        )
        if pair is not None:
            made.append(pair)
    if len(made) < n:
        raise too_few(
            "Subject-verb agreement cannot be asked of this model",
            f"{len(nouns)} nouns are single tokens both as singular and as plural; {MIN_NOUNS} are needed, "
            "and a verb in both numbers",
        )
    note = (
        "Subject and verb with an attractor of the other number between them (Linzen et al. 2016); "
        "counterfactual: the subject in the other number."
    )
    return Task("subject-verb", tuple(made), note)
