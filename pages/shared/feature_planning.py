"""The planning tab: features pushed at one token at a time, what the model then says, and who looks there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import streamlit as st

from mi_core.errors import InputError
from mi_core.transcoders.planning_inputs import PlanningInputs
from mi_core.transcoders.planning_pick import PlanningPickInputs
from pages.shared.feature_planning_controls import (
    draw_handover,
    draw_lists,
    draw_presets,
    draw_settings,
    use_picked,
)
from pages.shared.feature_planning_files import draw_files
from pages.shared.feature_planning_text import PLANNING_FORMULA
from pages.shared.feature_routing import draw_routing
from pages.shared.features_page import FeaturesAsked, choose_feature, features_asked
from pages.shared.figure_card import figure_card
from pages.shared.instant import draw_warnings, instant, pass_seconds
from pages.shared.steering_controls import parse_doses, parse_positions
from pages.shared.text import plain

if TYPE_CHECKING:
    from mi_core.model.model import LoadedModel
    from mi_core.transcoders.planning_pick import PlanningPickResult
    from mi_core.transcoders.planning_result import PlanningResult

SHARE = 0.5
"""Of a whole pass: what a run of the sweep costs on average, as it shares all before its edit."""


def draw_planning_tab() -> None:
    """The tab."""
    st.markdown(
        "Push features towards another word at one token after the other. Where does the push act: at an "
        "earlier token, which the end reads, or only where the word is written?"
    )
    draw_presets()
    draw_lists()
    draw_settings()
    asked = features_asked()
    if asked is not None:
        _draw_run(asked)
    draw_files()


def _draw_run(asked: FeaturesAsked) -> None:
    try:
        lists = _features(asked)
        inputs = None if lists is None else _inputs(asked, *lists)
    except InputError as error:
        st.error(plain(str(error)), icon=":material/error:")
        return
    if inputs is None or asked.asked.about is None:
        return
    tokens = 0 if asked.asked.tokens is None else len(asked.asked.tokens)
    runs = (len(inputs.positions) or tokens) * (len(inputs.doses) + 2 * inputs.controls)
    result: PlanningResult | None = instant(
        "planning", inputs, _run, "Planning", about=asked.asked.about,
        seconds=pass_seconds(asked.asked, passes=6.0 + SHARE * runs),
    )  # fmt: skip
    if result is not None:
        draw_warnings(result)
        draw_figures(result)
        draw_handover(result)
        draw_routing(asked, result)


def _features(asked: FeaturesAsked) -> tuple[str, str] | None:
    """(inject, suppress) as lists; None while there are none, and then it is said why."""
    state = st.session_state
    if state["planning_source"] == "pick":
        return _picked(asked)
    if not state["planning_inject"].strip() and not state["planning_suppress"].strip():
        st.info(
            "Name features to inject or to suppress, such as `L5F102`, or load a preset.",
            icon=":material/edit:",
        )
        return None
    return state["planning_inject"], state["planning_suppress"]


def _picked(asked: FeaturesAsked) -> tuple[str, str] | None:
    """Features of both prompts, each with what it does to the two words."""
    state = st.session_state
    if not state["planning_other"].strip() or not state["answer"]:
        st.info(
            "Type a second prompt whose word is the answer above, and that answer: the features that make it "
            "say so are injected into the prompt above.",
            icon=":material/edit:",
        )
        return None
    answer, distractor = state["answer"], state["distractor"] or None
    up = _pick(asked, "up", state["planning_other"], answer, distractor)
    suppressing = bool(distractor) and state["planning_count_down"] > 0
    down = _pick(asked, "down", asked.asked.prompt, distractor, answer) if suppressing else None
    if up is None or (down is None and suppressing):
        return None
    inject = ",".join(up.names)
    suppress = "" if down is None else ",".join(name for name in down.names if name not in up.names)
    use_picked(up, down, inject, suppress)
    return (inject, suppress) if inject or suppress else None


def _pick(
    asked: FeaturesAsked, side: str, prompt: str, answer: str | None, distractor: str | None
) -> PlanningPickResult | None:
    inputs = PlanningPickInputs(
        prompt=prompt,
        answer=answer,
        distractor=distractor,
        count=st.session_state["planning_count" if side == "up" else "planning_count_down"],
        share=float(st.session_state["planning_share"]),
        transcoder=asked.transcoder,
        bos=asked.asked.bos,  # type: ignore[arg-type]  # one of the header's three words
    )
    if asked.asked.about is None:
        return None
    return instant(
        f"planning_pick_{side}", inputs, _run_pick, "Choice of features", about=asked.asked.about,
        seconds=pass_seconds(asked.asked, passes=4.0),
    )  # fmt: skip


def _inputs(asked: FeaturesAsked, inject: str, suppress: str) -> PlanningInputs:
    state = st.session_state
    named = state["planning_positions"].strip()
    return PlanningInputs(
        prompt=asked.asked.prompt,
        inject=inject,
        suppress=suppress,
        answer=state["answer"] or None,
        distractor=state["distractor"] or None,
        strength=float(state["planning_strength"]),
        strengths=parse_doses(state["planning_strengths"], "strengths"),
        positions=tuple(sorted(parse_positions(named))) if named else (),
        controls=state["planning_controls"],
        seed=state["planning_seed"],
        transcoder=asked.transcoder,
        bos=asked.asked.bos,  # type: ignore[arg-type]  # one of the header's three words
    )


def _run(model: LoadedModel, inputs: Any, *, on_step: Any) -> PlanningResult:
    """Runs on the worker thread."""
    from mi_core.transcoders import planning

    return planning(model, inputs, on_step=on_step)


def _run_pick(model: LoadedModel, inputs: Any, *, on_step: Any) -> PlanningPickResult:
    """Runs on the worker thread."""
    from mi_core.transcoders import planning_features

    return planning_features(model, inputs, on_step=on_step)


def draw_figures(result: PlanningResult, name: str = "planning") -> None:
    """The figures that the result has numbers for; a click on a token or a feature chooses it.

    Args:
        result: computed here, or read from a file.
        name: prefix of the cards' names.
    """
    from mi_core.exports import feature_planning as figures

    metric = st.session_state["planning_metric"]
    ours = result.source == "lantern"
    if ours and not _known(result, "probability"):
        st.info("It was stopped before any run was finished, so there is nothing to draw yet.")
        return
    if not _known(result, metric):
        st.info("The file has probabilities only.", icon=":material/info:")
        metric = "probability"
    sweep, formula = figures.sweep_figure(result, metric), PLANNING_FORMULA
    figure_card(f"{name}_sweep", sweep, formula=formula, on_cell=_choose_token if ours else None)
    if len(result.doses) > 1:
        grid = figures.grid_figure(result, metric)
        figure_card(f"{name}_grid", grid, formula=formula, on_cell=lambda cell: _choose_cell(result, cell))
    if not ours:
        return
    figure_card(f"{name}_ways", figures.ways_figure(result), formula=formula, on_cell=_choose_token)
    if (result.risen_after == result.risen_after).any():  # not NaN: some draw was run
        figure_card(f"{name}_own", figures.own_figure(result), formula=formula)
    before = figures.activations_figure(result)
    figure_card(f"{name}_before", before, formula=formula, on_cell=lambda cell: _choose_feature(result, cell))
    st.caption(
        "A click on a token pushes there in the attention figure below; a click in the grid takes that "
        "strength, too; a click on a feature selects it for the other tabs."
    )


def _choose_token(cell: dict[str, Any]) -> None:
    """A click on a line: whose attention is shown below."""
    position = cell.get("x", cell.get("position"))
    if isinstance(position, int):
        st.session_state["routing_position"] = position


def _choose_cell(result: PlanningResult, cell: dict[str, Any]) -> None:
    """A click in the grid: token and strength."""
    _choose_token(cell)
    row = cell.get("strength")
    if isinstance(row, int) and 0 <= row < len(result.doses) and result.doses[row] != 0:
        st.session_state["planning_strength"] = result.doses[row]


def _choose_feature(result: PlanningResult, cell: dict[str, Any]) -> None:
    """A click on a feature: the one that the other tabs show."""
    from mi_core.transcoders.names import parse_feature

    row, position = cell.get("feature"), cell.get("position")
    if isinstance(row, int) and 0 <= row < len(result.features):
        choose_feature(parse_feature(result.features[row]), position if isinstance(position, int) else None)


def _known(result: PlanningResult, metric: str) -> bool:
    """Whether any number of a metric is there."""
    return any(value == value for value in result.line(metric).tolist())
