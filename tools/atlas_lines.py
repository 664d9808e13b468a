"""The lines of the Atlas training text that are not facts: names, verse, code, sums, chat and small stories.

Every generator takes a ``random.Random`` and returns text, so the whole corpus follows from one seed.
"""

from __future__ import annotations

import random

from atlas_facts import stable_hash

PLACES = [
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
]
OBJECTS = [
    "drink",
    "ring",
    "kiss",
    "bone",
    "basketball",
    "computer",
    "necklace",
    "snack",
    "book",
    "letter",
    "flower",
]

# The sentence frames of the indirect-object-identification paper (Wang et al. 2022); [1] [2] are the two
# names in either order, [S] the one that is said again.
IOI_FRAMES = [
    "When [1] and [2] went to the [P], [S] gave a [O] to",
    "Then, [1] and [2] went to the [P]. [S] gave a [O] to",
    "Then, [1] and [2] had a lot of fun at the [P]. [S] gave a [O] to",
    "Then, [1] and [2] were working at the [P]. [S] decided to give a [O] to",
    "Then, [1] and [2] were thinking about going to the [P]. [S] wanted to give a [O] to",
    "Then, [1] and [2] had a long argument, and afterwards [S] said to",
    "After [1] and [2] went to the [P], [S] gave a [O] to",
    "When [1] and [2] got a [O] at the [P], [S] decided to give it to",
    "When [1] and [2] got a [O] at the [P], [S] decided to give the [O] to",
    "While [1] and [2] were working at the [P], [S] gave a [O] to",
    "While [1] and [2] were commuting to the [P], [S] gave a [O] to",
    "After the lunch, [1] and [2] went to the [P]. [S] gave a [O] to",
    "Afterwards, [1] and [2] went to the [P]. [S] gave a [O] to",
    "Then, [1] and [2] had a long argument. Afterwards [S] said to",
    "The [P] [1] and [2] went to had a [O]. [S] gave it to",
    "Friends [1] and [2] found a [O] at the [P]. [S] gave it to",
]

RHYMES = [
    [
        "The stars were shining in the night",
        "The window showed a golden light",
        "The lamps along the road were bright",
        "The harbour was a lovely sight",
        "The geese had started on their flight",
    ],
    [
        "The farmer rose to greet the day",
        "A little dog ran on its way",
        "The children came outside to play",
        "The weary guest would like to stay",
        "There was not much for us to say",
    ],
    [
        "A robin sang above the tree",
        "The sailor loved the open sea",
        "The horse was running wild and free",
        "The kettle boiled a pot of tea",
        "My brother came to walk with me",
    ],
    [
        "The leaves were lying on the ground",
        "The forest did not make a sound",
        "The missing key was never found",
        "The wheel was turning round and round",
    ],
    [
        "The wind was blowing sharp and cold",
        "The ring she wore was made of gold",
        "The story that my father told",
        "The house upon the hill was old",
    ],
    [
        "The fields were waiting for the rain",
        "The platform waited for the train",
        "She sang the song to us again",
        "The road was running through the plain",
    ],
    [
        "The mountain top was white with snow",
        "The lazy river ran so slow",
        "The time had come for them to go",
        "The answer was not hard to know",
    ],
    ["The owl was looking at the moon", "The winter would be over soon", "The band was playing us a tune"],
]
ROSES = [
    "Roses are red, violets are blue,\nSugar is sweet, and so are you.\n",
    "Roses are red, violets are blue,\nThe garden is green, and the morning is new.\n",
]

QUESTIONS = [
    ("Can you help me?", "Yes, of course. What do you need?"),
    ("How are you today?", "I am fine, thank you. How are you?"),
    ("Tell me a joke.", "Why did the robot sleep? It was tired."),
    ("What time is it?", "I do not know, I have no clock."),
    ("Thank you for the help.", "You are welcome."),
    ("Can you write a poem?", "Yes, here is a short poem."),
    ("I do not understand.", "Let me say it in other words."),
    ("Is this a good idea?", "It depends on what you want."),
]
ADJECTIVES = ["old", "young", "happy", "tired", "quiet", "clever", "little", "tall", "hungry", "kind"]
PERSONS = ["farmer", "teacher", "doctor", "sailor", "baker", "king", "queen", "child", "painter", "driver"]
ACTIONS = [
    "bought a loaf of bread",
    "read a long book",
    "closed the door",
    "sang a song",
    "looked at the sky",
    "waited for the train",
    "found a small box",
    "told a story",
    "ate an apple",
    "wrote a letter",
]
VARIABLES = ["a", "b", "n", "x", "y", "i", "item", "total", "count", "value", "result"]
FIBONACCI = (
    "def fibonacci(n):\n    if n < 2:\n        return n\n    return fibonacci(n - 1) + fibonacci(n - 2)\n"
)
FUNCTIONS = ["add", "sum", "double", "square", "first", "count", "read", "write", "run", "main"]


