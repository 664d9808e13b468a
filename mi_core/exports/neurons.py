"""The figures of neurons: drawing, table, caption, checks and recipe together, ready to leave."""

from typing import TYPE_CHECKING, Any

from mi_core.analyses.neuron_inputs import Measure
from mi_core.analyses.neuron_prompt_result import NeuronPromptResult
from mi_core.analyses.neuron_record import (
    category_frame,
    context_frame,
    histogram_frame,
    vocabulary_frame,
)
from mi_core.analyses.neuron_result import NeuronResult, Sign
from mi_core.analyses.neuron_survey_result import NeuronSurveyResult
from mi_core.analyses.neuron_text_result import NeuronTextResult
from mi_core.charts import neuron as charts
from mi_core.charts import neuron_prompt as maps
from mi_core.charts import neuron_survey as surveys
from mi_core.charts.text import token_label
from mi_core.exports import captions_neurons as captions
from mi_core.exports.analysis_figure import analysis_figure
from mi_core.exports.figure import Figure
from mi_core.exports.references import NEURONS

if TYPE_CHECKING:
    import pandas as pd

# What a recipe compares: numbers that rounding on another machine moves a little, not the order of near ties
# (two texts that begin alike) nor counts at the edge of a bin.
SURVEY_ARRAYS = ("token_counts", "layer_peak", "layer_mean_absolute", "layer_share_active")
ARRAYS = ("text_length", "activations", "edges", "category_mean", "category_low", "category_high")
PROMPT_ARRAYS = ("values", "sizes")


def survey_figure(
    result: NeuronSurveyResult,
    measure: Measure = "peak",
    category: str | None = None,
    *,
    chosen: tuple[int, int] | None = None,
) -> Figure:
    """Leading neurons by layer; arguments as in `charts.neuron_survey.survey_heatmap`."""
    return _figure(
        result,
        analysis="neuron_survey",
        title="Leading neurons of every layer",
        spec=surveys.survey_heatmap(result, measure, category, chosen=chosen),
        view={"figure": "survey", "measure": measure, "category": category, "chosen": _listed(chosen)},
        caption=captions.survey_caption(result, measure, category),
        how_to_read=captions.SURVEY,
        description=surveys.describe_survey(result, measure, category),
        frame=result.to_frame,
        function="neuron_survey",
        arrays=SURVEY_ARRAYS,
    )


def layers_figure(result: NeuronSurveyResult, *, chosen: int | None = None) -> Figure:
    """Shares over layers."""
    return _figure(
        result,
        analysis="neuron_survey",
        title="How often neurons are above 0",
        spec=surveys.layer_lines(result, chosen=chosen),
        view={"figure": "layers", "chosen": chosen},
        caption=captions.layers_caption(result),
        how_to_read=captions.LAYERS,
        description="Shares of active and of silent neurons over layers.",
        frame=result.to_frame,
        function="neuron_survey",
        arrays=SURVEY_ARRAYS,
    )


def map_figure(result: NeuronPromptResult, position: int, *, chosen: tuple[int, int] | None = None) -> Figure:
    """Leading neurons of a prompt; arguments as in `charts.neuron_prompt.prompt_map`."""
    return _figure(
        result,
        analysis="neuron_prompt",
        title="Leading neurons of the prompt",
        spec=maps.prompt_map(result, position, chosen=chosen),
        view={"figure": "map", "position": position, "chosen": _listed(chosen)},
        caption=captions.map_caption(result, position),
        how_to_read=captions.MAP,
        description=maps.describe_map(result, position),
        frame=result.to_frame,
        function="neuron_prompt",
        arrays=PROMPT_ARRAYS,
    )


