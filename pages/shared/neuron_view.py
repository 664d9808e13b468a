"""One neuron's page: texts in its colours, contexts, histogram, kinds of text, vocabulary."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import streamlit as st

from mi_core.analyses.neuron_inputs import NeuronInputs, NeuronTextInputs
from pages.shared.figure_card import figure_card
from pages.shared.instant import Asked, draw_warnings, instant, pass_seconds
from pages.shared.neuron_fields import AROUND, MAX_TEST, SIGNS
from pages.shared.neuron_method import VOCABULARY_FORMULA
from pages.shared.neuron_texts import seconds_to_ask
from pages.shared.refused import refused
from pages.shared.selection import selection
from pages.shared.text import plain

if TYPE_CHECKING:
    from mi_core.analyses.neuron_inputs import NeuronSurveyInputs
    from mi_core.analyses.neuron_result import NeuronResult
    from mi_core.analyses.neuron_survey_result import SurveyCost
    from mi_core.analyses.neuron_text_result import NeuronTextResult
    from mi_core.model.model import LoadedModel
    from pages.shared.hub import About

VOCABULARY = 12
"""Promoted and suppressed tokens shown, of each."""


def draw_neuron(asked: Asked, about: About, survey: NeuronSurveyInputs, cost: SurveyCost) -> None:
    """The chosen neuron, or how to choose one."""
    place = _draw_choice(about)
    if place is None:
        st.info(
            "No neuron is chosen. Click a cell above, or type a layer and a number.",
            icon=":material/touch_app:",
        )
        return
    layer, number = place
    inputs = NeuronInputs(
        layer,
        number,
        survey.texts,
        survey.set_name,
        vocabulary=VOCABULARY,
        max_tokens=survey.max_tokens,
        bos=survey.bos,
    )
    result = instant(
        "neuron", inputs, _look, f"Neuron L{layer}N{number}", about=about, seconds=seconds_to_ask(about, cost)
    )
    if result is None:
        return
    draw_warnings(result)
    of_prompt = _draw_prompt(asked, result)
    _draw_test(asked, result)
    _draw_contexts(result)
    _draw_statistics(result, of_prompt)


def _draw_choice(about: About) -> tuple[int, int] | None:
    """Layer and number as widgets; what a link asks for and this model lacks is said."""
    limits = {"layer": about.dims.n_layers, "neuron": about.dims.d_mlp}
    for name, count in limits.items():
        value = refused(f"selected_{name}", lambda number, count=count: number < count)
        if value is not None:
            st.warning(f"There is no {name} {value} in this model; it has {name}s 0 to {count - 1}.")
    with st.container(horizontal=True, gap="medium", vertical_alignment="bottom"):
        for name, count in limits.items():
            st.number_input(
                name.capitalize(),
                min_value=0,
                max_value=count - 1,
                step=1,
                key=f"selected_{name}",
                width=130,
                placeholder=f"0 to {count - 1}",
            )
        now = selection()
        if now.layer is not None and now.neuron is not None:
            st.subheader(f"L{now.layer}N{now.neuron}", anchor=False)
            return now.layer, now.neuron
    return None


def _look(model: LoadedModel, inputs: NeuronInputs, *, on_step: Any) -> NeuronResult:
    """Runs on the worker thread."""
    from mi_core.analyses import neuron

    return neuron(model, inputs, on_step=on_step)


def _text(model: LoadedModel, inputs: NeuronTextInputs, *, on_step: Any) -> NeuronTextResult:
    """Runs on the worker thread."""
    from mi_core.analyses import neuron_text

    return neuron_text(model, inputs, on_step=on_step)


def _coloured(slot: str, text: str, asked: Asked, result: NeuronResult) -> NeuronTextResult | None:
    """A text on the neuron's fixed scale."""
    if asked.about is None:
        return None
    inputs = NeuronTextInputs(
        text,
        result.inputs.layer,
        result.inputs.neuron,
        bound=result.bound,
        bos=result.inputs.bos,
    )
    return instant(
        slot, inputs, _text, "Text in the neuron's colours", about=asked.about, seconds=pass_seconds(asked)
    )


def _draw_prompt(asked: Asked, result: NeuronResult) -> NeuronTextResult | None:
    if not asked.ready:
        return None
    coloured = _coloured("neuron_text_prompt", asked.prompt, asked, result)
    if coloured is not None:
        from mi_core.exports.neurons import text_figure

        draw_warnings(coloured)
        figure = text_figure(coloured, "The prompt in this neuron's colours", chosen=selection().position)
        figure_card("neuron_prompt_text", figure)
    return coloured


def _draw_test(asked: Asked, result: NeuronResult) -> None:
    st.text_area(
        "Test text",
        key="neuron_test",
        height=70,
        max_chars=MAX_TEST,
        placeholder="Type a text of your own; the colours keep their meaning",
    )
    text = st.session_state["neuron_test"]
    if not text.strip():
        return
    coloured = _coloured("neuron_text_test", text, asked, result)
    if coloured is not None:
        from mi_core.exports.neurons import text_figure

        draw_warnings(coloured)
        figure_card("neuron_test_text", text_figure(coloured, "Your text in this neuron's colours"))


def _draw_contexts(result: NeuronResult) -> None:
    from mi_core.exports.neurons import contexts_figure

    with st.container(horizontal=True, gap="medium", vertical_alignment="bottom"):
        st.segmented_control(
            "Contexts with", list(SIGNS), format_func=SIGNS.__getitem__, key="neuron_sign", required=True
        )
        st.segmented_control(
            "Shown", list(AROUND), format_func=AROUND.__getitem__, key="neuron_around", required=True
        )
        st.number_input("How many", min_value=1, max_value=50, key="neuron_contexts", width=120)
    state = st.session_state
    around = None if state["neuron_around"] == "all" else int(state["neuron_around"])
    figure = contexts_figure(result, count=state["neuron_contexts"], sign=state["neuron_sign"], around=around)
    figure_card("neuron_contexts", figure)


def _draw_statistics(result: NeuronResult, of_prompt: NeuronTextResult | None) -> None:
    from mi_core.exports.neurons import categories_figure, histogram_figure

    left, right = st.columns(2)
    with left:
        figure_card("neuron_histogram", histogram_figure(result, marks=_marks(of_prompt)))
        figure_card("neuron_categories", categories_figure(result))
    with right:
        _draw_vocabulary(result)


def _marks(of_prompt: NeuronTextResult | None) -> tuple[tuple[float, str], ...]:
    """Where the chosen token of the prompt lies in the histogram."""
    if of_prompt is None:
        return ()
    from mi_core.charts.text import token_label

    last = len(of_prompt.tokens) - 1
    position = selection().position
    position = last if position is None else min(position, last)
    if position < of_prompt.first:
        return ()
    return ((float(of_prompt.activations[position]), token_label(position, of_prompt.tokens[position])),)


def _draw_vocabulary(result: NeuronResult) -> None:
    if result.vocabulary.problem:
        st.info(plain(f"No vocabulary: {result.vocabulary.problem}"), icon=":material/block:")
        return
    from mi_core.exports.neurons import vocabulary_figure

    figure_card("neuron_vocabulary", vocabulary_figure(result), formula=VOCABULARY_FORMULA)
