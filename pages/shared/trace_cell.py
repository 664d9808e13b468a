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
        if cell is None:
            _draw_invitation(result)
        else:
            _draw_chosen(result, cell)


def _draw_invitation(result: CausalTraceResult) -> None:
    now = selection()
    if now.kind is not None and now.layer is not None:
        kinds = plain(", ".join(KIND_LABELS[kind] for kind in result.grids))
        st.warning(
            f"The selected cell ({plain(_wanted_name(now))}) is not part of this trace: it has "
            f"{result.n_layers} layers, {len(result.tokens)} tokens and {kinds}.",
            icon=":material/link_off:",
        )
    st.markdown(
        ":material/ads_click: **Click a cell** to see what the model says there: clean, corrupted, restored."
    )


def _wanted_name(wanted: Selection) -> str:
    row = f"head {wanted.head}" if wanted.kind == "head" else f"token {wanted.position}"
    return f"{wanted.kind}, layer {wanted.layer}, {row}"


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
    low, high = result.interval(kind, metric)
    value = result.grid(kind, metric)[index, layer]
    band = (
        f"95 % band {number(low[index, layer])} to {number(high[index, layer])}"
        if result.n_samples > 1
        else ""
    )
    with st.container(horizontal=True, gap="medium", key="cell_numbers"):
        st.metric(METRICS[metric].label, number(value), width="content")
        st.metric("Corrupted", number(result.value(result.corrupted, metric)), width="content")
        st.metric("Clean", number(result.value(result.clean, metric)), width="content")
    if band:
        st.caption(f"{band} (paired with the corrupted run, {result.n_samples} noise samples).")


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
