"""Composition scores on the model page: pairs of layers, pairs of heads, the strongest pairs, one pair."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import streamlit as st

from pages.shared.figure_card import figure_card
from pages.shared.instant import draw_warnings, instant
from pages.shared.model_circuits_fields import KINDS, HeadPair
from pages.shared.model_circuits_text import COMPOSITION_FORMULA
from pages.shared.selection import select, selection
from pages.shared.session import hub

if TYPE_CHECKING:
    from mi_core.analyses import CompositionResult
    from mi_core.analyses.composition_result import CompositionKind
    from pages.shared.hub import About

KIND_NAMES = {"Q": "Q: its queries", "K": "K: its keys", "V": "V: its values"}
TOP = 15


def draw_composition(about: About) -> None:
    """Settings, and the scores of all pairs of heads."""
    from mi_core.analyses import CompositionInputs, composition, composition_seconds

    st.subheader("Between heads")
    if about.dims.n_layers < 2:
        st.info("This model has one layer: no head can read what another writes.", icon=":material/info:")
        return
    _draw_settings()
    model, inputs = hub().resident(about.spec), CompositionInputs()
    result = instant(
        "composition",
        inputs,
        composition,
        "Composition scores",
        about=about,
        seconds=None if model is None else composition_seconds(model, inputs),
    )
    if result is None:
        return
    draw_warnings(result)
    _draw_scores(result)


def _draw_settings() -> None:
    with st.container(horizontal=True, gap="medium", vertical_alignment="bottom", key="composition_settings"):
        st.segmented_control(
            "The later head reads with",
            KINDS,
            format_func=KIND_NAMES.__getitem__,
            key="composition_kind",
            required=True,
        )
        st.toggle(
            "Minus random",
            key="composition_excess",
            help="Subtract the score that a head turned at random would have; white is then as random.",
        )


def _draw_scores(result: CompositionResult) -> None:
    from mi_core.charts.composition import ALL_HEADS
    from mi_core.exports.composition import layer_figure, pair_figure

    kind, excess = st.session_state["composition_kind"], st.session_state["composition_excess"]
    pair, layers = _chosen_pair(result), None
    if max(len(result.writers), len(result.readers)) > ALL_HEADS:
        layers = _chosen_layers(result)
        place = None if layers is None else (kind, *layers)
        figure = layer_figure(result, excess=excess, chosen=place)
        figure_card("composition_layers", figure, on_cell=_choose_layers, formula=COMPOSITION_FORMULA)
        if layers is None:
            asked = st.session_state["composition_layers"]
            wrong = "" if asked is None else f"Layers {asked[0]} to {asked[1]} are no pair of this model. "
            st.info(
                f"{wrong}Click a pair of layers to see the scores of their heads.",
                icon=":material/ads_click:",
            )
    if layers is not None or max(len(result.writers), len(result.readers)) <= ALL_HEADS:
        figure = pair_figure(result, kind, layers=layers, excess=excess, chosen=pair)
        figure_card("composition_pairs", figure, on_cell=_choose_in(result), formula=COMPOSITION_FORMULA)
    if pair is not None:
        _draw_pair(result, pair)
    elif st.session_state["composition_pair"] is not None:
        _draw_pair_elsewhere(st.session_state["composition_pair"])
    _draw_top(result, kind, pair)


def _draw_top(result: CompositionResult, kind: CompositionKind, pair: HeadPair | None) -> None:
    from mi_core.exports.composition import top_figure

    best = [(writer, reader) for writer, reader, _ in result.top(kind, TOP)]

    def choose(cell: dict[str, Any]) -> None:
        index = cell.get("index")
        if isinstance(index, int) and 0 <= index < len(best):
            st.session_state["composition_pair"] = best[index]

    if best:
        figure = top_figure(result, kind, TOP, chosen=pair)
        figure_card("composition_top", figure, on_cell=choose, formula=COMPOSITION_FORMULA)


def _choose_in(result: CompositionResult) -> Any:
    """What a click on a pair of heads does; the cell holds indices of the result's heads."""

    def choose(cell: dict[str, Any]) -> None:
        row, column = cell.get("writer"), cell.get("reader")
        if isinstance(row, int) and isinstance(column, int):
            st.session_state["composition_pair"] = (result.writers[row], result.readers[column])

    return choose


def _choose_layers(cell: dict[str, Any]) -> None:
    kind, layers = cell.get("kind"), (cell.get("from"), cell.get("to"))
    if kind in KINDS and all(isinstance(layer, int) for layer in layers):
        st.session_state["composition_kind"] = kind
        st.session_state["composition_layers"] = layers


def _chosen_layers(result: CompositionResult) -> tuple[int, int] | None:
    layers = st.session_state["composition_layers"]
    if layers is None or layers[0] >= layers[1]:
        return None
    return layers if layers[0] in result.from_layers and layers[1] in result.to_layers else None


def _chosen_pair(result: CompositionResult) -> HeadPair | None:
    """The chosen pair, if this model has it."""
    pair = st.session_state["composition_pair"]
    if pair is None or pair[0] not in result.writers or pair[1] not in result.readers:
        return None
    return pair if pair[0][0] < pair[1][0] else None


def _draw_pair_elsewhere(pair: HeadPair) -> None:
    from mi_core.charts.composition import head_name

    writer, reader = pair
    st.warning(
        f"{head_name(writer)} \u2192 {head_name(reader)} is no pair of this model: both heads must be there, "
        "the writer in an earlier layer.",
        icon=":material/link_off:",
    )
    st.button("Let go of it", key="close_pair", on_click=_let_go)


def _draw_pair(result: CompositionResult, pair: HeadPair) -> None:
    """The three scores of the chosen pair, and the way to either head."""
    from mi_core.charts.composition import head_name
    from mi_core.charts.text import number

    writer, reader = pair
    with st.container(horizontal=True, gap="medium", vertical_alignment="bottom", border=True, key="pair"):
        st.markdown(f"**{head_name(writer)} \u2192 {head_name(reader)}**")
        for kind in result.inputs.kinds:
            st.metric(f"{kind}-composition", number(result.score(kind, writer, reader)), width="content")
        st.metric("Random", number(result.baseline), width="content")
        for name, head in (("writer", writer), ("reader", reader)):
            st.button(f"Look at {head_name(head)}", key=f"look_{name}", on_click=_look_at, args=head)
        st.button("Close", icon=":material/close:", key="close_pair", on_click=_let_go)


def _look_at(layer: int, head: int) -> None:
    select(replace(selection(), layer=layer, head=head))


def _let_go() -> None:
    st.session_state["composition_pair"] = None