def cell_figure(
    result: NeuronPromptResult, layer: int, position: int, *, chosen: int | None = None
) -> Figure:
    """Leading neurons of one layer at one token; arguments as in `charts.neuron_prompt.cell_bars`."""
    token = token_label(position, result.tokens[position])
    return _figure(
        result,
        analysis="neuron_prompt",
        title=f"Leading neurons of layer {layer} at {token}",
        spec=maps.cell_bars(result, layer, position, chosen=chosen),
        view={"figure": "cell", "layer": layer, "position": position, "chosen": chosen},
        caption=captions.cell_caption(result, layer, position),
        how_to_read=captions.CELL,
        description=maps.describe_cell(result, layer, position),
        frame=lambda: _cell_frame(result, layer, position),
        function="neuron_prompt",
        arrays=PROMPT_ARRAYS,
    )


def text_figure(result: NeuronTextResult, title: str, *, chosen: int | None = None) -> Figure:
    """A text in the neuron's colours; arguments as in `charts.neuron.text_chart`."""
    return _figure(
        result,
        analysis="neuron_text",
        title=title,
        spec=charts.text_chart(result, chosen=chosen),
        view={"figure": "text", "chosen": chosen},
        caption=captions.text_caption(result),
        how_to_read=captions.TEXT,
        description=charts.describe_text(result),
        frame=result.to_frame,
        function="neuron_text",
        arrays=("activations",),
    )


def contexts_figure(
    result: NeuronResult, *, count: int = 10, sign: Sign = "strongest", around: int | None = 16
) -> Figure:
    """Top contexts; arguments as in `NeuronResult.contexts`."""
    contexts = result.contexts(count, sign=sign, around=around)
    return _figure(
        result,
        analysis="neuron",
        title="Top contexts",
        spec=charts.context_rows(result, contexts),
        view={"figure": "contexts", "count": count, "sign": sign, "around": around},
        caption=captions.contexts_caption(result, contexts, sign),
        how_to_read=captions.CONTEXTS,
        description=charts.describe_contexts(contexts),
        frame=lambda: context_frame(result, contexts),
        function="neuron",
        arrays=ARRAYS,
    )


def histogram_figure(result: NeuronResult, *, marks: tuple[tuple[float, str], ...] = ()) -> Figure:
    """Histogram over the set; arguments as in `charts.neuron.activation_histogram`."""
    return _figure(
        result,
        analysis="neuron",
        title="Activations over the texts",
        spec=charts.activation_histogram(result, marks=marks),
        view={"figure": "histogram", "marks": [list(mark) for mark in marks]},
        caption=captions.histogram_caption(result),
        how_to_read=captions.HISTOGRAM,
        description=charts.describe_histogram(result),
        frame=lambda: histogram_frame(result),
        function="neuron",
        arrays=ARRAYS,
    )


def categories_figure(result: NeuronResult) -> Figure:
    """Mean activation by kind of text."""
    return _figure(
        result,
        analysis="neuron",
        title="Which kinds of text fire it",
        spec=charts.category_bars(result),
        view={"figure": "categories"},
        caption=captions.categories_caption(result),
        how_to_read=captions.CATEGORIES,
        description=charts.describe_categories(result),
        frame=lambda: category_frame(result),
        function="neuron",
        arrays=ARRAYS,
    )


def vocabulary_figure(result: NeuronResult) -> Figure:
    """Promoted and suppressed tokens."""
    return _figure(
        result,
        analysis="neuron",
        title="What it promotes and suppresses",
        spec=charts.vocabulary_bars(result),
        view={"figure": "vocabulary"},
        caption=captions.vocabulary_caption(result),
        how_to_read=captions.VOCABULARY,
        description=charts.describe_vocabulary(result),
        frame=lambda: vocabulary_frame(result),
        function="neuron",
        arrays=ARRAYS,
    )


def _figure(
    result: NeuronSurveyResult | NeuronResult | NeuronTextResult | NeuronPromptResult, **words: Any
) -> Figure:
    return analysis_figure(result, references=NEURONS, **words)


def _cell_frame(result: NeuronPromptResult, layer: int, position: int) -> "pd.DataFrame":
    """The rows of one layer and token."""
    frame = result.to_frame()
    here = (frame["layer"] == layer) & (frame["position"] == position)
    return frame.loc[here].reset_index(drop=True)


def _listed(chosen: tuple[int, int] | None) -> list[int] | None:
    return None if chosen is None else list(chosen)
