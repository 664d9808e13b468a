"""A finished (or growing) causal trace on the page: warnings, heatmaps, curve, the chosen cell, table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import streamlit as st

from mi_core.analyses.causal_trace_inputs import METRICS
from pages.shared.charts import draw_chart
from pages.shared.selection import Selection, select, selection
from pages.shared.text import plain

if TYPE_CHECKING:
    from mi_core.analyses.causal_trace_result import CausalTraceResult

SLOT = "causal_trace"


def usable_metric(result: CausalTraceResult) -> str:
    """The chosen metric, or probability where this trace does not have it (no distractor)."""
    metric = st.session_state["metric"]
    return metric if metric in result.metrics else "probability"


def draw_warnings(result: CausalTraceResult) -> None:
    """What has to be known before the figure is read."""
    for warning in result.warnings:
        st.warning(plain(warning), icon=":material/warning:")


def draw_runs_line(result: CausalTraceResult) -> None:
    """Clean and corrupted run in numbers, between which every cell lies."""
    metric = usable_metric(result)
    from mi_core.charts.causal_trace import answer_text, quantity
    from mi_core.charts.text import number

    with st.container(horizontal=True, gap="medium"):
        name = plain(quantity(result, metric))
        st.metric(f"Clean run, {name}", number(result.value(result.clean, metric)), width="content")
        st.metric(f"Corrupted run, {name}", number(result.value(result.corrupted, metric)), width="content")
        st.metric("Target", answer_text(result.answer), width="content", help=_chosen_by(result))


def _chosen_by(result: CausalTraceResult) -> str:
    return "typed by you" if result.answer.chosen_by == "user" else f"top token of the {result.answer.chosen_by}"


def draw_metric_choice(result: CausalTraceResult) -> None:
    """Which number the figures show; all of them come from the same run."""
    if st.session_state["metric"] not in result.metrics:
        label = METRICS[st.session_state["metric"]].label
        st.info(f"{plain(label)} needs a token to compare with; the probability is shown instead.")
        st.session_state["metric"] = "probability"
    st.selectbox(
        "Metric",
        result.metrics,
        format_func=lambda name: METRICS[name].label,
        key="metric",
        width=240,
        help=METRICS[usable_metric(result)].meaning,
    )


def draw_heatmaps(result: CausalTraceResult, *, key: str, clickable: bool = True) -> None:
    """All grids of the trace: panels over tokens on one scale, and heads by themselves.

    Args:
        result: finished or partial.
        key: unique key of the figures.
        clickable: whether a click selects a cell.
    """
    for name, spec, alt in heatmap_specs(result):
        draw_chart(spec, key=f"{key}_{name}", alt=alt, on_cell=choose_cell if clickable else None)


def heatmap_specs(result: CausalTraceResult) -> list[tuple[str, dict[str, Any], str]]:
    """(name, specification, text alternative) of every heatmap of a trace."""
    from mi_core.charts.causal_trace import describe_trace, head_heatmap, position_kinds, trace_heatmap

    metric, found = usable_metric(result), []
    if position_kinds(result):
        spec = trace_heatmap(
            result, metric, chosen=chosen_cell(result), palette=st.session_state.get("palette", "cividis")
        )
        found.append(("positions", spec, describe_trace(result, metric)))
    if "head" in result.grids:
        found.append(
            ("heads", head_heatmap(result, metric, chosen=chosen_cell(result)), describe_trace(result, metric, ("head",)))
        )
    return found


def choose_cell(cell: dict[str, Any]) -> None:
    """A click on a heatmap or a curve: the selection, and with it the address, follow."""
    kind, row, layer = cell.get("kind"), cell.get("row"), cell.get("layer")
    if not isinstance(row, int) or not isinstance(layer, int):
        return
    if kind == "head":
        select(Selection(layer=layer, head=row, kind="head", position=st.session_state["head_position"]))
    elif isinstance(kind, str):
        select(Selection(layer=layer, position=row, kind=kind))


def chosen_cell(result: CausalTraceResult) -> tuple[str, int, int] | None:
    """The selected cell as (kind, row, layer), if this trace has it."""
    now = selection()
    row = now.head if now.kind == "head" else now.position
    if now.kind not in result.grids or row is None or now.layer is None:
        return None
    grid = result.grids[now.kind]  # type: ignore[index]  # just tested
    return (now.kind, row, now.layer) if row in grid.rows and now.layer < result.n_layers else None


def draw_curve(result: CausalTraceResult) -> None:
    """The subject's (or the selected token's) values over the layers, the best layer ringed."""
    from mi_core.charts.causal_trace import position_kinds
    from mi_core.charts.causal_trace_curves import describe_curve, recovery_curve

    kinds = position_kinds(result)
    if not kinds:
        return
    metric, position = usable_metric(result), _curve_position(result)
    token = result.tokens[position]
    where = "last token of the subject" if position == result.subject[1] - 1 else "selected token"
    st.markdown(f"**Over the layers, at the {where}: {plain(f'{position} {token.visible}')}**")
    draw_chart(
        recovery_curve(result, metric, position=position),
        key="trace_curve",
        alt=describe_curve(result, metric, position),
        on_cell=choose_cell,
    )


def _curve_position(result: CausalTraceResult) -> int:
    chosen = chosen_cell(result)
    return result.subject[1] - 1 if chosen is None or chosen[0] == "head" else chosen[1]


def draw_severed(result: CausalTraceResult) -> None:
    """Bars of the state's effect beside its severed versions, when any was traced."""
    from mi_core.charts.causal_trace_curves import SEVERED, severed_bars

    if sum(kind in result.grids for kind in SEVERED) < 2 or "state" not in result.grids:
        return
    st.markdown("**What carries the state's effect**")
    draw_chart(
        severed_bars(result, usable_metric(result), position=_curve_position(result)),
        key="trace_severed",
        alt="Bars per layer of the effect of the state alone, with attention severed and with MLPs severed.",
        on_cell=choose_cell,
    )
