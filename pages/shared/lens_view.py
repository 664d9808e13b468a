"""A lens on the page: the grid, the chosen cell, the followed tokens, the changes by component."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import streamlit as st

from pages.shared.figure_card import figure_card
from pages.shared.lens_fields import MEASURES
from pages.shared.lens_text import LENS_FORMULA, LENS_STEPS_FORMULA
from pages.shared.selection import select, selection
from pages.shared.text import plain

if TYPE_CHECKING:
    from mi_core.analyses import LogitLensResult, LogitLensStepsResult

MEASURE_NAMES = {"rank": "rank", "probability": "probability", "log_probability": "log-probability"}


def draw_grid(result: LogitLensResult, *, key: str = "lens_grid") -> None:
    """The card of the grid; a click selects layer and token."""
    from mi_core.exports.logit_lens import grid_figure

    figure = grid_figure(result, st.session_state["lens_statistic"], chosen=chosen_cell(result))
    figure_card(key, figure, on_cell=choose_cell, formula=LENS_FORMULA)


def choose_cell(cell: dict[str, Any]) -> None:
    """A click on the grid."""
    layer, position = cell.get("layer"), cell.get("position")
    if isinstance(layer, int) and isinstance(position, int):
        select(replace(selection(), layer=layer, position=position))


def choose_layer(cell: dict[str, Any]) -> None:
    """A click on a line over layers."""
    layer = cell.get("x")
    if isinstance(layer, (int, float)):
        select(replace(selection(), layer=int(layer)))


def chosen_cell(result: LogitLensResult) -> tuple[int, int] | None:
    """The selected (layer, position), if this lens has it; the last position when only a layer is chosen."""
    layer = selection().layer
    return None if layer is None or layer not in result.layers else (layer, chosen_position(result))


def chosen_position(result: LogitLensResult) -> int:
    """The selected position, or the last one that is shown."""
    position = selection().position
    return position if position in result.positions else result.positions[-1]


def draw_cell(result: LogitLensResult) -> None:
    """The top tokens of the chosen cell; an invitation when none is chosen."""
    from mi_core.exports.logit_lens import cell_figure

    layer = selection().layer
    cell = chosen_cell(result)
    with st.container(key="lens_cell"):
        if cell is None and layer is not None:
            _draw_elsewhere(result, layer)
        elif cell is None:
            st.markdown(
                ":material/ads_click: **Click a cell**, or choose a layer, to see its most probable tokens."
            )
            st.selectbox(
                "Layer", result.layers, index=None, key="selected_layer", width=130, placeholder="any"
            )
        else:
            figure_card("lens_cell_tops", cell_figure(result, *cell))
            _draw_close()


def _draw_elsewhere(result: LogitLensResult, layer: int) -> None:
    there = layer < result.n_layers
    reason = "is left out by the stride" if there else f"is not there: the model has {result.n_layers}"
    st.warning(f"The selected layer {layer} {reason}.", icon=":material/link_off:")
    _draw_close()


def _draw_close() -> None:
    st.button(
        "Let go of the cell",
        icon=":material/close:",
        key="close_lens_cell",
        on_click=select,
        args=(replace(selection(), layer=None, position=None),),
    )


def draw_words(result: LogitLensResult) -> None:
    """The followed tokens over the layers, at the selected position."""
    from mi_core.exports.logit_lens import words_figure

    st.segmented_control(
        "Lines of the followed tokens",
        MEASURES,
        format_func=MEASURE_NAMES.__getitem__,
        key="lens_measure",
        required=True,
    )
    cell = chosen_cell(result)
    figure = words_figure(
        result,
        chosen_position(result),
        st.session_state["lens_measure"],
        chosen_layer=None if cell is None else cell[0],
    )
    figure_card("lens_words", figure, on_cell=choose_layer)


def draw_steps(result: LogitLensStepsResult) -> None:
    """Attention against MLP, layer by layer."""
    from mi_core.exports.logit_lens import steps_figure

    st.toggle(
        "Leave out layer 0",
        key="lens_from_one",
        help="The first block often changes more than all others together, and hides them.",
    )
    for warning in result.warnings:
        st.caption(f":material/info: {plain(warning)}")
    first = 1 if st.session_state["lens_from_one"] else 0
    figure = steps_figure(result, first_layer=first, chosen_layer=selection().layer)
    figure_card("lens_steps", figure, on_cell=choose_layer, formula=LENS_STEPS_FORMULA)
