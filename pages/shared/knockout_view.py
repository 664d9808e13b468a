"""What a knock-out changed: numbers before and after, tokens, continuation, attention."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import streamlit as st

from pages.shared.before_after_view import (
    draw_continuation,
    draw_downloads,
    draw_empty_checks,
    followed,
    written,
)
from pages.shared.figure_card import figure_card
from pages.shared.knockout_text import KNOCKOUT_FORMULA
from pages.shared.selection import select, selection
from pages.shared.text import code, plain

if TYPE_CHECKING:
    from mi_core.analyses.knockout_result import KnockoutResult


def draw_result(result: KnockoutResult) -> None:
    """Everything, from the table to attention."""
    _draw_table(result)
    if result.interventions:
        from mi_core.exports.knockout import changed_figure

        figure_card("knockout_changed", changed_figure(result), formula=KNOCKOUT_FORMULA)
    draw_continuation(result, "knockout_continuation", result.interventions)
    if result.inputs.pinned_heads:
        _draw_attention(result)
    if result.reference_prompts:
        _draw_reference(result)


def _draw_table(result: KnockoutResult) -> None:
    from mi_core.charts.text import number
    from mi_core.exports.before_after import before_after_table

    frame = before_after_table(result)
    with st.container(border=True, key="knockout_table"):
        st.markdown("**Before and after, at the last token**")
        shown = written(frame, frame.columns[2:5])
        st.dataframe(shown, hide_index=True, alt="Baseline, edited and their difference")
        st.caption(
            plain(
                f"{followed(result)}. One prompt; differences are edited \N{MINUS SIGN} baseline, 0 = no "
                f"change. KL(baseline || edited) = {number(result.kl)} nats."
            )
        )
        if not result.interventions:
            draw_empty_checks(result.checks)
        _draw_downloads(result)


def _draw_downloads(result: KnockoutResult) -> None:
    import json

    from mi_core.analyses.knockout_record import is_candle_mi
    from mi_core.exports.before_after import before_after_table
    from mi_core.exports.knockout import before_after_latex, candle_mi_json

    draw_downloads(
        "knockout_downloads",
        (
            ("CSV", "knockout.csv", lambda: before_after_table(result).to_csv(index=False).encode()),
            ("LaTeX", "knockout.tex", lambda: before_after_latex(result).encode()),
            ("JSON", "knockout.json", lambda: result.to_json().encode()),
            (
                "List",
                "interventions.json",
                lambda: json.dumps({"interventions": list(result.interventions)}).encode(),
            ),
            *(
                [("candle-mi JSON", "attention_knockout.json", lambda: candle_mi_json(result).encode())]
                if is_candle_mi(result.interventions)
                else []
            ),
        ),
    )


def _draw_attention(result: KnockoutResult) -> None:
    from mi_core.exports.knockout import attention_figure

    difference = st.session_state["knockout_squares"] == "difference"
    figure_card("knockout_attention", attention_figure(result, difference=difference), on_cell=_choose_edge)


def _choose_edge(cell: dict[str, Any]) -> None:
    """A click on a cell selects its head, query and key; the menus take them up."""
    from mi_core.charts.knockout import cell_of

    found = cell_of(cell)
    if found is not None:
        layer, head, query, key = found
        select(replace(selection(), layer=layer, head=head, position=query, key=key))
        st.session_state["pick_target"], st.session_state["pick_span"] = "edge", "head"


def _draw_reference(result: KnockoutResult) -> None:
    label = f"The {len(result.reference_prompts)} reference prompts of the mean"
    with st.expander(label, icon=":material/format_list_numbered:"):
        for prompt in result.reference_prompts:
            st.markdown(f"- {code(prompt, 300)}")
