"""The one list of edits of features: adding and removing pieces, from any page."""

from __future__ import annotations

import streamlit as st

from pages.shared.feature_inject_fields import LIST
from pages.shared.knockout_list import joined, pieces


def add(*more: str) -> None:
    """Add to the session's list; for callbacks of buttons."""
    st.session_state[LIST] = joined(st.session_state.get(LIST, ""), *more)


def remove(index: int) -> None:
    """Take one piece out of the session's list."""
    found = pieces(st.session_state[LIST])
    st.session_state[LIST] = ",".join(piece for place, piece in enumerate(found) if place != index)


def clear() -> None:
    """Empty the session's list."""
    st.session_state[LIST] = ""
