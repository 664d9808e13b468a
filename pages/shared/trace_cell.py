"""The chosen cell of a causal trace: what it is, the three runs' top tokens, the spread of the samples, a link to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from mi_core.analyses.causal_trace_inputs import KIND_LABELS, METRICS
from pages.shared.charts import draw_chart
from pages.shared.link import write_link
from pages.shared.selection import Selection, select, selection
from pages.shared.text import plain
from pages.shared.trace_view import chosen_cell, usable_metric

if TYPE_CHECKING:
    from mi_core.analyses.causal_trace_result import CausalTraceResult


def draw_cell(result: CausalTraceResult) -> None:
    """Everything about the selected cell; an invitation when none is selected."""
    cell = chosen_cell(result)
    with st.container(border=True, key="trace_cell"):
        if cell is None:
            _draw_invitation(result)
            return
        _draw_chosen(result, cell)


def _draw_invitation(result: CausalTraceResult) -> None:
    now = selection()
    if now.kind is not None and now.layer is not None:
        st.warning(
            f"The selected cell ({plain(_wanted_name(now))}) is not part of this trace: it has {result.n_layers} layers, "
            f"{len(result.tokens)} tokens and {plain(', '.join(KIND_LABELS[kind] for kind in result.grids))}.",
            icon=":material/link_off:",
        )
    st.markdown(":material/ads_click: **Click a cell** to see what the model says clean, corrupted and restored there.")


def _wanted_name(wanted: Selection) -> str:
    row = f"head {wanted.head}" if wanted.kind == "head" else f"token {wanted.position}"
    return f"{wanted.kind}, layer {wanted.layer}, {row}"


def _draw_chosen(result: CausalTraceResult, cell: tuple[str, int, int]) -> None:
    from mi_core.charts.causal_trace_cell import cell_name, cell_samples, cell_tops, describe_cell

    kind, row, layer = cell
    metric = usable_metric(result)
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown(f"**{plain(cell_name(result, kind, row, layer))}**", width="stretch")
        _link_button()
        st.button("Close", icon=":material/close:", key="close_cell", on_click=select, args=(Selection(),))
    grid = result.grids[kind]
    index = grid.row_of(row)
    if not grid.done[index, layer]:
        st.info("This cell was not run.")
        return
    _draw_numbers(result, kind, index, layer)
    draw_chart(
        cell_tops(result, kind, row, layer), key="cell_tops", alt=describe_cell(result, kind, row, layer)
    )
    stored = "probability" if METRICS[metric].derived else metric
    if result.n_samples > 1:
        st.markdown("**Every noise sample**")
        draw_chart(
            cell_samples(result, kind, row, layer, stored),
            key="cell_samples",
            alt=f"{METRICS[stored].label} of every noise sample: clean, corrupted and patched run.",
        )


def _draw_numbers(result: CausalTraceResult, kind: str, index: int, layer: int) -> None:
    from mi_core.charts.text import number

    metric = usable_metric(result)
    low, high = result.interval(kind, metric)
    value = result.grid(kind, metric)[index, layer]
    band = f"95 % band {number(low[index, layer])} to {number(high[index, layer])}" if result.n_samples > 1 else ""
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
            streamlit_pages()[card.name], label="Open this cell", icon=":material/open_in_new:", query_params=query
        )
        st.code(_address(card.name, query), language=None, wrap_lines=True)


def _address(page: str, query: dict[str, str]) -> str:
    from urllib.parse import urlencode, urlsplit

    here = urlsplit(st.context.url or "")
    base = f"{here.scheme}://{here.netloc}" if here.netloc else ""
    return f"{base}/{page}?{urlencode(query)}"
