"""The figures of one feature from its weights: drawing, words, numbers and recipe together."""

from typing import TYPE_CHECKING, Any

from mi_core.charts import feature_weights as charts
from mi_core.charts.text import legible, number
from mi_core.exports.analysis_figure import analysis_figure
from mi_core.exports.captions import model_sentence
from mi_core.exports.figure import Figure
from mi_core.transcoders.weights_neighbours_result import (
    ALIKE,
    VIRTUAL_UNIT,
    FeatureNeighboursResult,
)
from mi_core.transcoders.weights_result import FeatureWeightsResult

if TYPE_CHECKING:
    import pandas as pd

REFERENCES = ("ameisen2025circuit", "dunefsky2024transcoders", "geva2022transformer")
# What a recipe compares: numbers, not the order of words that are nearly equal.
ARRAYS = ("targets", "top_values", "decoder_norms", "row_cosines", "read_values", "effect_deviation")
NEIGHBOUR_ARRAYS = ("alike_cosines", "virtual_weights")

EARLY = 2
"""Deeper than this, the stream holds mostly what layers wrote, and embeddings say little about a reader."""
_SCALE = (
    "The final norm has scale 1 here: where its scale is s, one unit of activation adds this effect divided "
    "by s, so the order of the words is right everywhere and the size is not. "
)
_LIMITS = (
    "From the weights alone: it says what the feature would do whenever it is active, not when that is, and "
    "not what later layers make of it."
)
WRITES = (
    "What the feature writes, put through the final norm's gain and the unembedding, relative to the mean "
    "over the vocabulary (a constant there moves no probability). Blue words become more likely when it is "
    f"active, orange ones less. {_SCALE}{_LIMITS} Words further down a list are mostly noise; a feature "
    "whose effects have no long tail (see the histogram) has no word of its own."
)
ROWS = (
    "A feature of a cross-layer transcoder has one row of the decoder for every layer from its own on. The "
    "length of a row is how much one unit of activation writes there; the tooltip has its share of all "
    "squared lengths, also added up from the first layer."
)
COSINES = (
    "1 = the feature writes the same direction to both layers, 0 = directions that have nothing to do with "
    "each other, -1 = it takes back later what it wrote. Rows of length zero are hatched."
)
READS = (
    "The feature's encoder row against the embedding of every token. In the first layers that is most of "
    "what the feature sees; deeper, the stream holds mostly what earlier layers wrote, and these words are a "
    "hint at most. A norm in front of the feature has scale 1 here. " + _LIMITS
)
HISTOGRAM = (
    "How the effects spread over all words. Most features move most words a little, as a bell around zero; a "
    "long tail to the right (skew and excess kurtosis well above 0) is a feature that is about a few words."
)
ALIKE_READ = (
    "Cosine of the encoder's row with those of all other features. Near 1: active on the same inputs, so the "
    "transcoder has split one thing in two; around 0: unrelated."
)
ALIKE_WRITE = (
    "Cosine of what two features write, rows summed over target layers: what reaches the last layer when "
    "nothing in between reacts. Near 1: they do the same; near -1: one undoes the other."
)
VIRTUAL = (
    "What one unit of activation of the upstream feature adds to the pre-activation of the downstream one at "
    "the same token, straight through the residual stream: rows of the decoder, summed over the target "
    "layers that the downstream feature can see, times its encoder row. INDEPENDENT OF THE INPUT: a norm in "
    "front has scale 1, attention and later MLPs are left out, and the two features may never be active "
    "together. Many large virtual weights are interference that no text ever uses; the attribution graph "
    "has the weights that hold on a prompt."
)
_TITLES = {
    "reads alike": "who reads alike",
    "writes alike": "who writes alike",
    "upstream": "upstream (input-independent)",
    "downstream": "downstream (input-independent)",
}
_HOW = {"reads alike": ALIKE_READ, "writes alike": ALIKE_WRITE}


def written_figure(result: FeatureWeightsResult, column: int = 0) -> Figure:
    """Words that are promoted and suppressed; column 0 = all target layers together."""
    where = charts.column_name(result, column)
    caption = (
        f"The {result.top_ids.shape[2]} words that one unit of activation of {result.feature.text} promotes "
        f"most and least ({where}), in logits at scale 1 of the final norm, relative to the mean over the "
        f"vocabulary ({number(float(result.effect_mean[column]))} was taken off). 0 = as the average word. "
        f"Standard deviation over the vocabulary {number(float(result.effect_deviation[column]))}."
    )
    return _weights(
        result,
        title=f"{result.feature.text}: words written ({charts.column_short(result, column)})",
        spec=charts.written_bars(result, column),
        view={"figure": "written", "column": column},
        caption=caption,
        how_to_read=WRITES,
        description=charts.describe_written(result, column),
        frame=lambda: _column_frame(result, column),
    )


def _column_frame(result: FeatureWeightsResult, column: int) -> "pd.DataFrame":
    frame = result.write_frame()
    return frame.loc[frame["target"] == result.columns[column]].reset_index(drop=True)


