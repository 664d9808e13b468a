"""Attention as figures: squares of heads, key sums, strongest pairs, coloured text.

Layers and queries go down, heads and keys across. A and B always share one scale; differences and
contributions are blue above zero, orange below. Numbers come from `mi_core.analyses.attention_view`.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mi_core.analyses.attention_inputs import SHOW_INFO
from mi_core.analyses.attention_result import AttentionResult, Side
from mi_core.analyses.attention_view import (
    Direction,
    Pair,
    along,
    is_signed,
    key_sums,
    ranks,
    square,
    top_pairs,
)
from mi_core.analyses.attribution_inputs import head_name
from mi_core.charts.attention_heads import PLAIN, SIDE_TITLES, View, scale_of, target_text
from mi_core.charts.bars import Bar, bars
from mi_core.charts.colours import ColourScale
from mi_core.charts.heatmap import Axis, Panel, describe, heatmap
from mi_core.charts.layers import mark_layer
from mi_core.charts.lines import Line, lines
from mi_core.charts.text import number, token_label
from mi_core.charts.token_text import token_text

Spec = dict[str, Any]

# --- squares ---


def pattern_map(
    result: AttentionResult,
    heads: Sequence[tuple[int, int]],
    views: Sequence[View] = (PLAIN,),
    *,
    chosen: tuple[int, int] | None = None,
) -> Spec:
    """Squares of heads on one scale: queries down, keys across, the future plain grey.

    Args:
        result: what was looked at.
        heads: (layer, head) pairs; one panel per head and view.
        views: which prompts; differences stand alone, on their own scale.
        chosen: (query, key) positions to outline, in the first panel.

    Returns:
        Specification without looks; clicks select `cell` with the fields kind ("L2H3:a"), query and key.

    Raises:
        ValueError: differences mixed with weights.
    """
    panels, rows, columns, colours = _pattern_parts(result, heads, views)
    outlined = None if chosen is None else (panels[0].key, *chosen)
    return plain_future(heatmap(panels, rows, columns, colours, chosen=outlined))


def describe_pattern(
    result: AttentionResult, heads: Sequence[tuple[int, int]], views: Sequence[View] = (PLAIN,)
) -> str:
    """The text alternative of `pattern_map`."""
    panels, rows, columns, colours = _pattern_parts(result, heads, views)
    # The future is no cell that was left out: without NaN `describe` says nothing about it.
    whole = [replace(panel, values=np.nan_to_num(panel.values)) for panel in panels]
    return describe(whole, rows, columns, colours)


def _pattern_parts(
    result: AttentionResult, heads: Sequence[tuple[int, int]], views: Sequence[View]
) -> tuple[list[Panel], Axis, Axis, ColourScale]:
    if len({view.side == "difference" for view in views}) > 1:
        raise ValueError("a difference and its parts have different scales")
    panels = [_pattern_panel(result, head, view, len(views)) for head in heads for view in views]
    side: Side = "b" if all(view.side == "b" for view in views) else "a"
    rows, columns = token_axis(result, "query", "Query", side), token_axis(result, "key", "Key", side)
    return panels, rows, columns, pattern_scale(result, heads, views)


def _pattern_panel(result: AttentionResult, place: tuple[int, int], view: View, count: int) -> Panel:
    values = square(result, *place, view.side, mask_first=view.mask_first)
    title = head_name(*place) + (f", {SIDE_TITLES[view.side]}" if result.compared or count > 1 else "")
    notes = tuple(
        tuple(f"rank {rank} in its row" if rank else "" for rank in row) for row in ranks(values).tolist()
    )
    return Panel(f"{head_name(*place)}:{view.side}", title, values, notes=notes)


def pattern_scale(
    result: AttentionResult, heads: Sequence[tuple[int, int]], views: Sequence[View]
) -> ColourScale:
    """One scale for squares: from 0 (or symmetric about it) to the strongest cell of A and of B."""
    info, view = SHOW_INFO[result.inputs.show], views[0]
    sides: tuple[Side, ...] = ("a", "b") if view.side != "difference" and result.compared else (view.side,)
    values = [square(result, *place, side, mask_first=view.mask_first) for place in heads for side in sides]
    return scale_of(quantity(result), info.unit, values, signed=is_signed(result, view.side))


def quantity(result: AttentionResult) -> str:
    """What the cells are, with the target's name."""
    if result.inputs.show == "contribution":
        return f"contribution to {target_text(result)}"
    return SHOW_INFO[result.inputs.show].quantity


