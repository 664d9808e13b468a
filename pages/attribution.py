"""Attribution: which parts of the model write the answer's logit?"""

import streamlit as st

from pages.shared.attribution_page import draw_attribution

st.title("Attribution")
st.caption(
    "The logit of the answer at the last token, split into what the embedding, every attention, every MLP, "
    "every head and single neurons write towards it."
)
draw_attribution()
