"""A finished sweep on the page: the map, the chosen cell, the ranking, the joint effect."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import streamlit as st

from pages.shared.edit_list import pieces
from pages.shared.figure_card import figure_card
from pages.shared.knockout_fields import LIST
from pages.shared.knockout_list import add
from pages.shared.selection import Selection, select, selection
from pages.shared.text import code, plain

if TYPE_CHECKING:
    from mi_core.analyses import AblationSweepResult, JointAblationResult

FORMULA = r"""
$$
\text{effect}_p = m(\text{run without } p) - m(\text{baseline})
\qquad
\text{floor} = \operatorname{median}_p |\text{effect}_p|
$$

Method: [Wang et al. 2023, *Interpretability in the Wild*](https://arxiv.org/abs/2211.00593).
"""
JOINT_FORMULA = r"""
$$
\sum_i \left[ m(\text{only } i) - m(\text{baseline}) \right]
\quad\text{against}\quad m(\text{all}) - m(\text{baseline})
$$
"""


def draw_partial(result: AblationSweepResult, metric: str) -> None:
    """The map while it fills."""
    from mi_core.exports.ablation_sweep import sweep_figure
    from pages.shared.charts import draw_chart

    if result.done.any():
        figure = sweep_figure(result, metric)
        draw_chart(figure.spec, key="chart_ablation_partial", alt=figure.description or figure.title)


def draw_result(result: AblationSweepResult, metric: str) -> None:
    """Map, chosen cell and ranking; a click on either chooses the cell."""
    from mi_core.exports.ablation_sweep import ranking_figure, sweep_figure

    chosen, order = chosen_cell(result), result.ranked(metric)

    def click_cell(cell: dict[str, Any]) -> None:
        _choose(result, cell.get("row"), cell.get("part"))

    def click_bar(cell: dict[str, Any]) -> None:
        index = cell.get("index")
        if isinstance(index, int) and 0 <= index < len(order):
            _choose(result, *order[index])

    figure_card(
        "ablation_map", sweep_figure(result, metric, chosen=chosen), on_cell=click_cell, formula=FORMULA
    )
    _draw_chosen(result, metric, chosen)
    ranking = ranking_figure(result, metric, chosen=chosen)
    figure_card("ablation_ranking", ranking, on_cell=click_bar, formula=FORMULA)


def draw_joint(result: JointAblationResult, metric: str) -> None:
    """Sum of single effects against the joint effect."""
    from mi_core.charts.text import number
    from mi_core.exports.ablation_sweep import joint_figure

    with st.container(horizontal=True, gap="medium", key="ablation_joint_numbers"):
        st.metric("Sum of single effects", number(result.sum_of_singles(metric)), width="content")
        st.metric("Joint effect", number(result.joint_effect(metric)), width="content")
    for warning in result.warnings:
        st.caption(plain(warning))
    figure_card("ablation_joint", joint_figure(result, metric), formula=JOINT_FORMULA)


def chosen_cell(result: AblationSweepResult) -> tuple[int, int] | None:
    """The cell of the page's selection, if this sweep has it."""
    now, what, (rows, columns) = selection(), result.inputs.what, result.units.shape
    row, column = now.layer, now.key
    if what == "heads":
        column = now.head
    elif what == "modules":
        column = {"attn": 0, "mlp": 1}.get(now.kind or "")
    elif result.inputs.heads:
        name = f"L{now.layer}H{now.head}"
        row = result.inputs.heads.index(name) if name in result.inputs.heads else None
    if row is None or column is None or row >= rows or column >= columns:
        return None
    return row, column


def _choose(result: AblationSweepResult, row: object, column: object) -> None:
    """Make a cell the page's selection."""
    from mi_core.analyses.attribution_inputs import parse_head

    rows, columns = result.units.shape
    if not (isinstance(row, int) and isinstance(column, int) and 0 <= row < rows and 0 <= column < columns):
        return
    what, last = result.inputs.what, len(result.tokens) - 1
    if what == "heads":
        select(Selection(layer=row, head=column, kind="head"))
    elif what == "modules":
        select(Selection(layer=row, kind=("attn", "mlp")[column]))
    elif what == "keys":
        select(Selection(layer=row, key=column))
    elif result.inputs.heads:
        layer, head = parse_head(result.inputs.heads[row])
        select(Selection(layer=layer, head=head, position=last, key=column))
    else:
        select(Selection(layer=row, position=last, key=column))


def _draw_chosen(result: AblationSweepResult, metric: str, chosen: tuple[int, int] | None) -> None:
    """The chosen cell in words, and the button that adds it to the list."""
    from mi_core.charts.ablation_sweep import cell_name, metric_name
    from mi_core.charts.text import number

    if chosen is None:
        st.caption(":material/ads_click: Click a cell or a bar to choose it and to add it to the list.")
        return
    text = result.units.texts[chosen[0]][chosen[1]]
    listed = set(pieces(text)) <= set(pieces(st.session_state[LIST]))
    with st.container(horizontal=True, gap="medium", vertical_alignment="center", key="ablation_chosen"):
        if result.done[chosen]:
            effect = number(float(result.effect(metric)[chosen]))
            top = result.vocabulary[int(result.top_ids[chosen])]
            said = (
                f"effect on {plain(metric_name(result, metric))} **{effect}** "
                f"(noise floor {number(result.floor(metric))}), top token {code(top)}"
            )
        else:
            said = "not run"
        st.markdown(f"**{plain(cell_name(result, *chosen))}**: {said}")
        st.button(
            "In the list" if listed else "Add to the list", icon=":material/playlist_add:", disabled=listed,
            key="ablation_add", on_click=add, args=tuple(pieces(text)), help=f"Adds {plain(text)[:200]}",
        )  # fmt: skip
