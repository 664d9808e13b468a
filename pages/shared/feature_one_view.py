"""What one feature writes and reads, as figure cards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import streamlit as st

from pages.shared.feature_one_fields import ALL_LAYERS
from pages.shared.feature_one_text import READS_FORMULA, WRITES_FORMULA
from pages.shared.figure_card import figure_card
from pages.shared.refused import refused
from pages.shared.text import plain

if TYPE_CHECKING:
    from mi_core.transcoders.weights_result import FeatureWeightsResult

WRITE_LAYER = "feature_write_layer"


def draw_writes(result: FeatureWeightsResult) -> None:
    """Words written to the chosen target layer, and where it writes at all."""
    if not result.written:
        return
    from mi_core.exports.feature_weights import histogram_figure, rows_figure, written_figure

    column = _column(result)
    left, right = st.columns(2)
    with left:
        figure_card("feature_written", written_figure(result, column), formula=WRITES_FORMULA)
    with right:
        _draw_target(result)
        figure = rows_figure(result, chosen=column - 1 if column else None)
        figure_card("feature_rows", figure, on_cell=lambda cell: _choose_index(result, cell))
        figure_card("feature_histogram", histogram_figure(result))
    _draw_layers(result, column)


def _column(result: FeatureWeightsResult) -> int:
    """The column of the chosen target layer; one that this feature does not write to is forgotten."""
    options = _options(result)
    lost = refused(WRITE_LAYER, lambda layer: layer in options, instead=ALL_LAYERS)
    if lost is not None:
        told = plain(lost)
        st.info(f"{result.feature.text} does not write to layer {told}; all its layers together are shown.")
    return options.index(st.session_state[WRITE_LAYER])


def _options(result: FeatureWeightsResult) -> list[str]:
    """Values of the chooser, one per column."""
    return [ALL_LAYERS, *(str(layer) for layer in result.targets.tolist())]


def _draw_target(result: FeatureWeightsResult) -> None:
    """The chooser of the target layer; with one layer there is nothing to choose."""
    if len(result.targets) > 1:
        st.selectbox(
            "Words written to",
            _options(result),
            format_func=lambda layer: (
                "all target layers together" if layer == ALL_LAYERS else f"layer {layer}"
            ),
            key=WRITE_LAYER,
            help="Or click a bar, or a column of the table below.",
        )


def _choose_index(result: FeatureWeightsResult, cell: dict[str, Any]) -> None:
    index = cell.get("index")
    if isinstance(index, int) and 0 <= index < len(result.targets):
        st.session_state[WRITE_LAYER] = _options(result)[index + 1]


def _choose_column(result: FeatureWeightsResult, cell: dict[str, Any]) -> None:
    column = cell.get("column")
    if isinstance(column, int) and 0 <= column < len(result.columns):
        st.session_state[WRITE_LAYER] = _options(result)[column]


def _draw_layers(result: FeatureWeightsResult, column: int) -> None:
    """Layer by layer, and whether it writes the same to all of them."""
    if len(result.targets) < 2:
        return
    from mi_core.exports.feature_weights import by_layer_figure, cosines_figure

    figure_card(
        "feature_by_layer",
        by_layer_figure(result, chosen=column),
        on_cell=lambda cell: _choose_column(result, cell),
        formula=WRITES_FORMULA,
    )
    with st.expander("Does it write the same to every layer?", icon=":material/compare_arrows:"):
        figure_card("feature_cosines", cosines_figure(result))


def draw_reads(result: FeatureWeightsResult) -> None:
    """Words that it reads."""
    from mi_core.exports.feature_weights import reads_figure

    figure_card("feature_reads", reads_figure(result), formula=READS_FORMULA)
