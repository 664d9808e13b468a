"""Knock-out: what changes when parts of the model are taken away?"""

import streamlit as st

from pages.shared.ablation_sweep_page import draw_sweeps
from pages.shared.circuit_tab import draw_circuit_tab
from pages.shared.knockout_fields import TABS
from pages.shared.knockout_page import draw_interventions

st.title("Knock-out")
st.caption(
    "Cut, zero, scale or replace heads, edges, neurons and whole layers, and see what the model says then."
)

_DRAW = {"list": draw_interventions, "sweeps": draw_sweeps, "circuits": draw_circuit_tab}

tabs = st.tabs(list(TABS.values()), key="knockout_tabs", on_change="rerun")
for word, tab in zip(TABS, tabs, strict=True):
    with tab:
        if tab.open:
            _DRAW[word]()