def token_axis(result: AttentionResult, field: str, title: str, side: Side = "a") -> Axis:
    """The window's tokens by position."""
    start, end = result.window
    tokens = result.tokens_of(side)[start:end]
    labels = tuple(token_label(token.position, token.visible) for token in tokens)
    return Axis(field, title, labels, ids=tuple(range(start, end)))


def plain_future(spec: Spec) -> Spec:
    """Grey ground instead of a hatched cell for every key that a query cannot see or that is masked."""
    grid, *rest = spec["layer"]
    ground = mark_layer("panels", "rect", "missing")
    return {
        **spec,
        "datasets": {**spec["datasets"], "missing": []},
        "layer": [{**grid, "layer": [ground, *grid["layer"]]}, *rest],
    }


# --- one head in other forms ---


def key_sum_lines(
    result: AttentionResult, place: tuple[int, int], views: Sequence[View], *, chosen: int | None = None
) -> Spec:
    """What every key gives to all queries together, a line per prompt.

    Args:
        result: what was looked at.
        place: (layer, head).
        views: which prompts.
        chosen: position of the key to mark.
    """
    start, end = result.window
    places = list(range(end - start))
    series = [
        Line(
            SIDE_TITLES[view.side] if result.compared else head_name(*place),
            places,
            key_sums(square(result, *place, view.side, mask_first=view.mask_first)).tolist(),
        )
        for view in views
    ]
    return lines(
        series,
        x_title="Key",
        y_title="sum over queries",
        unit=SHOW_INFO[result.inputs.show].unit,
        x_labels=token_axis(result, "key", "Key", views[0].side).labels,
        chosen_x=None if chosen is None else chosen - start,
    )


def key_at(result: AttentionResult, x: float) -> int:
    """The position of a key that was clicked in `key_sum_lines`, whose x counts from the window's start."""
    return result.window[0] + int(x)


def attention_text(
    result: AttentionResult, place: tuple[int, int], view: View, position: int, direction: Direction
) -> Spec:
    """The text coloured by what one token reads, or by which tokens read it; on the square's scale.

    Args:
        result: what was looked at.
        place: (layer, head).
        view: which prompt.
        position: of the token, in the prompt.
        direction: "from" = what it reads, "to" = who reads it.

    Returns:
        Specification without looks; clicks select `cell` with the field position.
    """
    start, end = result.window
    values = along(square(result, *place, view.side, mask_first=view.mask_first), position - start, direction)
    tokens = [token.visible for token in result.tokens_of(view.side)[start:end]]
    colours = pattern_scale(result, [place], [view])
    return token_text(tokens, values.tolist(), colours, chosen=position, start=start)


def pair_bars(
    result: AttentionResult, place: tuple[int, int], view: View, *, count: int = 12, chosen: int | None = None
) -> Spec:
    """The strongest pairs of a head as bars; clicks select `cell` with the field index."""
    tokens, info = result.tokens_of(view.side), SHOW_INFO[result.inputs.show]
    items = [
        Bar(pair_label(tokens, pair), pair.value, note=f"rank {pair.rank} among the query's keys")
        for pair in head_pairs(result, place, view, count=count)
    ]
    return bars(
        items,
        title=quantity(result),
        unit=info.unit,
        chosen=chosen,
        diverging=is_signed(result, view.side),
    )


def head_pairs(result: AttentionResult, place: tuple[int, int], view: View, *, count: int = 12) -> list[Pair]:
    """The strongest pairs of a head, as `pair_bars` draws them."""
    pattern = square(result, *place, view.side, mask_first=view.mask_first)
    return top_pairs(pattern, result.window[0], count)


def pair_label(tokens: Sequence[Any], pair: Pair) -> str:
    """Query, arrow, key."""
    query, key = tokens[pair.query], tokens[pair.key]
    return f"{token_label(pair.query, query.visible)} → {token_label(pair.key, key.visible)}"


def describe_pairs(result: AttentionResult, place: tuple[int, int], view: View) -> str:
    """The text alternative of `pair_bars`, and a summary of the head."""
    tokens = result.tokens_of(view.side)
    shown = "; ".join(
        f"{pair_label(tokens, pair)}: {number(pair.value)}"
        for pair in head_pairs(result, place, view, count=3)
    )
    return f"Strongest pairs of {head_name(*place)}, query → key: {shown}."