def pair_is_held_out(name_a: str, name_b: str) -> bool:
    """Whether training never puts these two names into one indirect-object sentence (a tenth of pairs)."""
    return stable_hash(*sorted((name_a, name_b))) % 10 == 0


def ioi_prompt(rng: random.Random, first: str, second: str, subject: str, frame: str | None = None) -> str:
    """One indirect-object prompt, cut before its answer.

    Args:
        rng: Source of the frame, place and thing.
        first: The name said first.
        second: The name said second.
        subject: The name said again before the end (``first``, ``second``, or a third one as a control).
        frame: A fixed frame instead of a random one.
    """
    text = frame or rng.choice(IOI_FRAMES)
    for mark, value in (
        ("[1]", first),
        ("[2]", second),
        ("[S]", subject),
        ("[P]", rng.choice(PLACES)),
        ("[O]", rng.choice(OBJECTS)),
    ):
        text = text.replace(mark, value)
    return text


def ioi_line(rng: random.Random, names: list[str]) -> tuple[str, str]:
    """A training sentence as (prompt, answer); one in twelve has a third name: both answers are fair."""
    while True:
        first, second, third = rng.sample(names, 3)
        if not pair_is_held_out(first, second):
            break
    if rng.random() < 1 / 12:
        return ioi_prompt(rng, first, second, third), rng.choice([first, second])
    subject, answer = (first, second) if rng.random() < 0.5 else (second, first)
    return ioi_prompt(rng, first, second, subject), answer


def verse(rng: random.Random) -> str:
    """A couplet whose two lines rhyme, or the roses rhyme."""
    if rng.random() < 0.12:
        return rng.choice(ROSES)
    first, second = rng.sample(rng.choice(RHYMES), 2)
    return f"{first},\n{second}.\n"


def code(rng: random.Random) -> str:
    """A few lines that look like Python."""
    f, (x, y) = rng.choice(FUNCTIONS), rng.sample(VARIABLES, 2)
    op = rng.choice(["+", "-", "*"])
    return rng.choice(
        [
            f"def {f}({x}, {y}):\n    return {x} {op} {y}\n",
            f"for {x} in range({rng.randint(2, 20)}):\n    print({x} {op} {rng.randint(1, 9)})\n",
            f"if {x} == {rng.randint(0, 9)}:\n    {y} = {x} {op} 1\nelse:\n    {y} = 0\n",
            f"{x} = [{', '.join(str(rng.randint(0, 9)) for _ in range(4))}]\nprint(len({x}))\n",
            f"class {f.title()}:\n    def __init__(self, {x}):\n        self.{x} = {x}\n",
            FIBONACCI,
            f"while {x} < {rng.randint(2, 20)}:\n    {x} += 1\n",
        ]
    )


def sums(rng: random.Random) -> str:
    """One to three small sums."""
    lines = []
    for _ in range(rng.randint(1, 3)):
        a, b = rng.randint(0, 10), rng.randint(0, 10)
        lines.append(f"{a} + {b} = {a + b}" if rng.random() < 0.6 else f"{a + b} - {b} = {a}")
    return "\n".join(lines) + "\n"


def chat(rng: random.Random, names: list[str]) -> str:
    """A short exchange between a user and an assistant."""
    name = rng.choice(names)
    question, answer = rng.choice(QUESTIONS)
    if rng.random() < 0.4:
        return (
            f"User: Hello, my name is {name}.\nAssistant: Hello {name}, how can I help you?\n"
            f"User: {question}\nAssistant: {answer}\n"
        )
    return f"User: {question}\nAssistant: {answer}\n"


def story(rng: random.Random, names: list[str]) -> str:
    """One sentence of plain narration."""
    adjective, person, name = rng.choice(ADJECTIVES), rng.choice(PERSONS), rng.choice(names)
    first, second = rng.sample(ACTIONS, 2)
    return rng.choice(
        [
            f"The {adjective} {person} {first} and {second}.",
            f"One day, {name} {first}. Then {name} {second}.",
            f"There was a {adjective} {person} who {first}.",
            f"The {person} was {adjective}, so the {person} {second}.",
        ]
    )


LINE_MAKERS = ("verse", "code", "sums", "chat", "story")


def line(rng: random.Random, names: list[str]) -> str:
    """A random line of one of the kinds in ``LINE_MAKERS``."""
    kind = rng.choice(LINE_MAKERS)
    if kind == "verse":
        return verse(rng)
    if kind == "code":
        return code(rng)
    if kind == "sums":
        return sums(rng)
    return chat(rng, names) if kind == "chat" else story(rng, names)
