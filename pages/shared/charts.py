"""Draw a Vega-Lite specification of `mi_core.charts` on a page, in the page's theme, with clicks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import streamlit as st

from pages.shared.theme import theme_name


def draw_chart(
    spec: Mapping[str, Any],
    *,
    key: str,
    alt: str,
    on_cell: Callable[[dict[str, Any]], None] | None = None,
) -> None:
    """Draw a specification (without looks) over the full width.

    Args:
        spec: from a chart builder; the very same is exported.
        key: unique key; with it Streamlit keeps the picture over reruns.
        alt: text that stands for the figure.
        on_cell: called with the fields of the cell that was clicked.
    """
    from mi_core.charts.theme import styled

    drawn = styled(spec, theme=theme_name())
    drawn.pop("width")  # the page's column decides
    # Vega's SVG names a colour bar's gradient by the page's address at the time of drawing; ours changes with
    # every click, and the bar would turn white. A canvas knows no addresses.
    drawn["usermeta"] = {"embedOptions": {"renderer": "canvas"}}
    if on_cell is None:
        st.vega_lite_chart(None, drawn, theme=None, key=key, width="stretch", alt=alt)
        return

    def clicked() -> None:
        cell = picked(st.session_state[key])
        if cell is not None:
            on_cell(cell)

    st.vega_lite_chart(
        None, drawn, theme=None, key=key, width="stretch", alt=alt, on_select=clicked, selection_mode=["cell"]
    )


def picked(event: Any) -> dict[str, Any] | None:
    """The cell in a selection event, or None after a click beside all cells."""
    cells = event["selection"].get("cell") or []
    return dict(cells[0]) if cells else None
