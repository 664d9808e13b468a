"""Below the planning figures: which heads look at the pushed token."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import streamlit as st

from mi_core.errors import InputError
from mi_core.transcoders.planning_inputs import FeatureRoutingInputs
from pages.shared.feature_planning_text import ROUTING_FORMULA
from pages.shared.figure_card import figure_card
from pages.shared.instant import draw_warnings, instant, pass_seconds
from pages.shared.refused import refused
from pages.shared.selection import select, selection
from pages.shared.steering_controls import parse_doses
from pages.shared.text import plain

if TYPE_CHECKING:
    from mi_core.model.model import LoadedModel
    from mi_core.transcoders.planning_result import PlanningResult
    from mi_core.transcoders.routing_result import FeatureRoutingResult
    from pages.shared.features_page import FeaturesAsked


def draw_routing(asked: FeaturesAsked, planned: PlanningResult) -> None:
    """The section: the same push at one token, and every head's attention to it.

    Args:
        asked: prompt and transcoder.
        planned: the experiment above; its best token is taken unless one is named.
    """
    st.subheader("Who looks at the pushed token", anchor=False)
    best = _default_position(planned)
    _refuse_positions(planned)
    with st.container(horizontal=True, gap="small", vertical_alignment="bottom", key="routing_settings"):
        st.number_input(
            "Pushed token", min_value=0, max_value=planned.output, key="routing_position", width=150,
            placeholder=f"{best}", help="Empty: the token before the output at which the push acts most.",
        )  # fmt: skip
        st.number_input(
            "Reading token", min_value=0, max_value=planned.output, key="routing_query", width=150,
            placeholder=f"{planned.output} (last)",
        )  # fmt: skip
        st.text_input("Strengths of the curve", key="routing_strengths", width=280)
    if planned.output == 0 or asked.asked.about is None:
        return
    position = st.session_state["routing_position"]
    try:
        inputs = FeatureRoutingInputs(
            prompt=planned.inputs.prompt,
            inject=planned.inputs.inject,
            suppress=planned.inputs.suppress,
            position=best if position is None else position,
            query=st.session_state["routing_query"],
            strength=planned.inputs.strength,
            strengths=parse_doses(st.session_state["routing_strengths"], "strengths"),
            controls=planned.inputs.controls,
            seed=planned.inputs.seed,
            transcoder=planned.inputs.transcoder,
            bos=planned.inputs.bos,
        )
    except InputError as error:
        st.error(plain(str(error)), icon=":material/error:")
        return
    rows = 2.0 + len(inputs.strengths) + inputs.controls
    result: FeatureRoutingResult | None = instant(
        "feature_routing", inputs, _run, "Attention routing", about=asked.asked.about,
        seconds=pass_seconds(asked.asked, passes=rows),
    )  # fmt: skip
    if result is not None:
        draw_warnings(result)
        draw_routing_figures(result)


def _refuse_positions(planned: PlanningResult) -> None:
    """Forget tokens that the prompt does not have, and say so."""
    for name, label in (("routing_position", "pushed"), ("routing_query", "reading")):
        value = refused(name, lambda position: position <= planned.output)
        if value is not None:
            st.warning(f"There is no {label} token {value:,}; the prompt's tokens are 0 to {planned.output}.")


def _default_position(planned: PlanningResult) -> int:
    """The token before the output at which the answer's probability is highest."""
    line = planned.line("probability").tolist()
    pairs = [
        (value, position)
        for value, position in zip(line, planned.positions, strict=True)
        if position < planned.output and value == value
    ]
    return max(pairs, default=(0.0, 0))[1]


def draw_routing_figures(result: FeatureRoutingResult, name: str = "routing") -> None:
    """The figures that the result has numbers for."""
    from mi_core.exports import feature_planning as figures

    figure = figures.routing_figure(result)
    figure_card(f"{name}_heads", figure, formula=ROUTING_FORMULA, on_cell=lambda cell: _choose(result, cell))
    if len(result.inputs.strengths) > 1:
        figure_card(f"{name}_strengths", figures.routing_sweep_figure(result), formula=ROUTING_FORMULA)


def _choose(result: FeatureRoutingResult, cell: dict[str, Any]) -> None:
    """A click on a head: the one that the page Attention shows, at this query and key."""
    layer, head = cell.get("layer"), cell.get("head")
    if isinstance(layer, int) and isinstance(head, int):
        chosen = replace(selection(), layer=layer, head=head, position=result.query, key=result.position)
        select(replace(chosen, feature=None))


def _run(model: LoadedModel, inputs: Any, *, on_step: Any) -> FeatureRoutingResult:
    """Runs on the worker thread."""
    from mi_core.transcoders import feature_routing

    return feature_routing(model, inputs, on_step=on_step)
