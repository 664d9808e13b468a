"""Adding edits of features: picked from menus, pasted, or the pinned ones at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from mi_core.errors import InputError
from pages.shared.edit_list import draw_index, draw_rows, pieces
from pages.shared.feature_inject_fields import LIST
from pages.shared.feature_inject_list import add
from pages.shared.feature_inject_text import EDIT_FORMS
from pages.shared.features_page import pins
from pages.shared.selection import selection
from pages.shared.text import code, plain

if TYPE_CHECKING:
    from mi_core.tokens import TokenizedPrompt
    from mi_core.transcoders.feature_edits import EditMode, FeatureEdit
    from mi_core.transcoders.names import Feature
    from pages.shared.hub import About

MODES: dict[EditMode, str] = {
    "set": "set to",
    "add": "add",
    "scale": "scale by",
    "ablate": "ablate",
    "suppress": "suppress by",
}
STARTS = {"set": 5.0, "add": 5.0, "scale": 2.0, "suppress": 5.0}
_SEEN = "_inject_picked"


def draw_text() -> None:
    """The list as text, to paste into."""
    st.text_input(
        "Edits of features", key=LIST, placeholder="e.g. L5F102@7:set=3, L3F7@all:ablate",
        help="Separated by commas; the address bar carries them.",
    )  # fmt: skip
    with st.expander("How to write them", icon=":material/help:"):
        st.markdown(EDIT_FORMS)


def draw_list(edits: tuple[FeatureEdit, ...]) -> None:
    """The list as rows with a button to remove each."""
    draw_rows(LIST, [one.text for one in edits], key="inject_rows", piece_key="feature_edit")


def draw_empty() -> None:
    """How to begin."""
    st.info(
        plain(
            "Nothing is changed yet, so this is the baseline. Click a feature under “This prompt” and come "
            "back, pick one below, or paste a list into the line above."
        ),
        icon=":material/tune:",
    )


def draw_picker(about: About, tokens: TokenizedPrompt) -> None:
    """Menus that make one edit, of one feature or of every pinned one."""
    from mi_core.transcoders.feature_edits import FeatureEdit
    from mi_core.transcoders.names import Feature

    _follow_selection(len(tokens))
    pinned = pins()
    with (
        st.expander("Add by picking", icon=":material/add:", expanded=not pieces(st.session_state[LIST])),
        st.container(horizontal=True, vertical_alignment="bottom", gap="small", key="inject_picker"),
    ):
        layer = draw_index("Layer", "inject_pick_layer", about.dims.n_layers)
        index = int(st.number_input("Feature", min_value=0, step=1, key="inject_pick_feature", width=130))
        positions = st.multiselect(
            "At tokens", range(len(tokens)), key="inject_pick_positions", placeholder="all", width=260,
            format_func=lambda position: f"{position} {tokens.tokens[position].visible}",
            help="Empty: at all tokens but the special ones at the beginning, and at new ones.",
        )  # fmt: skip
        mode: EditMode = st.selectbox(
            "How", list(MODES), format_func=MODES.__getitem__, key="inject_pick_mode", width=150
        )
        value = _draw_value(mode)
        where = tuple(sorted(positions)) or None

        def made(feature: Feature) -> str:
            return FeatureEdit(feature, mode, value, where).text

        try:
            one, all_pins = made(Feature(layer, index)), [made(feature) for feature in pinned]
        except InputError as error:
            st.caption(plain(str(error)))
            return
        st.button(
            f"Add {one}", key="add_feature_edit", icon=":material/add:", type="primary", on_click=add,
            args=(one,), disabled=one in pieces(st.session_state[LIST]),
        )  # fmt: skip
        if all_pins:
            st.button(
                f"The same for {len(all_pins)} pinned", key="add_pinned_edits", icon=":material/keep:",
                on_click=add, args=tuple(all_pins), help=code(", ".join(all_pins), 300),
            )  # fmt: skip


def _follow_selection(n_tokens: int) -> None:
    """What was just selected, here or in another tab, is what the menus say; later changes stay."""
    now, state = selection(), st.session_state
    state["inject_pick_positions"] = [
        position for position in state.get("inject_pick_positions", []) if position < n_tokens
    ]
    if state.get(_SEEN) == now:
        return
    state[_SEEN] = now
    if now.layer is not None:
        state["inject_pick_layer"] = now.layer
    if now.feature is not None:
        state["inject_pick_feature"] = now.feature
    if now.position is not None and now.position < n_tokens:
        state["inject_pick_positions"] = [now.position]


def _draw_value(mode: str) -> float | None:
    if mode not in STARTS:
        return None
    low = 0.0 if mode == "suppress" else -1e4
    return float(
        st.number_input(
            "Value", min_value=low, max_value=1e4, value=STARTS[mode], key=f"inject_pick_{mode}", width=110
        )
    )
