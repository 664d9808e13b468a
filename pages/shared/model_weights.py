"""The first tab of the model page: drawing, facts, table of weights, norms over the layers, embeddings."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import streamlit as st

from mi_core.analyses.inspect_result import STATISTICS
from pages.shared.figure_card import figure_card
from pages.shared.instant import draw_warnings
from pages.shared.model_fields import GROUPS
from pages.shared.model_inspection import (
    Part,
    choose_block,
    choose_part,
    chosen_part,
    inspection,
    singular_cost,
    start_singular_values,
    with_numbers,
    with_singular_values,
)
from pages.shared.model_weight import draw_weight
from pages.shared.running import duration
from pages.shared.session import chosen_about
from pages.shared.text import plain

if TYPE_CHECKING:
    from mi_core.analyses import InspectResult
    from pages.shared.hub import About

TABLE_HEIGHT = 380
FEW_ROWS = 10  # a short table has no scroll bar and no empty rows
FORMULA = (
    r"$\lVert W\rVert_F=\sqrt{\sum_{ij}W_{ij}^2}\qquad "
    r"\sigma_{\max}=\max_x\frac{\lVert Wx\rVert}{\lVert x\rVert}$"
)
PART_NAMES = {
    "attn": "attention",
    "mlp": "MLP",
    "norm": "norms",
    "embed": "embedding",
    "final_norm": "final norm",
    "unembed": "unembedding",
}


def draw_weights_tab() -> None:
    """Everything about the weights; nothing here depends on the prompt."""
    from mi_core.exports.inspect import architecture_figure

    about = chosen_about()
    result = inspection(about)
    if about is None or result is None:
        return
    draw_warnings(result)
    draw_facts(result)
    part = chosen_part(result)
    figure = architecture_figure(result, layer=part.layer, part=part.name)
    figure_card("architecture", figure, on_cell=choose_part)
    with st.container(border=True, key="card_weights"):
        measured = _draw_table(about, result, part)
    draw_weight(about, result)
    if measured.inputs.statistics:
        _draw_lines(measured, part)
        _draw_embeddings(measured)


def draw_facts(result: InspectResult) -> None:
    """Sizes at a glance."""
    from mi_core.model.progress import format_count

    plan = result.architecture
    grouped = plan.n_heads != plan.n_kv_heads
    facts = {
        "Parameters": format_count(result.parameters),
        "Layers": f"{plan.n_layers}",
        "Heads / KV heads" if grouped else "Heads": f"{plan.n_heads}" + f" / {plan.n_kv_heads}" * grouped,
        "d_model": f"{plan.d_model:,}",
        "d_head": f"{plan.d_head:,}",
        "d_mlp": f"{plan.d_mlp:,}",
        "Vocabulary": f"{plan.d_vocab:,}",
        "Family": plain(plan.family),
    }
    with st.container(horizontal=True, gap="medium", key="weights_sizes"):
        for name, value in facts.items():
            st.metric(name, value, width="content")


# --- the table ---


def _draw_table(about: About, result: InspectResult, part: Part) -> InspectResult:
    """The weights of the chosen part; returns the inspection with everything that is known."""
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="weights_bar"):
        st.markdown(f"**Weights: {plain(_title(part))}**", width="stretch")
        if part != Part():
            st.button("Show all", icon=":material/filter_alt_off:", on_click=choose_block, args=(None,))
        st.toggle("Head by head", key="model_heads")
        _singular_button(about)
    measured = with_singular_values(about) or with_numbers(about, result) or result
    _table(measured, part)
    st.caption(
        "Shapes and names are those of TransformerLens; fused matrices are split, nothing is folded. Numbers "
        "are in units of the weights. Click a box above to filter, mark a row to look at one weight closely."
    )
    return measured


def _title(part: Part) -> str:
    name = PART_NAMES.get(part.name or "", "")
    if part.layer is None:
        return name or "the whole model"
    return f"layer {part.layer}" + (f", {name}" if name else "")


def _singular_button(about: About) -> None:
    if st.session_state["model_singular"]:
        return
    seconds = singular_cost(about)
    known = "" if math.isnan(seconds) else f" (about {duration(seconds)})"
    st.button(
        f"Largest singular values{known}",
        icon=":material/straighten:",
        on_click=start_singular_values,
        key="start_singular",
        help="By an exact singular value decomposition of every matrix, on this model's device.",
    )


def _table(result: InspectResult, part: Part) -> None:
    from mi_core.exports.inspect import weights_table

    heads = st.session_state["model_heads"]
    frame = weights_table(result, rows=part.rows(result, heads=heads))
    empty = [name for name in ("head", "tied_to", *STATISTICS) if not _any(frame[name])]
    numbers = {
        name: st.column_config.NumberColumn(label, format="%.4g", help=meaning)
        for name, (label, meaning) in STATISTICS.items()
    }
    # A key per filter: a mark stays on its row, not on the row that happens to stand there next.
    key = f"weights_{part.layer}_{part.name}_{heads}"
    st.dataframe(
        frame.drop(columns=[*empty, "unit", *(("layer", "role") if part.layer is not None else ())]),
        hide_index=True,
        height="content" if len(frame) <= FEW_ROWS else TABLE_HEIGHT,
        column_config={**numbers, "numbers": st.column_config.NumberColumn(format="localized")},
        key=key,
        on_select=lambda: _mark(key, frame["weight"].tolist()),
        selection_mode="single-row",
        alt=f"Weights of {_title(part)} with shapes and statistics.",
    )


def _any(column: Any) -> bool:
    return bool((column.notna() & (column.astype(str) != "")).any())


def _mark(key: str, names: list[str]) -> None:
    rows = st.session_state[key]["selection"]["rows"]
    st.session_state["model_weight"] = names[rows[0]] if rows else ""


# --- over the layers, and the embeddings ---


def _draw_lines(result: InspectResult, part: Part) -> None:
    from mi_core.charts.inspect import GROUPS as GROUP_LABELS
    from mi_core.exports.inspect import layers_figure

    with st.container(horizontal=True, gap="medium", vertical_alignment="bottom", key="lines_bar"):
        st.selectbox(
            "Statistic",
            list(STATISTICS),
            format_func=lambda name: STATISTICS[name][0],
            key="model_statistic",
            width=230,
        )
        st.segmented_control(
            "Of", GROUPS, format_func=GROUP_LABELS.__getitem__, key="model_group", required=True
        )
    statistic = st.session_state["model_statistic"]
    if statistic == "largest_singular_value" and not result.inputs.singular_values:
        st.info("Largest singular values are not computed yet; the button above the table does it.")
        return
    figure = layers_figure(result, statistic, st.session_state["model_group"], layer=part.layer)
    figure_card("layers", figure, on_cell=_choose_point, formula=FORMULA)


def _choose_point(cell: dict[str, Any]) -> None:
    if isinstance(cell.get("x"), (int, float)):
        choose_block(int(cell["x"]))


def _draw_embeddings(result: InspectResult) -> None:
    from mi_core.exports.inspect import embedding_figure, extreme_tokens

    if not result.embeddings:
        return
    figure_card("embedding", embedding_figure(result))
    with st.expander("Tokens with the shortest and the longest vectors", icon=":material/sort:"):
        st.dataframe(extreme_tokens(result), hide_index=True, alt="Tokens by the norm of their vectors.")
