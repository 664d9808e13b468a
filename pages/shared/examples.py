"""Examples to start from: prompts with every setting, and the results that were stored for them.

`assets/presets/make.py` runs the traces on the bundled model and writes one file each; Home shows those
files, so that the first figure is there before the model is. What an example promises (`see`) is checked: a
trace's by the program that stores it, the others' by a test.
"""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import streamlit as st

from mi_core.errors import InputError
from mi_core.transcoders.planning_presets import PRESETS, PlanningPreset
from pages.shared.features_fields import TABS
from pages.shared.steering_fields import EXAMPLE as STEERING_EXAMPLE

if TYPE_CHECKING:
    from mi_core.analyses.causal_trace_inputs import CausalTraceInputs
    from mi_core.analyses.causal_trace_result import CausalTraceResult
    from pages.shared.hub import About

FOLDER = Path(__file__).resolve().parents[2] / "assets" / "presets"
MAX_BYTES = 20_000_000


@dataclass(frozen=True)
class Example:
    """One example.

    Attributes:
        name: file name of its stored result.
        title: short name, for lists.
        question: what it asks, one sentence.
        see: what there is to see, one or two sentences.
        page: name of the page that it opens.
        subject: text of the subject in the prompt; its token positions are in the stored file.
        values: link fields and their values.
    """

    name: str
    title: str
    question: str
    see: str
    page: str
    subject: str = ""
    values: dict[str, Any] = field(default_factory=dict)


def _planning(preset: PlanningPreset) -> dict[str, Any]:
    """A preset of the planning tab as session values."""
    return {
        "prompt": preset.prompt,
        "answer": preset.answer,
        "distractor": preset.distractor,
        "features_tabs": TABS["planning"],
        "planning_source": "pick",
        "planning_other": preset.other_prompt,
        "planning_count": preset.count,
        "planning_count_down": preset.count_down,
        "planning_strength": preset.strength,
    }


TRACES: tuple[Example, ...] = (
    Example(
        "eiffel_tower",
        "A fact and its two sites",
        "Where does the model know that the Eiffel Tower is in Paris?",
        "An early site at the last token of the name, and a late site at the end of the sentence.",
        "causal_trace",
        "Eiffel Tower",
        {"prompt": "The Eiffel Tower is located in the city of"},
    ),
    Example(
        "space_needle",
        "Two landmarks, swapped",
        "Which token carries the difference between Seattle and Paris?",
        "With a second prompt instead of noise, the answer moves from the landmark's name to the last token.",
        "causal_trace",
        "Space Needle",
        {
            "prompt": "The Space Needle is in downtown",
            "second_prompt": "The Eiffel Tower is in downtown",
            "corruption": "prompt",
            "answer": " Seattle",
            "distractor": " Paris",
            "metric": "recovered_logit_difference",
        },
    ),
    Example(
        "capital_of_france",
        "What the answer needs",
        "What breaks when pieces of the Polish run are put into the French one?",
        "The other direction: corrupted values in a clean run show where the answer can be destroyed.",
        "causal_trace",
        "France",
        {
            "prompt": "The capital of France is",
            "second_prompt": "The capital of Poland is",
            "corruption": "prompt",
            "direction": "noising",
            "answer": " Paris",
            "distractor": " Warsaw",
            "metric": "logit_difference",
        },
    ),
    Example(
        "mary_and_john",
        "Who gets the drink",
        "Which attention heads decide between Mary and John?",
        "A few heads carry the name to the end of the sentence; most do nothing.",
        "causal_trace",
        "",
        {
            "prompt": "When Mary and John went to the store, John gave a drink to",
            "second_prompt": "When Mary and John went to the store, Mary gave a drink to",
            "corruption": "prompt",
            "kinds": ["state", "head"],
            "answer": " Mary",
            "distractor": " John",
            "metric": "recovered_logit_difference",
        },
    ),
    Example(
        "severed",
        "Which module puts it there",
        "Is the early site the work of MLPs or of attention?",
        "One MLP output at the name's last token brings the answer back, attention there does not. Severing "
        "the token's later MLPs or attention changes little: the fact is complete early.",
        "causal_trace",
        "Louvre Museum",
        {
            "prompt": "The Louvre Museum is located in the city of",
            "kinds": ["state", "attn", "mlp", "state_attn_severed", "state_mlp_severed"],
        },
    ),
)

"""Examples with a stored result."""

