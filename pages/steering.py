"""Steering: what does the model say when a vector is added to its stream?"""

from importlib import import_module
from importlib.util import find_spec

import streamlit as st

from pages.shared.steering_fields import TABS
from pages.shared.steering_page import draw_dose_tab, draw_layers_tab

st.title("Steering")
st.caption(
    "Make a vector from prompts, a token or a file, add it to the model's stream, and see how much of it "
    "changes the answer."
)

_OWN = {"dose": draw_dose_tab, "layers": draw_layers_tab}
_ELSEWHERE = {
    "generation": ("pages.shared.generation_page", "draw_generation"),
    "counting": ("pages.shared.helix_page", "draw_helix"),
}
words = [word for word in TABS if word in _OWN or find_spec(_ELSEWHERE[word][0]) is not None]

tabs = st.tabs([TABS[word] for word in words], key="steering_tabs", on_change="rerun")
for word, tab in zip(words, tabs, strict=True):
    with tab:
        if tab.open and word in _OWN:
            _OWN[word]()
        elif tab.open:
            module, function = _ELSEWHERE[word]
            getattr(import_module(module), function)()
