"""Adding interventions: picked from menus, pasted, or from a preset."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import streamlit as st

from pages.shared.edit_list import draw_index, draw_rows, pieces
from pages.shared.knockout_fields import LIST
from pages.shared.knockout_list import add
from pages.shared.knockout_text import FORMS
from pages.shared.selection import selection
from pages.shared.text import plain

if TYPE_CHECKING:
    from mi_core.analyses.interventions import Intervention
    from pages.shared.hub import About

TARGETS = {
    "head": "Head", "attention": "Attention of a layer", "mlp": "MLP of a layer", "neuron": "Neuron",
    "residual": "Residual stream", "edge": "Edge of attention", "row": "Row: a query reads nothing",
    "column": "Column: nobody reads a key",
}  # fmt: skip
MODES = {
    "zero": "zero", "scale": "scale", "hold": "hold at", "mean": "mean", "resample": "resample from B",
    "cut": "cut", "set": "set to",
}  # fmt: skip
_SEEN = "_picked_selection"
SPANS = {"head": "this head", "layer": "all heads of the layer", "all": "all layers"}


def draw_list(interventions: tuple[Intervention, ...]) -> None:
    """The list as rows with a button to remove each."""
    draw_rows(LIST, [one.text for one in interventions], key="knockout_rows", piece_key="intervention")


def draw_text() -> None:
    """The list as text, to paste into."""
    st.text_input(
        "Interventions", key=LIST, placeholder="e.g. L1H2:zero, e14-2@L1H2, L4mlp:mean",
        help="Separated by commas; the address bar carries them.",
    )  # fmt: skip
    with st.expander("How to write them", icon=":material/help:"):
        st.markdown(FORMS)


def draw_empty() -> None:
    """How to begin."""
    st.info(
        plain(
            "Nothing is changed yet, so this is the baseline. Add an intervention: pick one below, paste a "
            "list into the line above, or open Attention, click a head or a cell and choose "
            "“Ablate this head” or “Cut this edge”."
        ),
        icon=":material/content_cut:",
    )


def draw_picker(about: About, n_tokens: int) -> None:
    """Menus that make one intervention."""
    from mi_core.analyses.interventions import MODES as ALLOWED
    from mi_core.errors import InputError

    _follow_selection()
    with st.expander("Add by picking", icon=":material/add:", expanded=not pieces(st.session_state[LIST])):
        with st.container(horizontal=True, vertical_alignment="bottom", gap="small", key="knockout_picker"):
            target = st.selectbox("What", list(TARGETS), format_func=TARGETS.__getitem__, key="pick_target")
            mode = st.selectbox(
                "How", ALLOWED[target], format_func=MODES.__getitem__, key=f"pick_mode_{target}", width=150
            )
            picked = _draw_place(target, about, n_tokens)
            value = _draw_value(target, mode)
            try:
                made = _made(target, mode, picked, value)
            except InputError as error:
                st.caption(plain(str(error)))
                return
            st.button(
                f"Add {made}", key="add_picked", icon=":material/add:", type="primary", on_click=add,
                args=(made,), disabled=made in pieces(st.session_state[LIST]),
            )  # fmt: skip
        _draw_presets(about, n_tokens)


def _follow_selection() -> None:
    """What was just selected, here or on another page, is what the menus say; later changes stay."""
    now = selection()
    if st.session_state.get(_SEEN) == now:
        return
    st.session_state[_SEEN] = now
    for name, value in (
        ("layer", now.layer), ("head", now.head), ("query", now.position), ("key", now.key),
        ("neuron", now.neuron),
    ):  # fmt: skip
        if value is not None:
            st.session_state[f"pick_{name}"] = value


def _draw_place(target: str, about: About, n_tokens: int) -> dict[str, Any]:
    """Layer, head, query, key, neuron and positions, as far as the target has them."""
    dims = about.dims
    attention = target in ("edge", "row", "column")
    span = "head"
    if attention:
        span = st.selectbox(
            "Where", list(SPANS), format_func=SPANS.__getitem__, key="pick_span", width=180
        )  # fmt: skip
    picked: dict[str, Any] = {"span": span, "layer": None, "head": None}
    if span != "all":
        picked["layer"] = draw_index("Layer", "pick_layer", dims.n_layers)
    if target == "head" or (attention and span == "head"):
        picked["head"] = draw_index("Head", "pick_head", dims.n_heads)
    if target in ("edge", "row"):
        picked["query"] = draw_index("Query token", "pick_query", n_tokens, n_tokens - 1)
    if target in ("edge", "column"):
        picked["key"] = draw_index("Key token", "pick_key", n_tokens)
    if target == "neuron":
        picked["neuron"] = draw_index("Neuron", "pick_neuron", max(1, dims.d_mlp))
    if not attention:
        picked["positions"] = tuple(
            st.multiselect(
                "At tokens", range(n_tokens), key="pick_positions", placeholder="all", width=180,
                help="Empty: at all tokens.",
            )
        )  # fmt: skip
    return picked


def _draw_value(target: str, mode: str) -> float | None:
    if mode not in ("scale", "hold", "set"):
        return None
    low, high = (0.0, 1.0 if mode == "set" else 100.0) if target in ("edge", "column") else (-1e4, 1e4)
    start = {"scale": 0.5, "hold": 0.0, "set": 0.5}[mode]
    return float(
        st.number_input("Value", min_value=low, max_value=high, value=start, key=f"pick_{mode}", width=110)
    )


def _made(target: Any, mode: Any, picked: dict[str, Any], value: float | None) -> str:
    """The text of what the menus say.

    Raises:
        InputError: the menus do not fit together.
    """
    from mi_core.analyses.interventions import Intervention

    places = () if picked["layer"] is None else ((picked["layer"], picked["head"]),)
    return Intervention(
        target, mode, places, value, picked.get("positions") or None, picked.get("query"), picked.get("key"),
        picked.get("neuron"),
    ).text  # fmt: skip


def _draw_presets(about: About, n_tokens: int) -> None:
    """candle-mi's knock-out: one edge from the last token to the first, in the middle layer, all heads."""
    from mi_core.analyses.knockout_presets import candle_mi_edge

    edge = candle_mi_edge(about.dims.n_layers, n_tokens)
    st.button(
        f"Preset: last token does not read the first, middle layer ({edge})", key="preset_candle",
        icon=":material/auto_awesome:", type="tertiary", on_click=add, args=(edge,),
        help="The knock-out of candle-mi's example; its JSON keys are one of the exports.",
    )  # fmt: skip
