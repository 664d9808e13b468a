"""The steering page's own tabs: settings into inputs, and the figures of the results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import streamlit as st

from mi_core.errors import InputError
from pages.shared.figure_card import figure_card
from pages.shared.instant import Asked, draw_warnings, instant, page_state, pass_seconds, prompt_inputs
from pages.shared.steering_controls import draw_doses, draw_one_dose, draw_vector, parse_doses, wanted
from pages.shared.steering_text import CONVERGENCE_FORMULA, STEERING_FORMULA
from pages.shared.text import plain

if TYPE_CHECKING:
    from mi_core.analyses.steering_dose_result import SteeringDoseResult
    from mi_core.analyses.steering_inputs import SteeringInputs
    from mi_core.model.model import LoadedModel


def draw_dose_tab() -> None:
    """The vector, and its dose curve."""
    asked = prompt_inputs()
    if not page_state(asked) or asked.about is None:
        return
    draw_vector(asked.about)
    draw_doses()
    inputs = _wanted(lambda: _dose_inputs(asked))
    if inputs is None:
        return
    result: SteeringDoseResult | None = instant(
        "steering_dose", inputs, _run("steering_dose"), "Dose curve", about=asked.about,
        seconds=pass_seconds(asked, passes=6.0 + len(inputs.coefficients) * (1.0 + inputs.controls)),
    )  # fmt: skip
    if result is not None:
        _draw_dose(result)


def _dose_inputs(asked: Asked) -> SteeringInputs | None:
    state, found = st.session_state, wanted(asked)
    if found is None:
        return None
    return replace(
        found,
        coefficients=parse_doses(state["steering_doses"]),
        controls=state["steering_controls"],
        seed=state["steering_seed"],
        metric=state["steering_metric"],
        wished=state["steering_wished"],
    )


def _wanted(make: Callable[[], SteeringInputs | None]) -> SteeringInputs | None:
    """The inputs, or the sentence that says why there are none."""
    try:
        return make()
    except InputError as error:
        st.error(plain(str(error)), icon=":material/error:")
        return None


def _run(name: str) -> Callable[..., Any]:
    """The analysis of that name, loaded on the worker thread."""

    def work(model: LoadedModel, inputs: SteeringInputs, *, on_step: Any) -> Any:
        from mi_core import analyses

        return getattr(analyses, name)(model, inputs, on_step=on_step)

    return work


def _metric(result: Any) -> str | None:
    """The metric that is drawn; None and a sentence if this result does not have it."""
    metric = st.session_state["steering_metric"]
    if metric in result.metrics:
        return metric
    st.info("A logit difference needs a distractor: type one above.", icon=":material/edit:")
    return None


def _draw_dose(result: SteeringDoseResult) -> None:
    from mi_core.charts.text import number
    from mi_core.exports.steering import dose_figure, ratio_figure

    draw_warnings(result)
    metric = _metric(result)
    if metric is not None:
        if result.inputs.wished is not None:
            dose = result.wished_dose
            st.metric(
                f"Coefficient for {number(result.inputs.wished)}",
                "not reached" if dose is None else number(dose), width="content",
                help="On straight lines between the doses that were run; never outside them.",
            )  # fmt: skip
        figure_card("steering_dose", dose_figure(result, metric), formula=STEERING_FORMULA)
    figure_card("steering_kl", dose_figure(result, "kl"), formula=STEERING_FORMULA)
    figure_card("steering_ratio", ratio_figure(result), formula=STEERING_FORMULA)


def draw_layers_tab() -> None:
    """The same dose at every layer: effect, convergence, and attention to the steered tokens."""
    asked = prompt_inputs()
    if not page_state(asked) or asked.about is None:
        return
    draw_vector(asked.about)
    draw_one_dose()
    inputs = _wanted(lambda: _one_dose(asked, layer=False))
    if inputs is None:
        return
    seconds = pass_seconds(asked, passes=4.0 + asked.about.dims.n_layers)
    layers = instant(
        "steering_layers", inputs, _run("steering_layers"), "Layer sweep", about=asked.about, seconds=seconds
    )
    if layers is not None:
        _draw_layers(layers)
    matrix_inputs = replace(inputs, threshold=st.session_state["steering_threshold"])
    matrix = instant(
        "steering_convergence", matrix_inputs, _run("steering_convergence"), "Convergence",
        about=asked.about, seconds=seconds,
    )  # fmt: skip
    if matrix is not None:
        _draw_convergence(matrix)
    _draw_routing(asked)


def _one_dose(asked: Asked, *, layer: bool) -> SteeringInputs | None:
    found = wanted(asked, layer=layer)
    return None if found is None else replace(found, coefficient=st.session_state["steering_coefficient"])


def _draw_layers(result: Any) -> None:
    from mi_core.exports.steering import layers_figure

    draw_warnings(result)
    metric = _metric(result)
    if metric is not None:
        figure_card("steering_layers", layers_figure(result, metric), formula=STEERING_FORMULA)
    figure_card("steering_layers_kl", layers_figure(result, "kl"), formula=STEERING_FORMULA)


def _draw_convergence(result: Any) -> None:
    from mi_core.exports.steering import convergence_figure

    for quantity in ("cosine", "distance"):
        figure = convergence_figure(result, quantity)
        figure_card(f"steering_{quantity}", figure, formula=CONVERGENCE_FORMULA)


def _draw_routing(asked: Asked) -> None:
    """Attention to the steered tokens, when only some are."""
    from mi_core.exports.steering import routing_figure

    if st.session_state["steering_where"] == "all":
        st.info(
            "Attention to the steered tokens is shown when only some tokens are steered.",
            icon=":material/info:",
        )
        return
    inputs = _wanted(lambda: _one_dose(asked, layer=True))
    if inputs is None or asked.about is None:
        return
    if asked.tokens is not None and len(asked.tokens) == 1:
        return
    inputs = replace(inputs, queries=st.session_state["steering_queries"])
    result = instant(
        "steering_routing", inputs, _run("steering_routing"), "Attention routing", about=asked.about,
        seconds=pass_seconds(asked, passes=4.0),
    )  # fmt: skip
    if result is not None:
        figure_card("steering_routing", routing_figure(result), formula=STEERING_FORMULA)