def by_layer_figure(result: FeatureWeightsResult, *, chosen: int | None = None) -> Figure:
    """Words of every target layer beside each other."""
    return _weights(
        result,
        title=f"{result.feature.text}: words written, layer by layer",
        spec=charts.words_by_layer(result, chosen=chosen),
        view={"figure": "by_layer", "chosen": chosen},
        caption=(
            f"The {result.top_ids.shape[2]} words at either end of what {result.feature.text} writes to each "
            "of its target layers, and to all together. Colour: logits per unit of activation at scale 1 of "
            "the final norm, relative to the mean over the vocabulary; 0 = as the average word."
        ),
        how_to_read=WRITES,
        description=charts.describe_by_layer(result),
        frame=result.write_frame,
    )


def rows_figure(result: FeatureWeightsResult, *, chosen: int | None = None) -> Figure:
    """Where it writes: lengths of its rows."""
    return _weights(
        result,
        title=f"{result.feature.text}: where it writes",
        spec=charts.row_bars(result, chosen=chosen),
        view={"figure": "rows", "chosen": chosen},
        caption=(
            f"Length of the decoder row of {result.feature.text} for each of its {len(result.targets)} "
            f"target layers ({legible(result.writes_at)}), per unit of activation. 0 = nothing is written "
            "there."
        ),
        how_to_read=ROWS,
        description=charts.describe_rows(result),
        frame=result.norm_frame,
    )


def cosines_figure(result: FeatureWeightsResult) -> Figure:
    """Whether it writes the same everywhere: cosines between its rows."""
    return _weights(
        result,
        title=f"{result.feature.text}: does it write the same to every layer?",
        spec=charts.cosine_map(result),
        view={"figure": "cosines"},
        caption=(
            f"Cosines between the decoder rows of {result.feature.text} for its {len(result.targets)} target "
            "layers. 0 = unrelated directions."
        ),
        how_to_read=COSINES,
        description=charts.describe_cosines(result),
        frame=result.cosine_frame,
    )


def reads_figure(result: FeatureWeightsResult) -> Figure:
    """Words that it reads."""
    threshold = "none" if result.threshold is None else number(result.threshold)
    among = ", and it is among the largest of its layer" if "top-k" in result.activation else ""
    caption = (
        f"The {result.read_ids.shape[1]} words whose embeddings the encoder of {result.feature.text} "
        f"answers to most and least ({legible(result.reads_at)}); 0 = no answer. Vocabulary mean "
        f"{number(result.read_mean)}, standard deviation {number(result.read_deviation)}. Length of the "
        f"encoder's row {number(result.encoder_norm)}, b_enc {number(result.encoder_bias)}, threshold "
        f"{threshold}: it is active where everything that it reads gives more than "
        f"{number(result.needed)}{among}."
    )
    if result.feature.layer > EARLY:
        caption += (
            f" At layer {result.feature.layer} embeddings are a small part of the stream: these words are a "
            "hint at most, its examples say more."
        )
    return _weights(
        result,
        title=f"{result.feature.text}: words read",
        spec=charts.read_bars(result),
        view={"figure": "reads"},
        caption=caption,
        how_to_read=READS,
        description=charts.describe_read(result),
        frame=result.read_frame,
    )


def histogram_figure(result: FeatureWeightsResult) -> Figure:
    """Effects on all words."""
    return _weights(
        result,
        title=f"{result.feature.text}: effects on all words",
        spec=charts.effect_histogram(result),
        view={"figure": "histogram"},
        caption=(
            f"Effects of one unit of activation of {result.feature.text} on the logits of all "
            f"{int(result.counts.sum()):,} words, {charts.column_name(result, 0)}, relative to their mean. "
            f"Skew {number(float(result.effect_skew[0]))}, excess kurtosis "
            f"{number(float(result.effect_kurtosis[0]))}; 0 = as a normal distribution. Heights follow "
            "log(1 + count)."
        ),
        how_to_read=HISTOGRAM,
        description=charts.describe_histogram(result),
        frame=result.histogram_frame,
    )


def relatives_figure(result: FeatureNeighboursResult, relation: str) -> Figure:
    """One relation; `relation` is one of `ALIKE` or `DIRECTIONS`."""
    related = tuple(charts.related(result, relation))
    if relation in ALIKE:
        what = "Cosines; 0 = unrelated, 1 = the same direction"
    else:
        what = f"Virtual weights [{VIRTUAL_UNIT}]; 0 = no direct path; independent of the input"
    caption = (
        f"{result.feature.text} among {result.n_compared:,} features of {legible(result.transcoder_name)}, "
        f"the {result.inputs.count} strongest of each list. {what}."
        + (" Behind the name: the word that a feature promotes most." if result.words else "")
    )
    return analysis_figure(
        result,
        analysis="feature_neighbours",
        title=f"{result.feature.text}: {_TITLES[relation]}",
        spec=charts.relative_bars(result, relation),
        view={"figure": relation},
        caption=f"{caption} {model_sentence(result.provenance)}".strip(),
        how_to_read=_HOW.get(relation, VIRTUAL),
        description=charts.describe_relatives(result, relation),
        frame=lambda: result.frame_of(related),
        references=REFERENCES,
        function="feature_neighbours",
        arrays=NEIGHBOUR_ARRAYS,
    )


def _weights(result: FeatureWeightsResult, *, caption: str, **words: Any) -> Figure:
    origin = f"Transcoder {legible(result.transcoder_name)}. {model_sentence(result.provenance)}".strip()
    return analysis_figure(
        result,
        analysis="feature_weights",
        caption=f"{caption} {origin}",
        references=REFERENCES,
        function="feature_weights",
        arrays=ARRAYS,
        **words,
    )
