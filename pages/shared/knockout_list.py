"""The one list of interventions: adding and removing pieces, from any page."""

from __future__ import annotations

import streamlit as st

from pages.shared.knockout_fields import LIST


def pieces(text: str) -> list[str]:
    """The pieces of a list, without spaces around them."""
    return [piece.strip() for piece in text.split(",") if piece.strip()]


def joined(text: str, *more: str) -> str:
    """A list with more pieces at its end; what is in it already is not added twice."""
    return ",".join(dict.fromkeys([*pieces(text), *more]))


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
