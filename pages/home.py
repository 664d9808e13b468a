"""Home: what can be seen here, and where to start."""

import streamlit as st

from pages.shared.home_view import draw_cards, draw_first_figure, draw_start

st.title("See inside a language model")
st.caption(
    "Lantern opens a model, asks one question per page, answers it with exact forward passes, and lets you "
    "take the figure away."
)
draw_first_figure()
draw_cards()
draw_start()
