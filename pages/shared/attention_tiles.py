"""The grid of all heads, what its colours mean, and the figures made of it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import streamlit as st

from mi_core.analyses.attention_inputs import HEAD_METRICS, METRIC_NAMES, SHOW_INFO
from pages.shared.attention_fields import MAX_PINS, pinned_heads, pins_text
from pages.shared.attention_grid import GridWords, HeadTile, attention_grid
from pages.shared.attention_text import HEADS_FORMULA
from pages.shared.figure_card import figure_card
from pages.shared.selection import select, selection
from pages.shared.text import plain

if TYPE_CHECKING:
    from mi_core.analyses.attention_result import AttentionResult
    from mi_core.analyses.attention_view import Thumbnails
    from mi_core.charts.attention_heads import View

Head = tuple[int, int]


def views() -> list[View]:
    """The prompts that are shown, as the settings say."""
    from mi_core.charts.attention_heads import View

    side, masked = st.session_state["attention_side"], st.session_state["attention_mask"]
    return [View("a", masked), View("b", masked)] if side == "both" else [View(side, masked)]


def shown_head(result: AttentionResult) -> Head:
    """The locked head; without one (or with one that this model has not) the strongest by the shade."""
    from mi_core.analyses.attention_view import ordered_heads

    locked = locked_head(result)
    if locked is not None:
        return locked
    view = views()[0]
    numbers = result.metric(st.session_state["attention_shade"], view.side, mask_first=view.mask_first)
    return ordered_heads(numbers, by_number=True, top=1)[0]


def locked_head(result: AttentionResult) -> Head | None:
    """The selected head, if this model has it."""
    now = selection()
    if now.layer is None or now.head is None or now.layer >= result.n_layers or now.head >= result.n_heads:
        return None
    return now.layer, now.head


def _tell_missing_head(result: AttentionResult) -> None:
    """Say that the selected head is not in this model, for example after a link made for a larger one."""
    now = selection()
    if now.layer is not None and now.head is not None and locked_head(result) is None:
        st.warning(
            f"There is no head L{now.layer}H{now.head} in this model: layers run from 0 to "
            f"{result.n_layers - 1}, heads from 0 to {result.n_heads - 1}. Another head is shown; click one.",
            icon=":material/link_off:",
        )


def lock(layer: int, head: int) -> None:
    """Select a head; token and key stay."""
    select(replace(selection(), layer=layer, head=head))


def lock_cell(cell: dict[str, Any]) -> None:
    """A click on a map of heads."""
    layer, head = cell.get("layer"), cell.get("head")
    if isinstance(layer, int) and isinstance(head, int):
        lock(layer, head)


def draw_tiles(result: AttentionResult, head: Head) -> None:
    """The canvas, its legend, and the card of the same numbers."""
    _tell_missing_head(result)
    view, shade = views()[0], st.session_state["attention_shade"]
    with st.container(border=True, key="attention_tiles"):
        st.markdown(f"**Heads**: {_legend(result, view, shade)}")
        _draw_canvas(result, view, shade, head)
        st.caption(_tiles_caption(result, view))
    _draw_map(result, view, shade, head)


def _draw_canvas(result: AttentionResult, view: View, shade: str, head: Head) -> None:
    from mi_core.analyses.attention_view import ordered_heads
    from mi_core.charts.attention_heads import head_metric_label, metric_scale, shade_levels

    state = st.session_state
    numbers = result.metric(shade, view.side, mask_first=view.mask_first)
    colours = metric_scale(result, shade, view)
    levels = shade_levels(numbers, colours)
    by_number = state["attention_sort"] == "number"
    order = ordered_heads(numbers, by_number=by_number, top=state["attention_top"])
    pictures = _pictures(result, view)
    labels = tuple(head_metric_label(result, name) for name in METRIC_NAMES)
    attention_grid(
        [_tile(result, view, shade, place, levels[place[0]][place[1]], pictures) for place in order],
        pictures,
        GridWords("All heads", labels, METRIC_NAMES.index(shade)),
        signed_shade=colours.diverging,
        in_rows=not by_number and len(order) == numbers.size,
        locked=head,
        pinned=pins(result),
        key="attention_canvas",
        on_lock=lock,
    )


def _tile(
    result: AttentionResult, view: View, shade: str, place: Head, level: int, pictures: Thumbnails
) -> HeadTile:
    from mi_core.charts.text import number

    texts = tuple(
        f"{number(float(result.metric(metric.name, view.side, mask_first=view.mask_first)[place]))}"
        + ("" if metric.unit == "share" else f" {metric.unit}")
        for metric in HEAD_METRICS
    )
    limit = number(float(pictures.limits[place]))
    low = f"-{limit}" if pictures.signed else "0"
    return HeadTile(
        *place,
        level,
        texts[METRIC_NAMES.index(shade)],
        texts,
        f"Colours from {low} to {limit} {result.unit}.",
    )


def _pictures(result: AttentionResult, view: View) -> Thumbnails:
    """The last pictures are remembered: a rerun for another reason must not make them again."""
    from mi_core.analyses.attention_view import thumbnails

    common = st.session_state["attention_scale"] == "all"
    key = (view.side, view.mask_first, common)
    known = st.session_state.get("_attention_pictures")
    if known is None or known[0] is not result or known[1] != key:
        made = thumbnails(result, view.side, mask_first=view.mask_first, common=common)
        known = (result, key, made)
        st.session_state["_attention_pictures"] = known
    return known[2]


def _legend(result: AttentionResult, view: View, shade: str) -> str:
    from mi_core.charts.attention_heads import metric_scale
    from mi_core.charts.text import number

    colours = metric_scale(result, shade, view)
    low, high = (number(end) for end in colours.domain)
    ends = "orange to blue" if colours.diverging else "dark to bright"
    return f"frames show {plain(colours.title)}, {ends} = {plain(low)} to {plain(high)} {plain(colours.unit)}"


def _tiles_caption(result: AttentionResult, view: View) -> str:
    from mi_core.charts.attention_heads import SIDE_TITLES

    each = _pictures(result, view).pooled
    pooled = f" Every pixel is the strongest of {each} by {each} cells." if each > 1 else ""
    side = f" of {SIDE_TITLES[view.side]}" if result.compared else ""
    return (
        "Point at a head to see it large, click to lock it, double-click to see it alone. Queries down, "
        f"keys across; {SHOW_INFO[result.inputs.show].label.lower()}{side}.{pooled}"
    )


def _draw_map(result: AttentionResult, view: View, shade: str, head: Head) -> None:
    from mi_core.exports.attention import heads_figure, pattern_figure

    with st.expander("Heads by this number, as a figure", icon=":material/grid_view:"):
        figure = heads_figure(result, shade, view, chosen=head)
        figure_card("attention_heads", figure, on_cell=lock_cell, formula=HEADS_FORMULA)
    _draw_pins(result, head)
    pinned = pins(result)
    if pinned:
        figure = pattern_figure(result, pinned, [view])
        figure_card("attention_pinned", figure, on_cell=choose_square_cell)


def pins(result: AttentionResult) -> list[Head]:
    """The pinned heads that this model has."""
    return [
        (layer, head)
        for layer, head in pinned_heads(st.session_state["attention_pins"])
        if layer < result.n_layers and head < result.n_heads
    ]


def _draw_pins(result: AttentionResult, head: Head) -> None:
    pinned = pins(result)
    with st.container(horizontal=True, gap="small", vertical_alignment="center", key="attention_pin_row"):
        if head in pinned:
            rest = [place for place in pinned if place != head]
            _pin_button("Unpin", rest, head)
        else:
            _pin_button("Pin", [*pinned, head][-MAX_PINS:], head)
        if len(pinned) > 1:
            st.button("Unpin all", key="attention_unpin_all", on_click=_set_pins, args=([],))


def _pin_button(word: str, heads: list[Head], head: Head) -> None:
    st.button(
        f"{word} {pins_text([head])}", icon=":material/push_pin:", key="attention_pin", on_click=_set_pins,
        args=(heads,), help="Pinned heads stand beside each other in one figure, on one scale.",
    )  # fmt: skip


def _set_pins(heads: list[Head]) -> None:
    st.session_state["attention_pins"] = pins_text(heads)


def choose_square_cell(cell: dict[str, Any]) -> None:
    """A click on a cell of a square: its head, query and key are selected."""
    found = pinned_heads(str(cell.get("kind")))
    query, key = cell.get("query"), cell.get("key")
    if found and isinstance(query, int) and isinstance(key, int):
        layer, head = found[0]
        select(replace(selection(), layer=layer, head=head, position=query, key=key))
