"""One weight closely: how its entries are spread, and its singular values."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from pages.shared.figure_card import figure_card
from pages.shared.instant import instant
from pages.shared.text import code, plain

if TYPE_CHECKING:
    from mi_core.analyses import InspectResult, InspectWeightResult
    from pages.shared.hub import About

SPECTRUM_FORMULA = r"$W=U\,\mathrm{diag}(s)\,V^\top\qquad \text{stable rank}=\lVert W\rVert_F^2/s_0^2$"


def draw_weight(about: About, result: InspectResult) -> None:
    """The marked weight; a hint while none is marked."""
    from mi_core.analyses import InspectWeightInputs, inspect_weight, inspect_weight_cost

    name = st.session_state["model_weight"]
    if not name:
        return
    row = result.index_of(name)
    if row is None:
        st.warning(f"This model has no weight called {code(name)}; mark one in the table.")
        return
    info = result.weights[row]
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="weight_bar"):
        st.markdown(f"### {plain(name)}", width="stretch")
        st.button("Close", icon=":material/close:", key="close_weight", on_click=_close)
    found = instant(
        "inspect_weight", InspectWeightInputs(name), inspect_weight, "Spectrum", about=about,
        seconds=inspect_weight_cost(info),
    )  # fmt: skip
    if found is not None:
        _draw(found)


def _close() -> None:
    st.session_state["model_weight"] = ""


def _draw(found: InspectWeightResult) -> None:
    from mi_core.analyses.inspect_record import shape_text
    from mi_core.charts.text import number
    from mi_core.exports.inspect import entries_figure, spectrum_figure

    facts = {"Shape": shape_text(found.info.shape), "Frobenius norm": number(found.frobenius)}
    if len(found.singular_values):
        facts["Largest singular value"] = number(float(found.singular_values[0]))
        facts["Stable rank"] = number(found.stable_rank)
    with st.container(horizontal=True, gap="medium", key="weight_facts"):
        for name, value in facts.items():
            st.metric(name, value, width="content")
        st.metric("Stored in", plain(found.info.stored_in), width="content")
    left, right = st.columns(2) if len(found.singular_values) else (st.container(), None)
    with left:
        figure_card("entries", entries_figure(found))
    if right is not None:
        with right:
            figure_card("spectrum", spectrum_figure(found), formula=SPECTRUM_FORMULA)
