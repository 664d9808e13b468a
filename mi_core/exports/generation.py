"""The figures of a generation: default and edited text, and KL along the default one."""

from typing import TYPE_CHECKING

import numpy as np

from mi_core.analyses.generation_inputs import steering_lines
from mi_core.analyses.generation_result import GenerationResult
from mi_core.charts import generation as drawings
from mi_core.charts.text import legible, number
from mi_core.exports.analysis_figure import analysis_figure
from mi_core.exports.captions import model_sentence, quoted
from mi_core.exports.figure import Figure

if TYPE_CHECKING:
    import pandas as pd

REFERENCES = ("turner2023activation",)

TEXT_READING = (
    "The same prompt continued by the model as it is (default) and by the edited model, edits live at "
    "every step. Grey = both have the same token at this step. Coloured = changed; the colour is -log P "
    "of the token in nats, for the model that wrote it, before temperature and top_p. Texts are compared "
    "step by step: after the first difference nothing is realigned, so one inserted word marks all that "
    "follows. The framed token is the least likely changed one of its line; its number stands before the "
    "line. With temperature above 0 both texts draw the same random number at each step."
)
KL_READING = (
    "At each step both models have read the prompt and the same tokens: the default continuation so far. "
    "KL(default || edited) compares what they would say next, over the whole vocabulary, in nats; 0 = the "
    "edit changes nothing here. It does not look at what the edited model wrote itself."
)


def texts_figure(result: GenerationResult, row: int) -> Figure:
    """Both texts of one seed."""
    first = int(result.first_difference[row])
    changed = int(result.changed[row].sum())
    there = int(((result.default_ids[row] >= 0) | (result.edited_ids[row] >= 0)).sum())
    parts = [
        f"Continuations of {quoted(result.inputs.prompt)} by the default and by the edited model, step 1 to "
        f"{there}; {_sampling(result, row)}.",
        "Both are the same."
        if first < 0
        else f"First different at step {first + 1}; {changed} of n = {there} steps changed, counted by "
        "position (after the first difference nothing is realigned).",
        f"Edits: {edits_sentence(result)}.",
        f"The default text ended by {_ended(result.default_stopped[row])}, the edited one by "
        f"{_ended(result.edited_stopped[row])}.",
        "Grey = unchanged; colour and number before a line: -log P of a changed token in nats, 0 = certain.",
        model_sentence(result.provenance),
    ]
    return analysis_figure(
        result, analysis="generation", title="Default and edited text",
        spec=drawings.generation_texts(result, row), view={"figure": "texts", "seed": result.seeds[row]},
        caption=legible(" ".join(one for one in parts if one)), how_to_read=TEXT_READING,
        description=drawings.describe_texts(result, row),
        frame=lambda: metric_table(result, "log_probability", result.seeds[row]), references=REFERENCES,
        function="generation", arrays=("default_ids", "edited_ids", "edited_log_probabilities"),
    )  # fmt: skip


def kl_figure(result: GenerationResult) -> Figure:
    """KL at every step."""
    count = int(np.isfinite(result.kl).sum())
    caption = (
        f"KL(default || edited) at each step of the default continuation of {quoted(result.inputs.prompt)}, "
        f"n = {count} steps of {_texts(len(result.seeds))}, in nats; 0 = the edit changes nothing there. "
        f"Edits: {edits_sentence(result)}. {model_sentence(result.provenance)}"
    )
    return analysis_figure(
        result, analysis="generation", title="How far the edit pushes at each step",
        spec=drawings.kl_lines(result), view={"figure": "kl"}, caption=legible(caption),
        how_to_read=KL_READING, description=drawings.describe_kl(result),
        frame=lambda: metric_table(result, "kl_default_edited", None), references=REFERENCES,
        function="generation", arrays=("kl",),
    )  # fmt: skip


def edits_sentence(result: GenerationResult) -> str:
    """What was done to the model, a clause."""
    asked = result.inputs
    said = [asked.interventions.strip()] if asked.interventions.strip() else []
    if asked.plus:
        said.append(
            f"{number(asked.coefficient)} x (end of {_source(asked.plus)} - end of {_source(asked.minus)}) "
            f"added to the stream after layer {result.layer}"
        )
    where = {"prompt": "prompt tokens", "generated": "generated tokens", "all": "all tokens"}[asked.where]
    return f"{' and '.join(said)} (on {where} where none are named)" if said else "none"


def _source(text: str) -> str:
    lines = steering_lines(text)
    return quoted(text) if len(lines) == 1 else f"{len(lines)} texts, mean ({quoted(lines[0])}, ...)"


def _sampling(result: GenerationResult, row: int) -> str:
    asked = result.inputs
    if asked.temperature == 0:
        return "greedy"
    return f"temperature {asked.temperature:g}, top_p {asked.top_p:g}, seed {result.seeds[row]}"


def _texts(count: int) -> str:
    return "one text" if count == 1 else f"{count} texts (one per seed)"


def _ended(stop: str) -> str:
    return "an end-of-text token" if stop == "eos" else "the number of steps"


def metric_table(result: GenerationResult, metric: str, seed: int | None) -> "pd.DataFrame":
    """The rows of the result's table that a figure shows; see `GenerationResult.to_frame`."""
    import pandas as pd

    frame = result.to_frame()
    kept = frame["metric"] == metric
    if seed is not None:
        kept &= frame["seed"] == seed
    return pd.DataFrame(frame[kept]).reset_index(drop=True)
