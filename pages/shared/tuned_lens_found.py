"""The tuned lenses that are there: which one the grid is drawn with, and what each is worth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from pages.shared.text import code, plain
from pages.shared.tuned_lens_training import PROBLEM, measure

if TYPE_CHECKING:
    from mi_core.analyses.tuned_lens_store import FoundLens
    from pages.shared.hub import About

CHOSEN = "lens_file"
"""Session key of the lens that the grid is drawn with; "" = plain."""
_HOW_FAR = "Mean over layers, on the text that its own training held out."
_HELP = "Compare it with the plain lens on the held-out part of the text that is chosen below."


def draw_found(about: About) -> None:
    """A row for every lens of the model, and one for a folder anywhere."""
    from mi_core.analyses.tuned_lens_store import lenses_of

    found = lenses_of(about)
    with st.container(border=True, key="tuned_found"):
        st.markdown("**Lenses of this model**")
        if not found:
            st.markdown(
                "There is none yet. Train one below, or put a folder with `config.json` and "
                "`params.safetensors` into `lenses/` of the model's folder."
            )
        for index, lens in enumerate(found):
            _draw_lens(index, lens)
        _draw_path()
        problem = st.session_state.pop(PROBLEM, "")
        if problem:
            st.warning(plain(problem), icon=":material/info:")


def _draw_lens(index: int, lens: FoundLens) -> None:
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        used = st.session_state.get(CHOSEN) == lens.name
        mark = ":green[:material/check_circle:] " if used else ""
        st.markdown(f"{mark}{code(lens.name, 60)}", width="content")
        st.caption(_about_lens(lens), width="stretch", help=f"{_HOW_FAR} {code(lens.folder, 200)}")
        if lens.problem:
            return _told(lens.problem)
        st.button(
            "In use" if used else "Use in the grid",
            key=f"tuned_use_{index}",
            disabled=used,
            on_click=_use,
            args=(lens.name,),
        )
        st.button("Measure", key=f"tuned_measure_{index}", on_click=measure, args=(lens.name,), help=_HELP)
    return None


def _about_lens(lens: FoundLens) -> str:
    from mi_core.charts.text import number

    place = "in your data folder" if lens.place == "your data folder" else lens.place
    if lens.plain_kl is None or lens.tuned_kl is None:
        return place
    return (
        f"{place} · {number(lens.tuned_kl)} nats per token from the model's output "
        f"(plain lens {number(lens.plain_kl)})"
    )


def _told(problem: str) -> None:
    st.badge("cannot be used", icon=":material/block:", color="orange", help=plain(problem))


def _draw_path() -> None:
    """A lens anywhere on this machine, by its folder."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        st.text_input(
            "Another folder",
            key="tuned_path",
            placeholder="/path/to/a/tuned/lens",
            help="A folder in the layout of the tuned-lens package, with params.safetensors. Pickles "
            "(params.pt) are not read, because they can run code.",
        )
        path = st.session_state["tuned_path"].strip()
        st.button("Use in the grid", key="tuned_use_path", disabled=not path, on_click=_use, args=(path,))
        st.button("Measure", key="tuned_measure_path", disabled=not path, on_click=measure, args=(path,))
        if st.session_state.get(CHOSEN):
            st.button("Back to the plain lens", key="tuned_plain", on_click=_use, args=("",))


def _use(name: str) -> None:
    st.session_state[CHOSEN] = name
