"""From a head or a cell to the page that knocks it out, as soon as there is one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from pages.shared.attention_fields import MAX_PINS, pinned_heads, pins_text
from pages.shared.knockout_fields import LIST
from pages.shared.link import write_link

if TYPE_CHECKING:
    from mi_core.analyses.attention_result import AttentionResult

PAGE = "knockout"
LINK_KEY = "ko"
"""URL key of that page's list of interventions; the engine's text form is part of its grammar."""

PINS_KEY = "ko_pins"
"""URL key of the heads whose attention it shows before and after."""


def draw_actions(result: AttentionResult, head: tuple[int, int], query: int, key: int | None) -> None:
    """Links to the Knock-out page with the selection and one edit; nothing while there is no such page."""
    from pages.shared.catalogue import PAGES, all_fields, streamlit_pages
    from pages.shared.edit_list import joined

    card = next((page for page in PAGES if page.name == PAGE), None)
    if card is None:
        return
    # A link that lacks a setting puts it back to its default, so this one carries all pages' settings.
    shared = write_link(st.session_state, all_fields())
    listed = st.session_state[LIST]
    edits = {"Ablate this head": ablation(*head)}
    if key is not None:
        edits["Cut this edge"] = cut(*head, query, key)
    for label, edit in edits.items():
        st.page_link(
            streamlit_pages()[PAGE], label=label, icon=":material/content_cut:",
            query_params={**shared, LINK_KEY: joined(listed, edit), PINS_KEY: _pins(head)},
        )  # fmt: skip


def _pins(head: tuple[int, int]) -> str:
    """The heads shown on the other page, and this one; the oldest ones make room."""
    pins = [one for one in pinned_heads(st.session_state["knockout_pins"]) if one != head]
    return pins_text([*pins, head][-MAX_PINS:])


def ablation(layer: int, head: int) -> str:
    """The head's output set to zero, as text."""
    from mi_core.engine import Edit, format_edit

    return format_edit(Edit("z", layer, "zero", heads=(head,)))


def cut(layer: int, head: int, query: int, key: int) -> str:
    """The edge from a query to a key masked, as text."""
    from mi_core.engine import Edit, format_edit

    return format_edit(Edit("pattern", layer, "mask", (query,), (head,), keys=(key,)))
