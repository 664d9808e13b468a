"""What a knock-out changed: numbers before and after, tokens, continuation, attention."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import streamlit as st

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
    _draw_continuation(result)
    if result.inputs.pinned_heads:
        _draw_attention(result)
    if result.reference_prompts:
        _draw_reference(result)


def _draw_table(result: KnockoutResult) -> None:
    from mi_core.charts.text import number
    from mi_core.exports.knockout import before_after_table

    frame = before_after_table(result)
    with st.container(border=True, key="knockout_table"):
        st.markdown("**Before and after, at the last token**")
        shown = frame.copy()
        for name in shown.columns[2:5]:
            shown[name] = [number(value) if value == value else "" for value in frame[name]]  # not NaN
        st.dataframe(shown, hide_index=True, alt="Baseline, edited and their difference")
        said = f"Target: {result.target.visible}"
        if result.target.chosen_by == "model":
            said += ", the baseline's top token"
        if result.distractor is not None:
            said += f"; distractor: {result.distractor.visible}"
        st.caption(
            plain(
                f"{said}. One prompt; differences are edited \N{MINUS SIGN} baseline, 0 = no change. "
                f"KL(baseline || edited) = {number(result.kl)} nats."
            )
        )
        if not result.interventions:
            _draw_checks(result)
        _draw_downloads(result)


def _draw_checks(result: KnockoutResult) -> None:
    for check in result.checks:
        if not check.passed:
            st.error(plain(f"Check failed: {check.name}. {check.detail} Do not trust these numbers."))
    if all(check.passed for check in result.checks):
        st.caption(plain("Checked: an empty list gives the baseline bit for bit."))


def _draw_downloads(result: KnockoutResult) -> None:
    import json

    from mi_core.analyses.knockout_record import is_candle_mi
    from mi_core.exports.knockout import before_after_latex, before_after_table, candle_mi_json

    with st.container(horizontal=True, gap="xsmall", key="knockout_downloads"):
        for label, name, make in (
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
        ):
            st.download_button(
                label, make, file_name=name, key=f"download_{name}", on_click="ignore",
                icon=":material/download:", type="tertiary",
            )  # fmt: skip


def _draw_continuation(result: KnockoutResult) -> None:
    if not len(result.baseline_ids):
        return
    with st.container(border=True, key="knockout_continuation"):
        st.markdown("**Greedy continuation**")
        first = result.first_changed_step
        left, right = st.columns(2)
        for column, name, ids in (
            (left, "Baseline", result.baseline_ids.tolist()),
            (right, "Edited", result.edited_ids.tolist()),
        ):
            with column:
                st.caption(name)
                st.markdown(code("".join(result.vocabulary[token] for token in ids) or "(nothing)", 2000))
        if not result.interventions:
            return
        if first is None:
            st.caption("Both say the same.")
        else:
            st.caption(f"They differ from token {first + 1} of the continuation on.")


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
