"""What was asked for and is not there, said until something else is asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import streamlit as st

from pages.shared.link import visit

_REFUSED = "_refused"


def refused(name: str, fits: Callable[[Any], bool], instead: Any = None) -> Any | None:
    """Let go of a value that cannot be used.

    The figures below may need several runs of the page; what was refused in the first must still be said in
    the last.

    Args:
        name: of the value in the session.
        fits: whether a value can be used.
        instead: what the value becomes when it cannot; it means that nothing is asked for.

    Returns:
        The value that was asked for and refused, to be said; None when there is none.
    """
    known = st.session_state.setdefault(_REFUSED, {})
    value = st.session_state[name]
    if value != instead:
        known[name] = (value, visit())
        if not fits(value):
            st.session_state[name] = instead
    asked, when = known.get(name, (None, visit()))
    return None if asked is None or when != visit() or fits(asked) else asked
