"""The figures of a word search: drawing, words, numbers and recipe together."""

from typing import Any

from mi_core.charts import word_search as charts
from mi_core.charts.text import isolated, legible
from mi_core.exports.analysis_figure import analysis_figure
from mi_core.exports.captions import model_sentence
from mi_core.exports.figure import Figure
from mi_core.transcoders.words_result import WordSearchResult

REFERENCES = ("ameisen2025circuit", "dunefsky2024transcoders", "geva2022transformer")
# What a recipe compares: numbers, not the order of features that are nearly equal.
ARRAYS = ("searched_ids", "scores", "best")

_RANKED = {
    "deviations": (
        "Ranked by how far the word stands out: its effect divided by the standard deviation of the effects "
        "on all words. It does not depend on how strongly a feature writes in general."
    ),
    "effect": (
        "Ranked by the effect of one unit of activation; features that write much in general come first."
    ),
    "cosine": "Ranked by the angle between the row and the word's direction alone.",
}
_WRITES = (
    "Every feature's decoder rows, one per target layer, against the word's direction (final norm's gain "
    "times unembedding, relative to the mean word); the best target layer counts. To promote a word is not "
    "to cause it: that depends on when the feature is active. Look at its examples, or inject it."
)
_READS = (
    "Every feature's encoder row against the word's embedding (relative to the mean word). In the first "
    "layers that is most of what a feature sees; deeper, the stream holds mostly what earlier layers wrote, "
    "so a feature that is active on the word may be missing here. Look at its examples."
)


def hits_figure(result: WordSearchResult, *, chosen: int | None = None) -> Figure:
    """Found features, the best first."""
    shown = min(len(result.layers), charts.MOST_BARS)
    verb = "write" if result.inputs.side == "writes" else "read"
    title, unit = charts.score_title(result)
    where = ", each at the target layer where it writes the word most" if verb == "write" else ""
    return _figure(
        result,
        title=f"Features that {verb} {_words(result)}",
        spec=charts.hit_bars(result, chosen=chosen),
        view={"figure": "hits", "chosen": chosen},
        caption=(
            f"The first {shown} of {result.n_searched:,} features that {verb} {_words(result)}, by {title}"
            f"{f' [{unit}]' if unit else ''}{where}. 0 = the word is treated as the average word."
        ),
        description=charts.describe_hits(result),
        frame=result.to_frame,
    )


def layers_figure(result: WordSearchResult) -> Figure:
    """Best score by source and target layer."""
    title, unit = charts.score_title(result)
    return _figure(
        result,
        title=f"Where {_words(result)} is written",
        spec=charts.layer_map(result),
        view={"figure": "layers"},
        caption=(
            "The best score of any feature, by the layer that it is in (rows) and the layer that it writes "
            f"to (columns): {title}{f' [{unit}]' if unit else ''}. 0 = no better than the average word; "
            "hatched = features of that layer do not write there."
        ),
        description=charts.describe_map(result),
        frame=result.grid_frame,
    )


def _words(result: WordSearchResult) -> str:
    return " or ".join(isolated(legible(word)) for word in result.searched)


def _figure(result: WordSearchResult, *, caption: str, **words: Any) -> Figure:
    origin = f"Transcoder {legible(result.transcoder_name)}. {model_sentence(result.provenance)}".strip()
    side = _WRITES if result.inputs.side == "writes" else _READS
    return analysis_figure(
        result,
        analysis="word_search",
        caption=f"{caption} {origin}",
        how_to_read=f"{side} {_RANKED[result.inputs.rank_by]}",
        references=REFERENCES,
        function="word_search",
        arrays=ARRAYS,
        **words,
    )
