"""The features that a word search found, and the layers in which they are."""

from typing import Any

import numpy as np

from mi_core.charts.bars import Bar, bars
from mi_core.charts.colours import ColourScale, symmetric_bound
from mi_core.charts.heatmap import Axis, Panel, heatmap
from mi_core.charts.text import isolated, legible, number
from mi_core.transcoders.words_result import EFFECT_UNITS, WordHit, WordSearchResult

Spec = dict[str, Any]

SCORE_TITLES = {
    "deviations": "standard deviations above the mean word",
    "effect": "effect",
    "cosine": "cosine",
}
MOST_BARS = 60


def score_title(result: WordSearchResult) -> tuple[str, str]:
    """What the hits are ranked by, and its unit."""
    by, side = result.inputs.rank_by, result.inputs.side
    return SCORE_TITLES[by], EFFECT_UNITS[side] if by == "effect" else ""


def hit_bars(result: WordSearchResult, *, chosen: int | None = None) -> Spec:
    """Found features, the best first; clicks select `cell` with the field index (the rank, from 0)."""
    title, unit = score_title(result)
    made = [Bar(hit_label(result, hit), hit.score, note=_note(hit)) for hit in result.hits()[:MOST_BARS]]
    return bars(made, title=title, unit=unit, chosen=chosen)


def hit_label(result: WordSearchResult, hit: WordHit) -> str:
    """A found feature: its name, where it writes the word, the form of the word."""
    where = "" if hit.target == hit.feature.layer else f" at L{hit.target}"
    form = f"  {hit.token}" if len(result.searched) > 1 else ""
    return f"{hit.feature.text}{where}{form}"


def _note(hit: WordHit) -> str:
    return (
        f"{hit.token} is its word number {hit.word_rank:,}; effect {number(hit.effect)}, "
        f"cosine {number(hit.cosine)}{f'; {hit.copies} copies' if hit.copies else ''}"
    )


def describe_hits(result: WordSearchResult) -> str:
    """A sentence that stands for the bars."""
    hits = result.hits()
    if not hits:
        return "No feature was found."
    shown = ", ".join(f"{hit.feature.text} {number(hit.score)}" for hit in hits[:8])
    words = ", ".join(isolated(legible(word)) for word in result.searched)
    verb = "write" if result.inputs.side == "writes" else "read"
    return f"{len(hits)} features that {verb} {words}; the first: {shown}."


def layer_map(result: WordSearchResult) -> Spec:
    """The best score of any feature, by the layer that it is in and the layer that it writes to.

    Returns:
        Specification without looks; clicks select `cell` with fields row and column (layers).
    """
    finite = result.best[np.isfinite(result.best)]
    bound = symmetric_bound(float(np.abs(finite).max(initial=0.0)))
    title, unit = score_title(result)
    sources, targets = result.source_layers.tolist(), result.target_layers.tolist()
    return heatmap(
        [Panel("best", "", result.best, missing="not written")],
        Axis("row", "Feature in layer", tuple(f"L{layer}" for layer in sources), ids=tuple(sources)),
        Axis("column", "Writes to layer", tuple(map(str, targets)), ids=tuple(targets)),
        ColourScale(f"best: {title}", unit, (-bound, bound), diverging=True),
        show_values=len(targets) <= 12,
    )


def describe_map(result: WordSearchResult) -> str:
    """A sentence that stands for the map."""
    if not np.isfinite(result.best).any():
        return "No layer was searched."
    row, column = np.unravel_index(np.nanargmax(result.best), result.best.shape)
    return (
        f"The best score of any feature, {number(float(result.best[row, column]))}, is in layer "
        f"{result.source_layers[row]}, writing to layer {result.target_layers[column]}."
    )
