"""Light or dark, and the few rules of style that Streamlit's configuration has no word for."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import streamlit as st

ASSETS = Path(__file__).resolve().parents[2] / "assets"


def theme_name() -> Literal["light", "dark"]:
    """The theme that the browser shows; light until it has said."""
    return "dark" if st.context.theme.type == "dark" else "light"


def apply_style() -> None:
    """Load `assets/css/lantern.css` (our own file: no text of a user is in it)."""
    st.html(ASSETS / "css" / "lantern.css")
