"""Model: what is it made of, and what does it say next?"""

import streamlit as st

from pages.shared.model_circuits import draw_circuits
from pages.shared.model_config import draw_config_tab
from pages.shared.model_fields import TABS
from pages.shared.model_next import draw_next_tab
from pages.shared.model_sites import draw_sites_tab
from pages.shared.model_weights import draw_weights_tab

st.title("Model")
st.caption("Every part of the model, what its weights are like, and what it says after your prompt.")

_DRAW = {
    "weights": draw_weights_tab,
    "next": draw_next_tab,
    "sites": draw_sites_tab,
    "config": draw_config_tab,
    "circuits": draw_circuits,
}

tabs = st.tabs(list(TABS.values()), key="model_tabs", on_change="rerun")
for word, tab in zip(TABS, tabs, strict=True):
    with tab:
        if tab.open:
            _DRAW[word]()