LOOKS: tuple[Example, ...] = (
    Example(
        "repeated_colours",
        "A head that copies",
        "How does the model know what comes next in a list that repeats?",
        "Head L4H3 looks from every colour to the one that followed its earlier copy: an induction head. "
        "L2H0, two layers before it, looks at the token just before.",
        "attention",
        values={
            "prompt": "red blue green gold red blue green gold red blue",
            "selected_layer": 4,
            "selected_head": 3,
        },
    ),
    Example(
        "guess_forming",
        "A guess that forms",
        "At which layer does the model settle on Paris?",
        "Read through the model's own output, the first layers say something else; from layer 2 on the top "
        "token at the end is Paris.",
        "logit_lens",
        values={"prompt": "The Eiffel Tower is located in the city of", "answer": " Paris"},
    ),
    Example(
        "for_and_against",
        "For and against a name",
        "Which parts speak for Mary, and which for John?",
        "The last layers write the difference towards Mary; the attention of layer 4, whose heads copy what "
        "was said last, speaks for John.",
        "attribution",
        values={
            "prompt": "When Mary and John went to the store, John gave a drink to",
            "answer": " Mary",
            "distractor": " John",
        },
    ),
    Example(
        "one_head",
        "One head against the rest",
        "What happens to Mary's lead when one head is taken out?",
        "Without L0H3 Mary leads John by 4.0 logits instead of 7.3; the tab Sweeps takes out every head in "
        "turn, and no other costs half as much.",
        "knockout",
        values={
            "prompt": "When Mary and John went to the store, John gave a drink to",
            "answer": " Mary",
            "distractor": " John",
            "interventions": "L0H3:zero",
        },
    ),
    Example(
        "paris_to_rome",
        "From Paris to Rome",
        "How much of a direction turns the answer?",
        "Six prompts about Italy and France make a vector. Enough of it, added at the last token, makes Rome "
        "the answer; ten random directions of the same length never do.",
        "steering",
        values=dict(STEERING_EXAMPLE),
    ),
    Example(
        "fact_as_graph",
        "A fact as a graph",
        "Through which features does the Tower become Paris?",
        "The strongest feature stands at the name's last token, in layer 0, and leads straight to the end. "
        "Beside it is an error node about as large: what the transcoder does not explain there.",
        "features",
        values={"prompt": "The Eiffel Tower is located in the city of", "features_tabs": TABS["graph"]},
    ),
    Example(
        "planned_word",
        "A word chosen early",
        "Where must features be pushed to turn Madrid into Rome?",
        "Features picked from the Italian sentence replace Spain's: the push works at an earlier token than "
        "the one where the word is written, and random features do next to nothing.",
        "features",
        values=_planning(PRESETS["rome"]),
    ),
)
"""Examples whose result is there as soon as the model is."""

EXAMPLES: tuple[Example, ...] = (*TRACES, *LOOKS)


@dataclass(frozen=True)
class Stored:
    """A stored example.

    Attributes:
        example: what it is.
        values: its link fields, the subject's token positions included.
        result: what the bundled model gave.
    """

    example: Example
    values: dict[str, Any]
    result: CausalTraceResult


def example(name: str) -> Example:
    """The example of that name."""
    return next(item for item in EXAMPLES if item.name == name)


@st.cache_resource(show_spinner=False, max_entries=16)
def stored(name: str) -> Stored | None:
    """The stored result of an example; None when it was not made (a checkout without assets)."""
    from mi_core.analyses.causal_trace_result import CausalTraceResult

    path = FOLDER / f"{name}.json.gz"
    if not path.exists():
        return None
    with gzip.open(path, "rt", encoding="utf-8") as file:
        text = file.read(MAX_BYTES + 1)
    if len(text) > MAX_BYTES:
        raise InputError(f"The stored example {name} is larger than {MAX_BYTES:,} characters")
    record = json.loads(text)
    return Stored(example(name), record["values"], CausalTraceResult.from_json(json.dumps(record["result"])))


def values_of(item: Example) -> dict[str, Any]:
    """Every value that the example sets, with the subject's positions when they are stored."""
    known = stored(item.name)
    return {**item.values, "model": "atlas", **({} if known is None else known.values)}


def stored_result(about: About, inputs: CausalTraceInputs) -> CausalTraceResult | None:
    """The stored result for exactly these inputs on exactly these weights, if an example has it."""
    for item in TRACES:
        known = stored(item.name)
        made_with = None if known is None else known.result.provenance
        if known is None or made_with is None or known.result.inputs != inputs:
            continue
        if (made_with.fingerprint, made_with.dtype) == (about.fingerprint, about.dtype):
            return known.result
    return None
