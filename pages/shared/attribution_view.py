"""A finished attribution on the page: its numbers, parts, heads, source tokens and neurons as cards."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import streamlit as st

from pages.shared.attribution_text import ATTRIBUTION_FORMULA
from pages.shared.figure_card import figure_card
from pages.shared.selection import Selection, select, selection
from pages.shared.text import plain

if TYPE_CHECKING:
    from mi_core.analyses.attribution_result import AttributionResult
    from mi_core.charts.attribution import Compare


def draw_numbers(result: AttributionResult) -> None:
    """The logit (difference) that is split, and how sure the model is."""
    from mi_core.charts.attribution import quantity
    from mi_core.charts.text import number

    names = ("", " (control)")[: result.n_prompts]
    with st.container(horizontal=True, gap="medium", key="attribution_numbers"):
        for index, name in enumerate(names):
            st.metric(plain(quantity(result)) + name, number(float(result.total[index])), width="content")
        for index, name in enumerate(names):
            st.metric(
                f"P({plain(result.target.visible)}){name}",
                number(float(result.probabilities[index, 0])), width="content",
                help=f"The model's top token is {plain(result.top[index].visible)} "
                f"({number(result.top[index].probability)}).",
            )  # fmt: skip
        if result.softcap is not None:
            said = f"After the softcap of {result.softcap:g}. Parts add up to the logit before it."
            own = number(float(result.model_logits[0, 0]))
            st.metric("Model's logit of the target", own, width="content", help=said)


def draw_parts(result: AttributionResult, *, waterfall: bool, compare: Compare) -> None:
    """All parts in forward order."""
    from mi_core.exports.attribution import parts_figure

    def choose(cell: dict[str, Any]) -> None:
        row = cell.get("row")
        part = result.parts[row] if isinstance(row, int) and 0 <= row < len(result.parts) else None
        if part is not None and part.layer is not None:
            kind = "attn" if part.kind == "attention" else "mlp"
            select(replace(selection(), layer=part.layer, head=None, neuron=None, kind=kind))

    figure = parts_figure(result, waterfall=waterfall, compare=compare, chosen=_chosen_part(result))
    figure_card("attribution_parts", figure, on_cell=choose, formula=ATTRIBUTION_FORMULA)


def _chosen_part(result: AttributionResult) -> int | None:
    """Row of the selected attention or MLP."""
    now = selection()
    kind = {"attn": "attention", "head": "attention", "mlp": "mlp"}.get(now.kind or "")
    wanted = [i for i, part in enumerate(result.parts) if part.layer == now.layer and part.kind == kind]
    return wanted[0] if now.layer is not None and wanted else None


def draw_heads(result: AttributionResult, head: tuple[int, int] | None) -> None:
    """The map of heads; a click splits a head."""
    from mi_core.exports.attribution import heads_figure

    def choose(cell: dict[str, Any]) -> None:
        layer, chosen = cell.get("layer"), cell.get("head")
        if isinstance(layer, int) and isinstance(chosen, int):
            select(replace(selection(), layer=layer, head=chosen, neuron=None, kind="head"))

    figure = heads_figure(result, chosen=head)
    figure_card("attribution_heads", figure, on_cell=choose, formula=ATTRIBUTION_FORMULA)


def draw_sources(result: AttributionResult, head: tuple[int, int] | None) -> None:
    """The selected head over source tokens; an invitation when none is selected."""
    from mi_core.exports.attribution import sources_figure

    with st.container(key="attribution_sources"):
        if head is None:
            st.markdown(
                ":material/ads_click: **Click a head** above, or choose one here, to see which tokens it "
                "brings its share from."
            )
        _picker(result)
        if head is None:
            return
        for prompt in range(result.n_prompts):
            figure = sources_figure(result, *head, prompt=prompt, chosen=_key(result, prompt))
            on_cell = _choose_source if prompt == 0 else None  # the selection is of the first prompt's tokens
            figure_card(f"attribution_sources_{prompt}", figure, on_cell=on_cell, formula=ATTRIBUTION_FORMULA)


def _picker(result: AttributionResult) -> None:
    """The same choice as a click, for the keyboard; the widgets are the selection itself."""
    for name, size in (("selected_layer", result.n_layers), ("selected_head", result.n_heads)):
        if st.session_state[name] is not None and st.session_state[name] >= size:
            return  # a link's head that this model does not have; it is said above
    with st.container(horizontal=True, gap="small", vertical_alignment="bottom"):
        st.selectbox(
            "Layer", range(result.n_layers), index=None, key="selected_layer", placeholder="any", width=130
        )
        st.selectbox(
            "Head", range(result.n_heads), index=None, key="selected_head", placeholder="any", width=130
        )
        if selection().head is not None:
            st.button(
                "Close", icon=":material/close:", key="close_head", on_click=select, args=(Selection(),)
            )


def _key(result: AttributionResult, prompt: int) -> int | None:
    key = selection().key
    return key if prompt == 0 and key is not None and key < len(result.tokens[0]) else None


def _choose_source(cell: dict[str, Any]) -> None:
    position = cell.get("position")
    if isinstance(position, int):
        select(replace(selection(), key=position))


def draw_neurons(result: AttributionResult, count: int, *, compare: Compare) -> None:
    """The neurons with the largest contributions."""
    from mi_core.exports.attribution import neurons_figure

    indices = shown_neurons(result, count)

    def choose(cell: dict[str, Any]) -> None:
        row = cell.get("row")
        if isinstance(row, int) and 0 <= row < len(indices):
            layer, neuron = int(result.neuron_layers[indices[row]]), int(result.neuron_ids[indices[row]])
            select(replace(selection(), layer=layer, neuron=neuron, head=None, kind="mlp"))

    figure = neurons_figure(result, indices, compare=compare, chosen=_chosen_neuron(result, indices))
    figure_card("attribution_neurons_card", figure, on_cell=choose, formula=ATTRIBUTION_FORMULA)


def shown_neurons(result: AttributionResult, count: int) -> tuple[int, ...]:
    """The neurons asked for, and the largest ones up to `count` in all (more, if more were asked for)."""
    top = result.top_neurons(len(result.neuron_ids))
    asked = [index for index in top if result.neuron_name(index) in result.inputs.neurons]
    others = [index for index in top if index not in asked][: max(0, count - len(asked))]
    return tuple(index for index in top if index in asked or index in others)


def _chosen_neuron(result: AttributionResult, indices: tuple[int, ...]) -> int | None:
    now = selection()
    places = [(int(result.neuron_layers[index]), int(result.neuron_ids[index])) for index in indices]
    wanted = (now.layer, now.neuron)
    return places.index(wanted) if wanted in places else None  # type: ignore[arg-type]  # None is in no place
