"""Help: what the figures mean, and what their limits are."""

import streamlit as st

st.title("Help")
