"""One head large: its square, the text coloured by it, strongest pairs, key sums, and where to go next."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import streamlit as st

from pages.shared.attention_actions import draw_actions
from pages.shared.attention_fields import DIRECTIONS
from pages.shared.attention_text import SQUARE_FORMULA
from pages.shared.attention_tiles import Head, choose_square_cell, lock, views
from pages.shared.figure_card import figure_card
from pages.shared.selection import select, selection

if TYPE_CHECKING:
    from mi_core.analyses.attention_result import AttentionResult


def draw_head(result: AttentionResult, head: Head) -> None:
    """Everything about one head."""
    from mi_core.exports.attention import pattern_figure

    query, key = query_of(result), key_of(result)
    _draw_row(result, head, query, key)
    figure = pattern_figure(result, [head], views(), chosen=None if key is None else (query, key))
    figure_card(
        "attention_square", figure, on_cell=choose_square_cell, formula=SQUARE_FORMULA[result.inputs.show]
    )
    _draw_text(result, head, query)
    _draw_pairs(result, head, query, key)
    _draw_sums(result, head, key)


def query_of(result: AttentionResult) -> int:
    """The selected token, or the last one that is shown."""
    start, end = result.window
    position = selection().position
    return position if position is not None and start <= position < end else end - 1


def key_of(result: AttentionResult) -> int | None:
    """The selected key, if the query can read it."""
    key = selection().key
    return key if key is not None and result.window[0] <= key <= query_of(result) else None


def _draw_row(result: AttentionResult, head: Head, query: int, key: int | None) -> None:
    """Which head, its numbers, and a way to the next ones."""
    layer, index = head
    with st.container(horizontal=True, gap="small", vertical_alignment="center", key="attention_head_row"):
        st.markdown(f"#### Layer {layer}, head {index}")
        for word, icon, place, hint in (
            ("previous head", "chevron_left", (layer, index - 1), "Left"),
            ("next head", "chevron_right", (layer, index + 1), "Right"),
            ("layer above", "keyboard_arrow_up", (layer - 1, index), "Up"),
            ("layer below", "keyboard_arrow_down", (layer + 1, index), "Down"),
        ):
            st.button(
                "", icon=f":material/{icon}:", key=f"attention_go_{hint}", help=word, type="tertiary",
                disabled=not (0 <= place[0] < result.n_layers and 0 <= place[1] < result.n_heads),
                on_click=lock, args=place,
            )  # fmt: skip
        draw_actions(result, head, query, key)


def _draw_text(result: AttentionResult, head: Head, query: int) -> None:
    from mi_core.exports.attention import text_figure

    st.segmented_control(
        "Colour the text by", list(DIRECTIONS), format_func=DIRECTIONS.__getitem__, key="attention_direction",
        required=True, help="Click a token in the text (or in the header) to choose it.",
    )  # fmt: skip
    figure = text_figure(result, head, views()[0], query, st.session_state["attention_direction"])
    figure_card("attention_text", figure, on_cell=choose_token)


def choose_token(cell: dict[str, Any]) -> None:
    """A click on a token of the text."""
    position = cell.get("position")
    if isinstance(position, int):
        select(replace(selection(), position=position, key=None))


def _draw_pairs(result: AttentionResult, head: Head, query: int, key: int | None) -> None:
    from mi_core.charts.attention import head_pairs
    from mi_core.exports.attention import pairs_figure

    view = views()[0]
    pairs = head_pairs(result, head, view)
    places = [(pair.query, pair.key) for pair in pairs]
    chosen = places.index((query, key)) if key is not None and (query, key) in places else None

    def choose(cell: dict[str, Any]) -> None:
        index = cell.get("index")
        if isinstance(index, int) and 0 <= index < len(pairs):
            select(replace(selection(), position=pairs[index].query, key=pairs[index].key))

    figure_card("attention_pairs", pairs_figure(result, head, view, chosen=chosen), on_cell=choose)


def _draw_sums(result: AttentionResult, head: Head, key: int | None) -> None:
    from mi_core.charts.attention import key_at
    from mi_core.exports.attention import sums_figure

    def choose(cell: dict[str, Any]) -> None:
        x = cell.get("x")
        if isinstance(x, (int, float)):
            select(replace(selection(), key=key_at(result, x)))

    figure_card("attention_sums", sums_figure(result, head, views(), chosen=key), on_cell=choose)
