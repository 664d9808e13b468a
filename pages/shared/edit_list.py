"""A list of edits that the session keeps as text, pieces between commas: changed and drawn the same way."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from pages.shared.text import code


def pieces(text: str) -> list[str]:
    """The pieces of a list, without spaces around them."""
    return [piece.strip() for piece in text.split(",") if piece.strip()]


def joined(text: str, *more: str) -> str:
    """A list with more pieces at its end; what is in it already is not added twice."""
    return ",".join(dict.fromkeys([*pieces(text), *more]))


def add_to(name: str, *more: str) -> None:
    """Add to the list of that name in the session; for callbacks of buttons."""
    st.session_state[name] = joined(st.session_state.get(name, ""), *more)


def remove_from(name: str, index: int) -> None:
    """Take one piece out of the list of that name."""
    found = pieces(st.session_state[name])
    st.session_state[name] = ",".join(piece for place, piece in enumerate(found) if place != index)


def empty_list(name: str) -> None:
    """Empty the list of that name."""
    st.session_state[name] = ""


def draw_rows(name: str, texts: Sequence[str], *, key: str, piece_key: str) -> None:
    """The list as rows with a button to remove each, and one for all.

    Args:
        name: of the list in the session.
        texts: its pieces in their canonical form, in its order.
        key: of the container.
        piece_key: singular word in the keys of the buttons, such as "intervention".
    """
    with st.container(horizontal=True, gap="small", key=key):
        for index, text in enumerate(texts):
            st.button(
                text, key=f"remove_{piece_key}_{index}", icon=":material/close:", on_click=remove_from,
                args=(name, index), help=f"Remove {code(text)} from the list", width="content",
            )  # fmt: skip
        if len(texts) > 1:
            st.button(
                "Clear", key=f"clear_{piece_key}s", icon=":material/delete:", type="tertiary",
                on_click=empty_list, args=(name,),
            )  # fmt: skip


def draw_index(label: str, key: str, size: int, start: int = 0) -> int:
    """A number from 0 to below `size`; what another model or prompt left beyond that starts again."""
    if not 0 <= st.session_state.get(key, -1) < size:
        st.session_state[key] = start
    return int(st.number_input(label, min_value=0, max_value=size - 1, step=1, key=key, width=110))
