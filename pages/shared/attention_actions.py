"""From a head or a cell to the page that knocks it out, as soon as there is one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from pages.shared.link import write_link
from pages.shared.selection import FIELDS

if TYPE_CHECKING:
    from mi_core.analyses.attention_result import AttentionResult

PAGE = "knockout"
LINK_KEY = "ko"
"""URL key of that page's list of edits, in the text form of `mi_core.engine.format_edit`."""


def draw_actions(result: AttentionResult, head: tuple[int, int], query: int, key: int | None) -> None:
    """Links to the Knock-out page with the selection and one edit; nothing while there is no such page."""
    from pages.shared.catalogue import PAGES, fields_of, streamlit_pages

    card = next((page for page in PAGES if page.name == PAGE), None)
    if card is None:
        return
    shared = write_link(st.session_state, [*FIELDS, *fields_of(card)])
    edits = {"Ablate this head": ablation(*head)}
    if key is not None:
        edits["Cut this edge"] = cut(*head, query, key)
    for label, edit in edits.items():
        st.page_link(
            streamlit_pages()[PAGE], label=label, icon=":material/content_cut:",
            query_params={**shared, LINK_KEY: edit},
        )  # fmt: skip


def ablation(layer: int, head: int) -> str:
    """The head's output set to zero, as text."""
    from mi_core.engine import Edit, format_edit

    return format_edit(Edit("z", layer, "zero", heads=(head,)))


def cut(layer: int, head: int, query: int, key: int) -> str:
    """The edge from a query to a key masked, as text."""
    from mi_core.engine import Edit, format_edit

    return format_edit(Edit("pattern", layer, "mask", (query,), (head,), keys=(key,)))
