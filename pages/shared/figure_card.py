"""The figure card: title, drawing, caption, checks, how to read it, its numbers as a table, and its files."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import streamlit as st

from pages.shared.charts import draw_chart
from pages.shared.text import plain

if TYPE_CHECKING:
    from mi_core.exports.figure import Figure, Format

_MIME = {
    "png": "image/png",
    "svg": "image/svg+xml",
    "pdf": "application/pdf",
    "html": "text/html",
    "csv": "text/csv",
    "json": "application/json",
    "zip": "application/zip",
}


def figure_card(
    name: str,
    figure: Figure,
    *,
    on_cell: Callable[[dict[str, Any]], None] | None = None,
    formula: str = "",
) -> None:
    """Draw a figure with everything that belongs to it.

    Args:
        name: unique short name; the card's widgets are named after it.
        figure: the drawing, its words and its numbers; the very same goes into files.
        on_cell: what a click on a cell does.
        formula: our own Markdown, shown with how to read it.
    """
    with st.container(border=True, key=f"card_{name}"):
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.markdown(f"**{plain(figure.title)}**", width="stretch")
            _export_menu(name, figure)
        draw_chart(figure.spec, key=f"chart_{name}", alt=figure.description or figure.title, on_cell=on_cell)
        with st.container(key=f"caption_{name}"):
            st.caption(plain(figure.caption))
        _failed_checks(figure)
        with st.container(horizontal=True, gap="small"):
            _checks(figure)
            _how_to_read(figure, formula)
            _table(name, figure)


def _failed_checks(figure: Figure) -> None:
    for check in figure.checks:
        if not check.passed:
            st.error(
                f"Check failed: {plain(check.name)}. {plain(check.detail)} Do not trust this figure.",
                icon=":material/report:",
            )


def _checks(figure: Figure) -> None:
    if not figure.checks:
        return
    passed = sum(check.passed for check in figure.checks)
    icon = ":material/verified:" if passed == len(figure.checks) else ":material/report:"
    with st.popover(f"{passed} of {len(figure.checks)} checks passed", icon=icon, type="tertiary"):
        for check in figure.checks:
            mark = ":green[:material/check:]" if check.passed else ":red[:material/close:]"
            st.markdown(f"{mark} **{plain(check.name)}**  \n{plain(check.detail)}")


def _how_to_read(figure: Figure, formula: str) -> None:
    with st.popover("How to read it", icon=":material/menu_book:", type="tertiary"):
        st.markdown(plain(figure.how_to_read))
        if formula:
            st.markdown(formula)


def _table(name: str, figure: Figure) -> None:
    """The numbers behind the drawing; made only when somebody opens it."""
    menu = st.popover(
        "Table", icon=":material/table:", type="tertiary", key=f"table_{name}", on_change="rerun"
    )
    if menu.open:
        with menu:
            st.dataframe(
                figure.frame(), hide_index=True, width=720, height=360, alt=f"The numbers of: {figure.title}"
            )


def _export_menu(name: str, figure: Figure) -> None:
    menu = st.popover("Export", icon=":material/download:", key=f"export_{name}", on_change="rerun")
    if menu.open:
        with menu:
            _export_buttons(name, figure)


def _export_buttons(name: str, figure: Figure) -> None:
    from mi_core.charts.theme import SIZES
    from mi_core.exports.converter import shared_converter

    # Started now, it is ready when the first button is pressed.
    threading.Thread(target=shared_converter().warm, daemon=True).start()
    buttons = st.container(horizontal=True, gap="xsmall")
    size = st.selectbox(
        "Size",
        list(SIZES),
        index=list(SIZES).index("text"),
        format_func=lambda size: SIZES[size].label,
        key=f"size_{name}",
    )
    look = st.segmented_control(
        "Theme", ("print", "light", "dark"), default="print", required=True, key=f"look_{name}"
    )
    with buttons:
        _button(name, figure, "PNG 300 dpi", "png", suffix="@300", dpi=300, preset=size, theme=look)
        _button(name, figure, "PNG 600 dpi", "png", suffix="@600", dpi=600, preset=size, theme=look)
        _button(name, figure, "SVG", "svg", preset=size, theme=look)
        _button(name, figure, "PDF", "pdf", preset=size, theme=look)
        _button(name, figure, "HTML", "html")
        _button(name, figure, "CSV", "csv")
        _button(name, figure, "JSON", "json")
        _button(name, figure, "All (zip)", "zip", preset=size, theme=look)
    st.caption("Every file carries the settings and versions that made it.")


def _button(
    name: str, figure: Figure, label: str, format: Format, *, suffix: str = "", **options: Any
) -> None:
    from mi_core.exports.export import export
    from mi_core.exports.figure import file_name

    st.download_button(
        label,
        functools.partial(export, figure, format, **options),  # made on the click, outside the page's script
        file_name=file_name(figure, format, suffix=suffix),
        mime=_MIME[format],
        on_click="ignore",
        key=f"download_{name}_{format}{suffix}",
    )
