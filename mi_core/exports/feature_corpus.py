"""The figures of one feature over a corpus and in a text: drawing, words, table, checks and recipe."""

from typing import Any

from mi_core.charts import feature_corpus as charts
from mi_core.charts.text import legible, number
from mi_core.exports.analysis_figure import analysis_figure
from mi_core.exports.captions import model_sentence
from mi_core.exports.figure import Figure
from mi_core.transcoders.corpus_view_result import FeatureCorpusResult
from mi_core.transcoders.feature_text_result import FeatureTextResult

REFERENCES = ("lindsey2025biology", "bolukbasi2021interpretability")
CORPUS_ARRAYS = ("histogram", "edges", "coactive_shares", "coactive_densities")

TEXT = (
    "Every token is coloured by the feature's activation there: white where it is not active, blue up to the "
    "end of the scale, linear. The scale ends at the feature's largest activation in the corpus where that "
    "is known, so a colour means the same in every text. The tooltip has the pre-activation: how far the "
    "token is from the threshold."
)
EXAMPLES = (
    "The framed token is the one that the line is about, its activation stands before it; the others are "
    "coloured on the same scale. The strongest examples say what drives the feature to its maximum, and a "
    "pattern in ten maxima can mislead (Bolukbasi et al., 2021): look at the examples from the whole range, "
    "which are drawn at random from equal parts of the tokens at which it is active."
)
HISTOGRAM = (
    "How strongly the feature is active where it is active; tokens at which it is off are not in it. Bins "
    "are eighths of octaves, so the axis is logarithmic: 0 is an activation of 1. The line says where the "
    "prompt lies. Two hills may be two meanings."
)
COACTIVE = (
    "Of the tokens at which this feature is active, the share at which another one is active too, on a "
    "random sample of them. By chance it would be the other's density (tooltip); features are listed by how "
    "far they exceed it. Being active together is no effect of one on the other: see the graph for that."
)


def text_figure(result: FeatureTextResult, title: str, *, chosen: int | None = None) -> Figure:
    """A text in the feature's colours; arguments as in `charts.feature_corpus.text_chart`."""
    return _figure(
        result,
        analysis="feature_text",
        title=title,
        spec=charts.text_chart(result, chosen=chosen),
        view={"figure": "text", "chosen": chosen},
        caption=_text_caption(result),
        how_to_read=TEXT,
        description=charts.describe_text(result),
        frame=result.to_frame,
        function="feature_on_text",
        arrays=("activations", "pre_activations"),
    )


def examples_figure(
    result: FeatureCorpusResult, *, strongest: bool, around: int | None = 16, count: int = 10
) -> Figure:
    """Examples of a feature.

    Args:
        result: the feature.
        strongest: its strongest ones (the file's first group), or those of all other groups.
        around: tokens on each side; None = all that is stored.
        count: examples at most; of the other groups, of each.
    """
    from dataclasses import replace

    groups = result.groups[:1] if strongest else result.groups[1:]
    groups = tuple(replace(group, examples=group.examples[:count]) for group in groups)
    name = result.inputs.feature
    return _figure(
        result,
        analysis="feature_examples",
        title=f"Where {name} is strongest" if strongest else f"{name} over its whole range",
        spec=charts.example_rows(result, groups, around, named=not strongest),
        view={"figure": "examples", "strongest": strongest, "around": around, "count": count},
        caption=_examples_caption(result, sum(len(group.examples) for group in groups), strongest, around),
        how_to_read=EXAMPLES,
        description=charts.describe_examples(groups),
        frame=lambda: _examples_frame(result, {group.name for group in groups}),
        function="feature_corpus",
        arrays=CORPUS_ARRAYS,
    )


def histogram_figure(result: FeatureCorpusResult, *, marks: tuple[tuple[float, str], ...] = ()) -> Figure:
    """Histogram over the corpus; arguments as in `charts.feature_corpus.corpus_histogram`."""
    return _figure(
        result,
        analysis="feature_histogram",
        title=f"How strongly {result.inputs.feature} is active",
        spec=charts.corpus_histogram(result, marks=marks),
        view={"figure": "histogram", "marks": [list(mark) for mark in marks]},
        caption=_histogram_caption(result, marks),
        how_to_read=HISTOGRAM,
        description=charts.describe_histogram(result),
        frame=lambda: _only(result, "histogram"),
        function="feature_corpus",
        arrays=CORPUS_ARRAYS,
    )


