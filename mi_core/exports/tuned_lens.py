"""The figures of a tuned lens: its quality beside the plain lens, and the course of its training."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mi_core.analyses.tuned_lens_result import TunedLensTrainResult
from mi_core.charts import tuned_lens as charts
from mi_core.exports.analysis_figure import analysis_figure
from mi_core.exports.captions import model_sentence
from mi_core.exports.figure import Figure

if TYPE_CHECKING:
    import pandas as pd

REFERENCES = ("belrose2023eliciting",)

QUALITY_READING = (
    "A lens reads the residual state that enters a layer as if it were the last one: through the model's "
    "own final norm and unembedding. The plain lens takes the state as it is. The tuned lens adds one "
    "affine map per layer first, h + h W^T + b, trained so that the reading comes close to the model's "
    "final output (Belrose et al., 2023). The height of a line is KL(model || lens) = sum over tokens v "
    "of p_v (log p_v - log q_v), averaged over positions: how many nats the lens misses of what the model"
    " says in the end; 0 = nothing. Where the tuned line is lower, the layer knew more than the plain "
    "lens could show. Both were measured on text that was neither trained on nor used to decide when to "
    "stop. The first token of each context was left out: models rest attention there. A lower line does "
    "not say that the model uses what the lens finds."
)
COURSE_READING = (
    "KL(model || tuned lens) on a held-out text while the translators are trained; step 0 is the lens "
    "that the training began with. Each layer keeps the translator of its own lowest point, so a curve "
    "that rises again does no harm. The quality figure uses other text."
)


def quality_figure(
    result: TunedLensTrainResult, *, from_layer: int = 0, chosen_layer: int | None = None
) -> Figure:
    """KL per layer, plain against tuned; arguments as in `charts.tuned_lens.quality_lines`."""
    return _figure(
        result,
        title="How much of the final output each lens misses",
        spec=charts.quality_lines(result, from_layer=from_layer, chosen_layer=chosen_layer),
        view={"figure": "quality", "from_layer": from_layer},
        caption=quality_caption(result, from_layer),
        how_to_read=QUALITY_READING,
        description=charts.describe_quality(result),
        text="validation",
    )


def course_figure(result: TunedLensTrainResult) -> Figure:
    """KL on the stopping text over steps."""
    counts, inputs = result.counts, result.inputs
    shown = ", ".join(str(layer) for layer in charts.course_layers(result))
    caption = (
        f"KL(model || tuned lens) at every check, in nats per token, on {counts.stopping_tokens:,} "
        f"held-out tokens ({counts.stopping_contexts:,} contexts); 0 = the model's own output. "
        f"{inputs.optimizer.upper()}, {len(result.loss):,} of {inputs.steps:,} steps of about "
        f"{inputs.batch_tokens:,} tokens. Shown: layers {shown}. "
        f"{model_sentence(result.provenance)}"
    )
    return _figure(
        result,
        title="Course of the training",
        spec=charts.course_lines(result),
        view={"figure": "course"},
        caption=caption,
        how_to_read=COURSE_READING,
        description=charts.describe_course(result),
        text="stopping",
    )


def quality_caption(result: TunedLensTrainResult, from_layer: int) -> str:
    """What was measured on what, n, unit, zero."""
    counts, inputs = result.counts, result.inputs
    start = f"Tuned lens: {inputs.start!r}" if inputs.start else "Tuned lens"
    trained = (
        f"{start} trained on {counts.training_tokens:,} tokens of {inputs.text_name!r}, read "
        f"{counts.rounds:.1f} times"
        if inputs.steps
        else f"{start}, measured only"
    )
    left_out = f" Layers below {from_layer} are not shown." if from_layer else ""
    return (
        f"KL(model || lens) of the input of each layer, in nats per token; 0 = the model's own output. "
        f"{trained}. Mean over {counts.validation_tokens:,} tokens in {counts.validation_contexts:,} "
        f"held-out contexts of the same text; bands: 95 % bootstraps over contexts.{left_out} "
        f"{model_sentence(result.provenance)}"
    )


def _figure(
    result: TunedLensTrainResult,
    *,
    title: str,
    spec: Mapping[str, Any],
    view: Mapping[str, Any],
    caption: str,
    how_to_read: str,
    description: str,
    text: str,
) -> Figure:
    figure = analysis_figure(
        result,
        analysis="tuned_lens",
        title=title,
        spec=spec,
        view=view,
        caption=caption,
        how_to_read=how_to_read,
        description=description,
        frame=lambda: rows_of(result, text),
        references=REFERENCES,
        function="tuned_lens_train",
        arrays=("plain_kl", "tuned_kl", "stopping_kl"),
    )
    # The text may have megabytes: data.json has it, a picture carries its hash. A training that was stopped
    # somewhere cannot be repeated, so it has no recipe.
    inputs = {name: value for name, value in figure.inputs.items() if name != "texts"}
    return replace(
        figure,
        inputs={**inputs, "text_sha256": result.inputs.text_digest},
        recipe="" if result.cancelled else figure.recipe,
    )


def rows_of(result: TunedLensTrainResult, text: str) -> "pd.DataFrame":
    """The rows of the result's table that belong to one part of the text."""
    import pandas as pd

    frame = result.to_frame()
    return pd.DataFrame(frame[frame["text"] == text]).reset_index(drop=True)
