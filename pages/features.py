"""Features: what does a transcoder see in this prompt, and what do its features do?"""

import streamlit as st

from pages.shared.features_page import draw_features

st.title("Features")
st.caption(
    "A transcoder rewrites what the MLPs do as a few active features that can be read, searched, changed and "
    "traced to each other."
)
draw_features()
