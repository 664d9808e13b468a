"""The chosen cell of a causal trace: the three runs' top tokens, the spread of the samples, a link."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from mi_core.analyses.causal_trace_inputs import KIND_LABELS, METRICS
from pages.shared.figure_card import figure_card
from pages.shared.link import write_link
from pages.shared.selection import Selection, select, selection
from pages.shared.text import plain
from pages.shared.trace_view import chosen_cell, usable_metric

if TYPE_CHECKING:
    from mi_core.analyses.causal_trace_inputs import Kind
    from mi_core.analyses.causal_trace_result import CausalTraceResult


def draw_cell(result: CausalTraceResult) -> None:
    """Everything about the selected cell; an invitation when none is selected."""
    cell = chosen_cell(result)
    with st.container(key="trace_cell"):
        if cell is not None:
            _draw_chosen(result, cell)
        elif _elsewhere(result):
            _draw_elsewhere(result)
        else:
            st.markdown(
                ":material/ads_click: **Click a cell**, or choose one here, to see what the model says there."
            )
            _draw_picker(result)


def _elsewhere(result: CausalTraceResult) -> bool:
    """Whether a part of the selection is nothing that this trace has."""
    now = selection()
    rows = range(max((max(grid.rows) for grid in result.grids.values()), default=0) + 1)
    row = now.head if now.kind == "head" else now.position
    return (
        (now.kind is not None and now.kind not in result.grids)
        or (now.layer is not None and now.layer >= result.n_layers)
        or (row is not None and row not in rows)
    )


def _draw_elsewhere(result: CausalTraceResult) -> None:
    now = selection()
    row = {"head": now.head} if now.kind == "head" else {"token": now.position}
    named = {"layer": now.layer, **row}
    parts = [now.kind, *(f"{name} {value}" for name, value in named.items() if value is not None)]
    kinds = plain(", ".join(KIND_LABELS[kind] for kind in result.grids))
    wanted = plain(", ".join(part for part in parts if part))
    st.warning(
        f"The selected cell ({wanted}) is not part of this trace: it has {result.n_layers} layers, "
        f"{len(result.tokens)} tokens and {kinds}.",
        icon=":material/link_off:",
    )
    st.button("Let go of it", key="close_cell", on_click=select, args=(Selection(),))


def _draw_picker(result: CausalTraceResult) -> None:
    """The same choice as a click, for the keyboard; the widgets are the selection itself."""
    kinds = list(result.grids)
    heads = st.session_state["selected_kind"] == "head"
    axis = "head" if heads else "position"
    rows = next((grid.rows for grid in result.grids.values() if grid.row_axis == axis), ())

    def row_name(row: int) -> str:
        return f"H{row}" if heads else f"{row} {result.tokens[row].visible}"

    with st.container(horizontal=True, gap="small", vertical_alignment="bottom"):
        st.selectbox(
            "Restored", kinds, index=None, format_func=KIND_LABELS.__getitem__, key="selected_kind", width=200
        )
        st.selectbox(
            "Head" if heads else "Token",
            rows,
            index=None,
            format_func=row_name,
            key="selected_head" if heads else "selected_position",
            width=180,
        )
        st.selectbox(
            "Layer", range(result.n_layers), index=None, key="selected_layer", placeholder="none", width=110
        )


def _draw_chosen(result: CausalTraceResult, cell: tuple[Kind, int, int]) -> None:
    from mi_core.charts.causal_trace_cell import cell_name
    from mi_core.exports.causal_trace import cell_figure, samples_figure

    kind, row, layer = cell
    metric = usable_metric(result)
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown(f"#### {plain(cell_name(result, kind, row, layer))}", width="stretch")
        _link_button()
        st.button("Close", icon=":material/close:", key="close_cell", on_click=select, args=(Selection(),))
    index = result.grids[kind].row_of(row)
    if not result.grids[kind].done[index, layer]:
        st.info("This cell was not run.")
        return
    _draw_numbers(result, kind, index, layer)
    figure_card("cell_tops", cell_figure(result, kind, row, layer))
    if result.n_samples > 1:
        stored = "probability" if METRICS[metric].derived else metric
        figure_card("cell_samples", samples_figure(result, kind, row, layer, stored))


def _draw_numbers(result: CausalTraceResult, kind: Kind, index: int, layer: int) -> None:
    from mi_core.charts.text import number

    metric = usable_metric(result)
    value = result.grid(kind, metric)[index, layer]
    effect = result.effect(kind, metric)[index, layer]
    low, high = (number(end[index, layer]) for end in result.effect_interval(kind, metric))
    with st.container(horizontal=True, gap="medium", key="cell_numbers"):
        st.metric(METRICS[metric].label, number(value), width="content")
        st.metric("Corrupted", number(result.value(result.corrupted, metric)), width="content")
        st.metric("Clean", number(result.value(result.clean, metric)), width="content")
    base = "corrupted" if result.inputs.direction == "denoising" else "clean"
    said = f"Patched minus {base}: {number(effect)}"
    if result.n_samples > 1:
        said += f", 95 % band {low} to {high} (paired by noise sample, n = {result.n_samples})"
    st.caption(f"{said}.")


def _link_button() -> None:
    """The address of exactly this view; it is in the address bar too, but people look for a button."""
    from pages.shared.catalogue import PAGES, fields_of, streamlit_pages

    card = next(page for page in PAGES if page.name == "causal_trace")
    query = write_link(st.session_state, fields_of(card))
    with st.popover("Link", icon=":material/link:", help="The address that opens exactly this cell"):
        st.caption("Opens exactly this cell: prompt, settings and selection are in the address.")
        st.page_link(
            streamlit_pages()[card.name],
            label="Open this cell",
            icon=":material/open_in_new:",
            query_params=query,
        )
        st.code(_address(card.name, query), language=None, wrap_lines=True)


def _address(page: str, query: dict[str, str]) -> str:
    from urllib.parse import urlencode, urlsplit

    here = urlsplit(st.context.url or "")
    base = f"{here.scheme}://{here.netloc}" if here.netloc else ""
    return f"{base}/{page}?{urlencode(query)}"
