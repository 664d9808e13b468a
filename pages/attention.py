"""Attention: which tokens does each head read, and what does it move?"""

import streamlit as st

from pages.shared.attention_fields import TABS
from pages.shared.attention_page import draw_prompt_tab
from pages.shared.attention_types import draw_types_tab

st.title("Attention")
st.caption(
    "Every head looks from each token to itself and the tokens before it, and moves something from there. "
    "See all heads at once, lock one, and read it cell by cell."
)

prompt, types = st.tabs(list(TABS.values()), key="attention_tabs", on_change="rerun")
with prompt:
    if prompt.open:
        draw_prompt_tab()
with types:
    if types.open:
        draw_types_tab()
