"""A finished (or growing) causal trace on the page: warnings, heatmaps, curve, the chosen cell, table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import streamlit as st

from mi_core.analyses.causal_trace_inputs import KINDS, METRICS
from pages.shared.charts import draw_chart
from pages.shared.figure_card import figure_card
from pages.shared.method_text import TRACE_FORMULA
from pages.shared.selection import Selection, select, selection
from pages.shared.text import plain

if TYPE_CHECKING:
    from mi_core.analyses.causal_trace_inputs import Kind
    from mi_core.analyses.causal_trace_result import CausalTraceResult

SLOT = "causal_trace"
PALETTES = {"cividis": "cividis", "rome": "ROME's hues"}


def usable_metric(result: CausalTraceResult) -> str:
    """The chosen metric, or probability where this trace does not have it (no distractor)."""
    metric = st.session_state["metric"]
    return metric if metric in result.metrics else "probability"


def draw_runs_line(result: CausalTraceResult) -> None:
    """The metric, and the clean and the corrupted run in it, between which every cell lies."""
    from mi_core.charts.causal_trace import answer_text
    from mi_core.charts.text import number

    _give_up_missing_metric(result)
    metric = usable_metric(result)
    with st.container(horizontal=True, gap="medium", vertical_alignment="bottom", key="trace_runs"):
        st.selectbox(
            "Metric",
            result.metrics,
            format_func=lambda name: METRICS[name].label,
            key="metric",
            width=230,
            help=METRICS[metric].meaning,
        )
        st.selectbox(
            "Palette",
            list(PALETTES),
            format_func=PALETTES.__getitem__,
            key="palette",
            width=150,
            help="ROME: the hues of the paper, purple for states, red for attention, green for MLPs.",
        )
        st.metric("Clean run", number(result.value(result.clean, metric)), width="content")
        st.metric("Corrupted run", number(result.value(result.corrupted, metric)), width="content")
        st.metric("Target", plain(answer_text(result.answer)), width="content", help=_chosen_by(result))


def _chosen_by(result: CausalTraceResult) -> str:
    return (
        "typed by you" if result.answer.chosen_by == "user" else f"top token of the {result.answer.chosen_by}"
    )


def _give_up_missing_metric(result: CausalTraceResult) -> None:
    """A metric that this trace does not have is replaced before its widget is drawn, and said."""
    if st.session_state["metric"] not in result.metrics:
        label = METRICS[st.session_state["metric"]].label
        st.info(f"{plain(label)} needs a token to compare with; the probability is shown instead.")
        st.session_state["metric"] = "probability"


def draw_heatmaps(result: CausalTraceResult) -> None:
    """All grids of a finished trace as cards: panels over tokens on one scale, heads by themselves."""
    from mi_core.charts.causal_trace import position_kinds
    from mi_core.exports.causal_trace import head_figure, heatmap_figure

    metric, chosen = usable_metric(result), chosen_cell(result)
    if position_kinds(result):
        figure = heatmap_figure(result, metric, chosen=chosen, palette=st.session_state["palette"])
        figure_card("trace_heatmap", figure, on_cell=choose_cell, formula=TRACE_FORMULA)
    if "head" in result.grids:
        figure = head_figure(result, metric, chosen=chosen)
        figure_card("trace_heads", figure, on_cell=choose_cell, formula=TRACE_FORMULA)


def draw_partial(result: CausalTraceResult) -> None:
    """What is done so far; the fragment that follows the run calls it again and again."""
    from mi_core.charts.causal_trace import head_heatmap, position_kinds, trace_heatmap

    metric = usable_metric(result)
    if position_kinds(result):
        spec = trace_heatmap(result, metric, palette=st.session_state["palette"])
        draw_chart(spec, key="partial_heatmap", alt="The trace so far; hatched cells are not done yet.")
    if "head" in result.grids:
        draw_chart(head_heatmap(result, metric), key="partial_heads", alt="The heads so far.")


def choose_cell(cell: dict[str, Any]) -> None:
    """A click on a heatmap or a curve: the selection, and with it the address, follow."""
    kind, row, layer = cell.get("kind"), cell.get("row"), cell.get("layer")
    if not isinstance(row, int) or not isinstance(layer, int):
        return
    if kind == "head":
        select(Selection(layer=layer, head=row, kind="head", position=st.session_state["head_position"]))
    elif isinstance(kind, str):
        select(Selection(layer=layer, position=row, kind=kind))


def chosen_cell(result: CausalTraceResult) -> tuple[Kind, int, int] | None:
    """The selected cell as (kind, row, layer), if this trace has it."""
    now = selection()
    row = now.head if now.kind == "head" else now.position
    kind: Kind | None = next((known for known in KINDS if known == now.kind and known in result.grids), None)
    if kind is None or row is None or now.layer is None:
        return None
    return (kind, row, now.layer) if row in result.grids[kind].rows and now.layer < result.n_layers else None


def draw_curve(result: CausalTraceResult) -> None:
    """The subject's (or the selected token's) values over the layers, the best layer ringed."""
    from mi_core.charts.causal_trace import position_kinds
    from mi_core.exports.causal_trace import curve_figure

    if position_kinds(result):
        figure = curve_figure(result, usable_metric(result), position=_curve_position(result))
        figure_card("trace_curve", figure, on_cell=choose_cell)


def _curve_position(result: CausalTraceResult) -> int:
    chosen = chosen_cell(result)
    return result.subject[1] - 1 if chosen is None or chosen[0] == "head" else chosen[1]


def draw_severed(result: CausalTraceResult) -> None:
    """Bars of the state's effect beside its severed versions, when any was traced."""
    from mi_core.charts.causal_trace_curves import SEVERED
    from mi_core.exports.causal_trace import severed_figure

    if "state" in result.grids and sum(kind in result.grids for kind in SEVERED) > 1:
        figure = severed_figure(result, usable_metric(result), position=_curve_position(result))
        figure_card("trace_severed", figure, on_cell=choose_cell)
