"""The circuits section of the model page: which heads copy, what one head does, who reads whom."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import streamlit as st

from pages.shared.figure_card import figure_card
from pages.shared.instant import draw_warnings, instant
from pages.shared.model_circuits_composition import draw_composition
from pages.shared.model_circuits_fields import CIRCUITS
from pages.shared.model_circuits_text import COPYING_FORMULA, HEAD_VIEWS_FORMULA
from pages.shared.selection import select, selection
from pages.shared.session import chosen_about, hub

if TYPE_CHECKING:
    from pages.shared.hub import About

CIRCUIT_NAMES = {"OV": "OV: what it writes", "QK": "QK: where it looks"}


def draw_circuits() -> None:
    """Copying scores, one head's directions, composition between heads; all from the weights alone."""
    about = chosen_about()
    if about is None:
        st.info("The model is not loaded yet; the sidebar shows how far it is.", icon=":material/hourglass:")
        return
    st.caption(
        "What heads can do, read from their weights alone: no prompt is needed. Whether they do it on a "
        "prompt is for Attention, Attribution and Knock-out to say."
    )
    _draw_copying(about)
    _draw_head(about)
    draw_composition(about)


def _draw_copying(about: About) -> None:
    from mi_core.analyses import CopyingScoresInputs, copying_scores, copying_seconds
    from mi_core.exports.copying_scores import copying_figure

    model = hub().resident(about.spec)
    result = instant(
        "copying_scores",
        CopyingScoresInputs(),
        copying_scores,
        "Copying scores",
        about=about,
        seconds=None if model is None else copying_seconds(model),
    )
    if result is None:
        return
    draw_warnings(result)
    figure = copying_figure(result, chosen=_chosen_head(about))
    figure_card("copying_scores", figure, on_cell=_choose_head, formula=COPYING_FORMULA)


def _choose_head(cell: dict[str, Any]) -> None:
    layer, head = cell.get("row"), cell.get("head")
    if isinstance(layer, int) and isinstance(head, int):
        select(replace(selection(), layer=layer, head=head))


def _chosen_head(about: About) -> tuple[int, int] | None:
    """The selected head, if this model has it."""
    now = selection()
    if now.layer is None or now.head is None:
        return None
    inside = now.layer < about.dims.n_layers and now.head < about.dims.n_heads
    return (now.layer, now.head) if inside else None


def _draw_head(about: About) -> None:
    st.subheader("One head")
    elsewhere = _not_here(about)
    if elsewhere:
        # Drawn instead of the boxes, which would drop a value that they do not offer without a word.
        st.warning(f"This model has no {elsewhere}.", icon=":material/link_off:")
        gone = replace(selection(), layer=None, head=None)
        st.button("Let go of it", key="close_head", on_click=select, args=(gone,))
        return
    _draw_head_settings(about)
    head = _chosen_head(about)
    if head is None:
        st.info("Click a head above, or choose a layer and a head.", icon=":material/ads_click:")
        return
    _draw_directions(about, *head)


def _not_here(about: About) -> str:
    """The selected layer or head that this model does not have, in words; empty if it has both."""
    now = selection()
    layer = now.layer is not None and now.layer >= about.dims.n_layers
    head = now.head is not None and now.head >= about.dims.n_heads
    if layer and head:
        return f"head L{now.layer}H{now.head}"
    if layer:
        return f"layer {now.layer}"
    return f"head {now.head}" if head else ""


def _draw_head_settings(about: About) -> None:
    """The shared selection's layer and head, and what to show of them."""
    with st.container(horizontal=True, gap="small", vertical_alignment="bottom", key="circuit_settings"):
        for name, count in (("layer", about.dims.n_layers), ("head", about.dims.n_heads)):
            st.selectbox(
                name.capitalize(),
                range(count),
                index=None,
                key=f"selected_{name}",
                width=110,
                placeholder="none",
            )
        st.segmented_control(
            "Circuit", CIRCUITS, format_func=CIRCUIT_NAMES.__getitem__, key="circuit", required=True
        )
        st.number_input("Directions", min_value=1, max_value=8, key="circuit_directions", width=120)
        st.number_input("Tokens per end", min_value=1, max_value=20, key="circuit_tokens", width=140)


def _draw_directions(about: About, layer: int, head: int) -> None:
    from mi_core.analyses import HeadViewsInputs, head_views
    from mi_core.exports.head_views import direction_figure, spectrum_figure

    state = st.session_state
    inputs = HeadViewsInputs(
        layer, head, state["circuit"], int(state["circuit_directions"]), int(state["circuit_tokens"])
    )
    result = instant("head_views", inputs, head_views, f"L{layer}H{head}", about=about)
    if result is None:
        return
    draw_warnings(result)
    if result.n_directions:
        figure_card("head_directions", direction_figure(result), formula=HEAD_VIEWS_FORMULA)
    figure_card("head_spectrum", spectrum_figure(result), formula=HEAD_VIEWS_FORMULA)
