"""The figures of steering by features: default and steered text, KL, and what held features were."""

import numpy as np

from mi_core.charts import feature_generation as drawings_of_found
from mi_core.charts import generation as drawings
from mi_core.charts.text import legible, number
from mi_core.exports.analysis_figure import analysis_figure
from mi_core.exports.captions import model_sentence, quoted
from mi_core.exports.figure import Figure
from mi_core.exports.generation import KL_READING, TEXT_READING, metric_table
from mi_core.transcoders.feature_generation_result import FeatureGenerationResult

REFERENCES = ("turner2023activation", "ameisen2025circuit")
PUSH_READING = (
    "The features' decoder rows, times the numbers given, are added to every layer that they write to, all "
    "of them together, at every token that is named. Add and suppress push the same everywhere, whether or "
    "not the features are active; for set, scale and ablate the activation is read anew at every token, and "
    "the push is the new activation minus that one. "
)
FOUND_READING = (
    "Each line is a feature that is set, scaled or ablated: the activation that its encoder reads at a "
    "token, with the edits of earlier layers and tokens acting, before its own edit. What is added there is "
    "the new activation minus this one, times the feature's decoder rows. Tokens of the prompt come first, "
    "then those of the steered text; a gap is a token that is not edited. The last token that was chosen is "
    "not read."
)


def pushed_texts_figure(result: FeatureGenerationResult, row: int) -> Figure:
    """Both texts of one seed."""
    texts = result.texts
    first = int(texts.first_difference[row])
    there = int(((texts.default_ids[row] >= 0) | (texts.edited_ids[row] >= 0)).sum())
    changed = int(texts.changed[row].sum())
    parts = [
        f"Continuations of {quoted(result.inputs.prompt)} by the default and by the steered model, step 1 to "
        f"{there}; {_sampling(result, row)}.",
        "Both are the same."
        if first < 0
        else f"First different at step {first + 1}; {changed} of n = {there} steps changed, counted by "
        "position.",
        pushes_sentence(result),
        "Grey = unchanged; colour and number before a line: -log P of a changed token in nats, 0 = certain.",
        model_sentence(result.provenance),
    ]
    return analysis_figure(
        result, analysis="feature_generation", title="Default and steered text",
        spec=drawings.generation_texts(texts, row), view={"figure": "texts", "seed": texts.seeds[row]},
        caption=legible(" ".join(part for part in parts if part)), how_to_read=PUSH_READING + TEXT_READING,
        description=drawings.describe_texts(texts, row),
        frame=lambda: metric_table(texts, "log_probability", texts.seeds[row]), references=REFERENCES,
        function="feature_generation", arrays=("default_ids", "edited_ids", "edited_log_probabilities"),
    )  # fmt: skip


def pushed_kl_figure(result: FeatureGenerationResult) -> Figure:
    """KL at every step."""
    count = int(np.isfinite(result.kl).sum())
    caption = (
        f"KL(default || steered) at each step of the default continuation of {quoted(result.inputs.prompt)}, "
        f"n = {count} steps, in nats; 0 = the push changes nothing there. {pushes_sentence(result)} "
        f"{model_sentence(result.provenance)}"
    )
    return analysis_figure(
        result, analysis="feature_generation", title="How far the features push at each step",
        spec=drawings.kl_lines(result.texts), view={"figure": "kl"}, caption=legible(caption.strip()),
        how_to_read=PUSH_READING + KL_READING, description=drawings.describe_kl(result.texts),
        frame=lambda: metric_table(result.texts, "kl_default_edited", None), references=REFERENCES,
        function="feature_generation", arrays=("kl",),
    )  # fmt: skip


def found_figure(result: FeatureGenerationResult, row: int) -> Figure:
    """What the held features of one seed were at every token, before their edit."""
    seed, found = result.texts.seeds[row], result.found_frame()
    caption = (
        f"Activations of held features before their edit, in {quoted(result.inputs.prompt)} and in the "
        f"steered text ({_sampling(result, row)}); 0 = not active. {pushes_sentence(result)} "
        f"{model_sentence(result.provenance)}"
    )
    return analysis_figure(
        result, analysis="feature_generation", title="What the held features were",
        spec=drawings_of_found.found_lines(result, row), view={"figure": "found", "seed": seed},
        caption=legible(caption.strip()),
        how_to_read=FOUND_READING, description=drawings_of_found.describe_found(result, row),
        frame=lambda: found.loc[found["seed"] == seed, :], references=REFERENCES,
        function="feature_generation", arrays=("found",),
    )  # fmt: skip


def pushes_sentence(result: FeatureGenerationResult) -> str:
    """What was pushed, where and how hard."""
    where = {
        "prompt": "the prompt's tokens but leading special ones",
        "generated": "generated tokens",
        "all": "all tokens but leading special ones",
    }
    pushes = [f"{weight:+g} x {name}" for name, weight in zip(result.features, result.weights, strict=True)]
    listed = ", ".join([*pushes, *map(drawings_of_found.held_name, result.held)])
    return (
        f"Steered at {where[result.inputs.where]}: {listed} (transcoder "
        f"{result.transcoder}); the push is {number(result.ratio)} times as long as the prompt's states "
        "(median)."
    )


def _sampling(result: FeatureGenerationResult, row: int) -> str:
    asked = result.inputs
    if asked.temperature == 0:
        return "greedy"
    return f"temperature {asked.temperature:g}, top_p {asked.top_p:g}, seed {result.texts.seeds[row]}"