def coactive_figure(result: FeatureCorpusResult) -> Figure:
    """Features that are active at the same tokens."""
    return _figure(
        result,
        analysis="feature_coactive",
        title=f"Active together with {result.inputs.feature}",
        spec=charts.coactive_bars(result),
        view={"figure": "coactive"},
        caption=_coactive_caption(result),
        how_to_read=COACTIVE,
        description=charts.describe_coactive(result),
        frame=lambda: _only(result, "co-active", "by chance"),
        function="feature_corpus",
        arrays=CORPUS_ARRAYS,
    )


def _figure(result: FeatureCorpusResult | FeatureTextResult, **words: Any) -> Figure:
    return analysis_figure(result, references=REFERENCES, **words)


def _only(result: FeatureCorpusResult, *quantities: str) -> Any:
    frame = result.to_frame()
    return frame[frame["quantity"].isin(quantities)].dropna(axis=1, how="all").reset_index(drop=True)


def _examples_frame(result: FeatureCorpusResult, names: set[str]) -> Any:
    frame = _only(result, "example")
    return frame[frame["group"].isin(names)].reset_index(drop=True) if len(frame) else frame


def _corpus(result: FeatureCorpusResult) -> str:
    """Which corpus, and how large."""
    named = f" ({legible(result.text)})" if result.text else ""
    size = f"n = {result.n_tokens:,} tokens{named}" if result.n_tokens else "a corpus of unknown size"
    return f"Corpus: {size}; leading special tokens never count."


def _text_caption(result: FeatureTextResult) -> str:
    where = {"you": "as asked for", "corpus": "the largest of the corpus", "text": "the largest of this text"}
    ends = f"; the scale ends at {number(result.bound)}, {where[result.bound_from]}" if result.bound else ""
    beyond = f" {result.clipped} tokens lie beyond it." if result.clipped else ""
    return " ".join(
        [
            f"Activation of {result.inputs.feature} of {legible(result.transcoder)} at every token; active "
            f"at {result.active} of {len(result.tokens) - result.first}. 0 (white) = not active{ends}."
            f"{beyond} Grey: does not count.",
            model_sentence(result.provenance),
        ]
    ).strip()


def _examples_caption(result: FeatureCorpusResult, shown: int, strongest: bool, around: int | None) -> str:
    kind = (
        "strongest examples, one per row and beginning" if strongest else "examples drawn at random, by part"
    )
    width = "all tokens that are stored" if around is None else f"at most {around} tokens on each side"
    return " ".join(
        [
            f"{shown} {kind}, {width}. {_corpus(result)} Scale from 0 (white, not active) to "
            f"{number(result.largest)}, the largest activation of the corpus.",
            model_sentence(result.provenance),
        ]
    ).strip()


def _histogram_caption(result: FeatureCorpusResult, marks: tuple[tuple[float, str], ...]) -> str:
    active = f"{int(result.histogram.sum()):,} tokens at which it is active"
    lines = "".join(f"Line: the prompt at {legible(name)}, {number(value)}. " for value, name in marks)
    return " ".join(
        [
            f"Activation of {result.inputs.feature} at the {active}, "
            f"{number(100 * result.density)} % of all; log10: 0 = an activation of 1. {lines}"
            f"{_corpus(result)}",
            model_sentence(result.provenance),
        ]
    ).strip()


def _coactive_caption(result: FeatureCorpusResult) -> str:
    return " ".join(
        [
            f"Share of n = {result.coactive_tokens} random active tokens of {result.inputs.feature} at which "
            "each feature is active too; 0 = never together. Listed by how far that exceeds what chance "
            f"would give. {_corpus(result)}",
            model_sentence(result.provenance),
        ]
    ).strip()
