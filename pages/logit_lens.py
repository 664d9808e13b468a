"""Logit lens: what would the model say if it stopped at this layer?"""

import streamlit as st

from pages.shared.lens_fields import TABS
from pages.shared.lens_page import draw_lens_tab
from pages.shared.lens_sweep import draw_sweep_tab
from pages.shared.tuned_lens_page import draw_tuned_tab

st.title("Logit lens")
st.caption(
    "Read every layer through the model's own output: down a column you see a prediction form, from a first "
    "guess to the answer."
)

one, many, tuned = st.tabs(list(TABS.values()), key="lens_tabs", on_change="rerun")
with one:
    if one.open:
        draw_lens_tab()
with many:
    if many.open:
        draw_sweep_tab()
with tuned:
    if tuned.open:
        draw_tuned_tab()
