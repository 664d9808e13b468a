"""Experiments that are ready to be run: words chosen by the bundled model, and candle-mi's rhymes.

Features of the bundled model's transcoder are not listed but picked (`planning_features`) when they are
needed: from the other prompt the features to inject, from the prompt itself those to suppress. Features of
the rhymes are those of candle-mi's files; their models and transcoders (19 to 159 GB) must be in the cache.
"""

from dataclasses import dataclass

_STARS = (
    "The stars were twinkling in the night,\nThe lanterns cast a golden light.\n"
    "She wandered in the dark about,\nAnd found a hidden passage "
)
_BIRDS = (
    "The birds were singing in the tree,\nAnd everything was wild and free.\n"
    "The river ran down to the sea,\nThere is so much we cannot "
)


@dataclass(frozen=True, slots=True)
class PlanningPreset:
    """One experiment.

    Attributes:
        name: for people.
        model: the model it is for; "" = the bundled one.
        transcoder: likewise.
        prompt: ends just before the word.
        answer: the word that is pushed up, with the space that belongs to it.
        distractor: the word that is pushed down.
        other_prompt: a prompt whose word is `answer`; its features are injected. Empty where features are
            listed.
        inject: features, if they are listed.
        suppress: likewise.
        count: how many features at most are picked from the other prompt, to be injected.
        count_down: how many at most from the prompt itself, to be suppressed.
        strength: how many times their rows are added.
        note: what is known of it, a sentence.
    """

    name: str
    model: str
    transcoder: str
    prompt: str
    answer: str
    distractor: str
    other_prompt: str = ""
    inject: str = ""
    suppress: str = ""
    count: int = 12
    count_down: int = 12
    strength: float = 10.0
    note: str = ""


PRESETS: dict[str, PlanningPreset] = {
    "rome": PlanningPreset(
        "Word choice: from Madrid to Rome (bundled model)", "", "", "The capital city of Spain is", " Rome",
        " Madrid", other_prompt="The capital city of Italy is", strength=3.0,
        note="Features injected and features suppressed: together they do what neither does alone (tested).",
    ),
    "warsaw": PlanningPreset(
        "Word choice: from Berlin to Warsaw (bundled model)", "", "", "The government of Germany sits in",
        " Warsaw", " Berlin", other_prompt="The government of Poland sits in", strength=8.0,
        note="The push acts at the country's name, before the word is due: a mediated effect (tested).",
    ),
    "tokyo": PlanningPreset(
        "Word choice: from Rome to Tokyo, nothing suppressed (bundled model)", "", "",
        "The capital city of Italy is", " Tokyo", " Rome", other_prompt="The capital city of Japan is",
        count_down=0, strength=8.0,
        note="Injected features alone bring the other word, from the country's name on (tested).",
    ),
    "llama-524k": PlanningPreset(
        "Rhyme: free or that (Llama 3.2 1B, 524k)", "meta-llama/Llama-3.2-1B", "mntss/clt-llama-3.2-1b-524k",
        _BIRDS, " that", " free", inject="L14F13043", suppress="L13F30985,L9F5488,L14F27874,L13F32049",
        note="candle-mi found 1.06e-6 before and 0.687 at token 30, the output position (its file).",
    ),
    "gemma-426k": PlanningPreset(
        "Rhyme: out or around (Gemma 2 2B, 426k)", "google/gemma-2-2b", "mntss/clt-gemma-2-2b-426k", _STARS,
        " around", " out", inject="L22F10243", suppress="L16F13725,L25F9385",
        note="candle-mi found 4.84e-8 before and 0.457 at token 31, the output position (its file).",
    ),
    "gemma-2.5M": PlanningPreset(
        "Rhyme: out or can (Gemma 2 2B, 2.5M)", "google/gemma-2-2b", "mntss/clt-gemma-2-2b-2.5M", _STARS,
        " can", " out", inject="L25F82839", suppress="L25F57092,L23F49923,L20F77102",
        note="candle-mi found 1.89e-11 before and 0.464 at token 31, the output position.",
    ),
}  # fmt: skip
