"""Head scores as figures: one score for all heads, and the strongest heads with their spread."""

from typing import Any

from mi_core.analyses.head_scores_inputs import SCORE_NAMES, SCORES
from mi_core.analyses.head_scores_result import HeadScoresResult
from mi_core.charts.bars import Bar, bars
from mi_core.charts.colours import ColourScale
from mi_core.charts.heatmap import Axis, Panel, describe, heatmap

Spec = dict[str, Any]

STRONGEST = 12


def score_label(score: str) -> str:
    """A score's name for the eye."""
    return SCORES[SCORE_NAMES.index(score)].label


def score_map(result: HeadScoresResult, score: str, *, chosen: tuple[int, int] | None = None) -> Spec:
    """Mean score of every head: layers down, heads across; the scale always reaches from 0 to 1.

    Args:
        result: the scores.
        score: one of `SCORES`.
        chosen: (layer, head) to outline.

    Returns:
        Specification without looks; clicks select `cell` with the fields layer and head.
    """
    panels, rows, columns, colours = _parts(result, score)
    outlined = None if chosen is None else ("heads", *chosen)
    return heatmap(panels, rows, columns, colours, chosen=outlined, show_values=result.n_heads <= 16)


def describe_scores(result: HeadScoresResult, score: str) -> str:
    """The text alternative of `score_map`."""
    return describe(*_parts(result, score))


def _parts(result: HeadScoresResult, score: str) -> tuple[list[Panel], Axis, Axis, ColourScale]:
    rows = Axis("layer", "Layer", tuple(f"L{layer}" for layer in range(result.n_layers)), whole=True)
    columns = Axis("head", "Head", tuple(str(head) for head in range(result.n_heads)))
    notes = tuple(
        tuple(", ".join(result.labels(layer, head)) for head in range(result.n_heads))
        for layer in range(result.n_layers)
    )
    panel = Panel("heads", "", result.mean(score), notes=notes)
    colours = ColourScale(
        f"{score_label(score)} score",
        "share",
        (0.0, 1.0),
        marks=((result.inputs.threshold, "threshold"),),
    )
    return [panel], rows, columns, colours


def strongest_heads(result: HeadScoresResult, score: str, *, chosen: tuple[int, int] | None = None) -> Spec:
    """The heads with the highest mean, with their range of one standard deviation over sequences."""
    places = result.strongest(score, STRONGEST)
    mean, (low, high) = result.mean(score), result.band(score)
    items = [
        Bar(
            f"L{layer}H{head}",
            float(mean[layer, head]),
            low=float(low[layer, head]),
            high=float(high[layer, head]),
            note=", ".join(result.labels(layer, head)),
        )
        for layer, head in places
    ]
    return bars(
        items,
        title=f"{score_label(score)} score",
        unit="share",
        chosen=places.index(chosen) if chosen in places else None,
        marks=((result.inputs.threshold, "threshold"),),
        diverging=False,
    )
