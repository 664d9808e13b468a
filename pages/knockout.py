"""Knock-out: what changes when parts of the model are taken away?"""

from importlib import import_module
from importlib.util import find_spec

import streamlit as st

from pages.shared.knockout_fields import TABS
from pages.shared.knockout_page import draw_interventions

st.title("Knock-out")
st.caption(
    "Cut, zero, scale or replace heads, edges, neurons and whole layers, and see what the model says then."
)

_ELSEWHERE = {
    "sweeps": ("pages.shared.ablation_sweep_page", "draw_sweeps"),
    "circuits": ("pages.shared.circuit_tab", "draw_circuit_tab"),
}
words = [word for word in TABS if word not in _ELSEWHERE or find_spec(_ELSEWHERE[word][0]) is not None]

tabs = st.tabs([TABS[word] for word in words], key="knockout_tabs", on_change="rerun")
for word, tab in zip(words, tabs, strict=True):
    with tab:
        if tab.open and word == "list":
            draw_interventions()
        elif tab.open:
            module, function = _ELSEWHERE[word]
            getattr(import_module(module), function)()
