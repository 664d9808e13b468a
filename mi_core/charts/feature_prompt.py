"""The features of a prompt drawn: how many by layer and token, the leading ones, and what is not explained.

Tokens that do not count (BOS) are hatched. A number comes from the result or the listing alone.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from mi_core.charts.bars import Bar, bars
from mi_core.charts.colours import ColourScale
from mi_core.charts.grid import token_axis, window
from mi_core.charts.heatmap import Axis, Panel, describe, heatmap
from mi_core.charts.text import MINUS, number, token_label
from mi_core.transcoders.prompt_result import FeaturesOnPromptResult
from mi_core.transcoders.prompt_view import SORTS, Listing, Sort, by_token

Spec = dict[str, Any]

WINDOW = 40
"""Tokens across at most; a longer prompt shows the ones around the chosen token."""
MASKED = "masked: a special token, which does not count"
UNITS = {"activation": "", "sum": "", "effect": "logits"}


def target_name(result: FeaturesOnPromptResult) -> str:
    """What effects are about."""
    if result.target is None:
        return "target"
    other = "mean of all logits" if result.distractor is None else f"logit {result.distractor.visible}"
    return f"logit {result.target.visible} {MINUS} {other}"


def sort_title(result: FeaturesOnPromptResult, sort: Sort) -> str:
    """What the listing is sorted by, for an axis."""
    if sort == "effect":
        return f"linear effect on {target_name(result)}"
    return {"activation": "largest activation", "sum": "sum of activations over the tokens"}[sort]


# --- counts ---


def count_map(
    result: FeaturesOnPromptResult, position: int, *, chosen: tuple[int, int] | None = None
) -> Spec:
    """Source layers down, tokens across: how many features are active.

    Args:
        result: the features.
        position: token around which a long prompt is shown.
        chosen: (layer, position) of the cell to outline.

    Returns:
        Specification without looks; clicks select `cell` with the fields layer and position.
    """
    panel, rows, columns, colours = _counts(result, position)
    place = None if chosen is None else (panel.key, *chosen)
    return heatmap([panel], rows, columns, colours, chosen=place)


def describe_counts(result: FeaturesOnPromptResult, position: int) -> str:
    """A sentence or two that stand for the map of counts."""
    panel, rows, columns, colours = _counts(result, position)
    return describe([panel], rows, columns, colours)


def _counts(result: FeaturesOnPromptResult, position: int) -> tuple[Panel, Axis, Axis, ColourScale]:
    shown = window(len(result.tokens), position, WINDOW)
    values = _unmasked(result, result.counts.astype(float), shown)
    texts = tuple(tuple("" if np.isnan(one) else f"{one:.0f}" for one in row) for row in values.tolist())
    panel = Panel("counts", "", values, texts=texts, missing=MASKED)
    high = max(1.0, float(np.nanmax(values, initial=0.0)))
    return panel, _layer_axis(result.layers), _token_axis(result, shown), ColourScale(
        "active features", "", (0.0, high)
    )  # fmt: skip


def _unmasked(
    result: FeaturesOnPromptResult, values: Float[np.ndarray, "row pos"], shown: range
) -> Float[np.ndarray, "row column"]:
    """The columns that are shown; NaN at masked tokens."""
    values = values.copy()
    values[:, list(result.masked)] = np.nan
    return values[:, shown.start : shown.stop]


def _layer_axis(layers: Sequence[int]) -> Axis:
    return Axis("layer", "Layer", tuple(f"L{layer}" for layer in layers), tuple(layers), whole=True)


def _token_axis(result: FeaturesOnPromptResult, shown: range) -> Axis:
    return token_axis([token.visible for token in result.tokens], shown)


# --- the leading features ---


def feature_bars(
    result: FeaturesOnPromptResult, listed: Listing, sort: Sort, count: int, *, chosen: int | None = None
) -> Spec:
    """The first features of a listing; clicks select `cell` with the field index (the row).

    Args:
        result: the features.
        listed: sorted by `sort`.
        sort: what the bars are.
        count: how many bars.
        chosen: row to outline.
    """
    values = listed.value(sort)[:count].tolist()
    items = [
        Bar(f"{listed.named(row).text} {_where(result, listed, row)}", value, note=note(result, listed, row))
        for row, value in enumerate(values)
    ]
    return bars(
        items,
        title=sort_title(result, sort),
        unit=UNITS[sort],
        chosen=chosen if chosen is not None and chosen < len(items) else None,
        diverging=sort == "effect",
    )


def _where(result: FeaturesOnPromptResult, listed: Listing, row: int) -> str:
    """The token at which a feature is strongest."""
    position = int(listed.position[row])
    return f"@{token_label(position, result.tokens[position].visible)}"


def note(result: FeaturesOnPromptResult, listed: Listing, row: int) -> str:
    """Everything that is known of a feature here, in a line."""
    said = [f"activation {number(float(listed.activation[row]))} {_where(result, listed, row)}"]
    if np.isfinite(listed.share[row]):
        said.append(f"{number(float(listed.share[row]))} times its threshold")
    said.append(f"active at {int(listed.tokens[row])} of {listed.n_chosen} tokens")
    if np.isfinite(listed.effect[row]):
        said.append(f"effect {number(float(listed.effect[row]))} logits")
    if np.isfinite(listed.density[row]):
        said.append(f"on {100 * float(listed.density[row]):.3g} % of the corpus' tokens")
    return ", ".join(said)


def describe_bars(result: FeaturesOnPromptResult, listed: Listing, sort: Sort, count: int) -> str:
    """A sentence that stands for the bars."""
    shown = min(count, len(listed))
    lead = ", ".join(
        f"{listed.named(row).text} {number(float(listed.value(sort)[row]))}" for row in range(min(5, shown))
    )
    return f"Bars of the first {shown} features by {SORTS[sort].lower()}: {lead or 'none'}."


# --- tokens by features ---


def token_map(
    result: FeaturesOnPromptResult,
    listed: Listing,
    count: int,
    position: int,
    *,
    chosen: tuple[int, int] | None = None,
) -> Spec:
    """The first features down, tokens across, coloured by activation.

    Args:
        result: the features.
        listed: the rows.
        count: how many of them.
        position: token around which a long prompt is shown.
        chosen: (row, position) of the cell to outline.

    Returns:
        Specification without looks; clicks select `cell` with the fields row and position.
    """
    panel, rows, columns, colours = _by_token(result, listed, count, position)
    place = None if chosen is None else (panel.key, *chosen)
    return heatmap([panel], rows, columns, colours, chosen=place)


def describe_tokens(result: FeaturesOnPromptResult, listed: Listing, count: int, position: int) -> str:
    """A sentence or two that stand for the map of features by tokens."""
    panel, rows, columns, colours = _by_token(result, listed, count, position)
    return describe([panel], rows, columns, colours)


def _by_token(
    result: FeaturesOnPromptResult, listed: Listing, count: int, position: int
) -> tuple[Panel, Axis, Axis, ColourScale]:
    shown = window(len(result.tokens), position, WINDOW)
    features = [listed.named(row) for row in range(min(count, len(listed)))]
    values = by_token(result, features, shown)
    panel = Panel("tokens", "", values, missing=MASKED)
    rows = Axis("row", "Feature", tuple(feature.text for feature in features), whole=True)
    high = float(np.nanmax(values, initial=0.0)) or 1.0
    return panel, rows, _token_axis(result, shown), ColourScale("activation", "", (0.0, high))


# --- what is not explained ---


def error_map(result: FeaturesOnPromptResult, position: int) -> Spec:
    """Target layers down, tokens across: the length of what is not reconstructed, relative to the whole."""
    return heatmap(*_errors(result, position))


def describe_errors(result: FeaturesOnPromptResult, position: int) -> str:
    """A sentence or two that stand for the map of errors."""
    return describe(*_errors(result, position))


def _errors(result: FeaturesOnPromptResult, position: int) -> tuple[list[Panel], Axis, Axis, ColourScale]:
    shown = window(len(result.tokens), position, WINDOW)
    values = _unmasked(result, result.error.astype(float), shown)
    texts = tuple(tuple("" if np.isnan(one) else f"{one:.2f}" for one in row) for row in values.tolist())
    panel = Panel("error", "", values, texts=texts, missing=MASKED)
    high = max(1.0, float(np.nanmax(values, initial=0.0)))
    scale = ColourScale("error", "share of the length", (0.0, high), marks=((1.0, "all of it"),))
    return [panel], _layer_axis(result.targets), _token_axis(result, shown), scale
