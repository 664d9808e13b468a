"""Causal trace: where does the model keep what it needs for its answer?"""

import streamlit as st

from pages.shared.trace_average import draw_average_tab
from pages.shared.trace_fields import TABS
from pages.shared.trace_page import draw_trace_tab

st.title("Causal trace")
st.caption(
    "Spoil the subject, then put one clean piece of the computation back at a time: where the answer "
    "returns, the model carries it."
)

one, average = st.tabs(list(TABS.values()), key="trace_tabs", on_change="rerun")
with one:
    if one.open:
        draw_trace_tab()
with average:
    if average.open:
        draw_average_tab()
