"""Neurons: what makes single neurons of the MLPs fire, and what do they write?"""

import streamlit as st

from pages.shared.instant import page_state, prompt_inputs
from pages.shared.neuron_fields import TABS
from pages.shared.neuron_find import draw_prompt, draw_survey
from pages.shared.neuron_texts import draw_cost, draw_texts, missing_neurons, survey_inputs
from pages.shared.neuron_view import draw_neuron

st.title("Neurons")
st.caption(
    "Find the neurons that fire most, over many texts or at one token of the prompt; then look at one: what "
    "fires it, how often, and which words it pushes."
)

asked = prompt_inputs()
about = asked.about
if about is None:
    page_state(asked)
elif not missing_neurons(about):
    with st.container(border=True, key="neuron_setup"):
        texts = draw_texts()
        inputs = None if texts is None else survey_inputs(texts)
        cost = None if texts is None or inputs is None else draw_cost(texts, about, inputs)
    over_texts, on_prompt = st.tabs(list(TABS.values()), key="neuron_tabs", on_change="rerun")
    with over_texts:
        if over_texts.open and inputs is not None and cost is not None:
            draw_survey(about, inputs, cost)
    with on_prompt:
        if on_prompt.open:
            draw_prompt(asked)
    if inputs is not None and cost is not None:
        st.divider()
        draw_neuron(asked, about, inputs, cost)
