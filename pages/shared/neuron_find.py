"""Finding a neuron: the survey over texts, and the leading neurons of the prompt."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import streamlit as st

from mi_core.analyses.neuron_inputs import NeuronPromptInputs
from mi_core.analyses.neuron_survey_result import MEASURE_INFO
from pages.shared.charts import draw_chart
from pages.shared.figure_card import figure_card
from pages.shared.instant import Asked, draw_warnings, instant, page_state, pass_seconds
from pages.shared.neuron_fields import MEASURES
from pages.shared.neuron_method import SURVEY_FORMULA
from pages.shared.neuron_texts import seconds_to_ask
from pages.shared.selection import select, selection
from pages.shared.text import plain

if TYPE_CHECKING:
    from mi_core.analyses.neuron_inputs import NeuronSurveyInputs
    from mi_core.analyses.neuron_prompt_result import NeuronPromptResult
    from mi_core.analyses.neuron_survey_result import NeuronSurveyResult, SurveyCost
    from mi_core.model.model import LoadedModel
    from pages.shared.hub import About

ANY_KIND = ""


def draw_survey(about: About, inputs: NeuronSurveyInputs, cost: SurveyCost) -> None:
    """The survey: runs by itself when that takes a moment, otherwise after a button."""
    result = instant(
        "neuron_survey",
        inputs,
        _survey,
        "Survey of neurons",
        about=about,
        seconds=seconds_to_ask(about, cost),
        draw_partial=_draw_partial,
    )
    if result is None:
        return
    draw_warnings(result)
    measure, category = _draw_measure(result)
    from mi_core.exports.neurons import layers_figure, survey_figure

    now = selection()
    chosen = None if now.layer is None or now.neuron is None else (now.layer, now.neuron)

    def choose(cell: dict[str, Any]) -> None:
        _choose_rank(result, measure, category, cell)

    figure = survey_figure(result, measure, category, chosen=chosen)
    figure_card("neuron_survey", figure, on_cell=choose, formula=SURVEY_FORMULA)
    with st.expander("Layer by layer", icon=":material/stacked_line_chart:"):
        figure_card("neuron_layers", layers_figure(result, chosen=now.layer))


def _survey(model: LoadedModel, inputs: NeuronSurveyInputs, *, on_step: Any) -> NeuronSurveyResult:
    """Runs on the worker thread."""
    from mi_core.analyses import neuron_survey

    return neuron_survey(model, inputs, on_step=on_step)


def _draw_partial(result: NeuronSurveyResult) -> None:
    from mi_core.charts.neuron_survey import survey_heatmap

    draw_chart(survey_heatmap(result, "peak"), key="partial_neuron_survey", alt="The leading neurons so far.")


def _draw_measure(result: NeuronSurveyResult) -> tuple[Any, str | None]:
    """What neurons are ranked by; for selectivity, on which kind of text."""
    state = st.session_state
    usable = [name for name in MEASURES if name != "selectivity" or len(result.categories) > 1]
    if state["neuron_measure"] not in usable:
        st.info("Selectivity needs two kinds of text; the strongest activation is shown instead.")
        state["neuron_measure"] = "peak"
    with st.container(horizontal=True, gap="medium", vertical_alignment="bottom"):
        st.selectbox(
            "Ranked by",
            usable,
            format_func=lambda name: MEASURE_INFO[name].label,
            key="neuron_measure",
            width=230,
            help=MEASURE_INFO[state["neuron_measure"]].meaning,
        )
        if state["neuron_measure"] == "selectivity":
            _draw_category(result)
    category = state["neuron_category"] if state["neuron_measure"] == "selectivity" else ANY_KIND
    return state["neuron_measure"], category or None


def _draw_category(result: NeuronSurveyResult) -> None:
    state = st.session_state
    if state["neuron_category"] not in (ANY_KIND, *result.categories):
        st.info(f"These texts have no kind called “{plain(state['neuron_category'])}”.")
        state["neuron_category"] = ANY_KIND
    st.selectbox(
        "For",
        (ANY_KIND, *result.categories),
        format_func=lambda name: name or "each neuron's own best kind",
        key="neuron_category",
        width=260,
    )


def _choose_rank(
    result: NeuronSurveyResult, measure: Any, category: str | None, cell: dict[str, Any]
) -> None:
    """A click on the survey selects the neuron of that layer and rank."""
    layer, rank = cell.get("layer"), cell.get("rank")
    if not isinstance(layer, int) or not isinstance(rank, int):
        return
    ranking = result.ranking(measure, layer, category)
    if 0 <= rank < len(ranking):
        _choose(layer, int(result.neurons[ranking[rank]]))


def _choose(layer: int, neuron: int, position: int | None = None) -> None:
    now = selection()
    position = now.position if position is None else position
    select(replace(now, layer=layer, neuron=neuron, position=position))


def draw_prompt(asked: Asked) -> None:
    """The leading neurons at every token and layer of the prompt above, and of the chosen cell."""
    if not page_state(asked) or asked.about is None or asked.tokens is None:
        return
    inputs = NeuronPromptInputs(asked.prompt, bos=asked.bos)  # type: ignore[arg-type]  # checked by the link
    result = instant(
        "neuron_prompt",
        inputs,
        _prompt,
        "Neurons of the prompt",
        about=asked.about,
        seconds=pass_seconds(asked),
    )
    if result is None:
        return
    from mi_core.exports.neurons import cell_figure, map_figure

    now, last = selection(), len(result.tokens) - 1
    position = last if now.position is None else min(now.position, last)
    layer = now.layer if now.layer is not None and now.layer < result.n_layers else None
    chosen = None if layer is None else (layer, position)

    def choose_cell(cell: dict[str, Any]) -> None:
        _choose_token(result, cell)

    figure_card("neuron_map", map_figure(result, position, chosen=chosen), on_cell=choose_cell)
    if layer is None:
        st.caption("Click a cell: its leading neurons are listed, and the first one is opened below.")
        return

    def choose_bar(cell: dict[str, Any]) -> None:
        index = cell.get("index")
        if isinstance(index, int) and 0 <= index < result.top:
            _choose(layer, int(result.neurons[layer, position, index]))

    figure = cell_figure(result, layer, position, chosen=now.neuron)
    figure_card("neuron_cell", figure, on_cell=choose_bar)


def _prompt(model: LoadedModel, inputs: NeuronPromptInputs, *, on_step: Any) -> NeuronPromptResult:
    """Runs on the worker thread."""
    from mi_core.analyses import neuron_prompt

    return neuron_prompt(model, inputs, on_step=on_step)


def _choose_token(result: NeuronPromptResult, cell: dict[str, Any]) -> None:
    """A click on the map selects the cell, and its leading neuron."""
    layer, position = cell.get("layer"), cell.get("position")
    if not isinstance(layer, int) or not isinstance(position, int):
        return
    if 0 <= layer < result.n_layers and 0 <= position < len(result.tokens):
        _choose(layer, int(result.neurons[layer, position, 0]), position)
