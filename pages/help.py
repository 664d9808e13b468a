"""Help: what the figures mean, and what their limits are."""

import streamlit as st

from pages.shared.help_view import draw_keys, draw_methods, draw_models, draw_sites, draw_words

st.title("Help")
methods, models, words, keys = st.tabs(["Methods", "Models", "Words", "Keys and links"], key="help_tabs")
with methods:
    draw_methods()
with models:
    draw_models()
with words:
    draw_words()
    draw_sites()
with keys:
    draw_keys()
