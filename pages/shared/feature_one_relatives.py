"""A feature's relatives as figure cards: who reads and writes alike, who feeds it, what it feeds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import streamlit as st

from mi_core.transcoders.weights_inputs import FeatureNeighboursInputs
from pages.shared.feature_one_text import ALIKE_FORMULA, INDEPENDENT, VIRTUAL_FORMULA
from pages.shared.feature_source import told
from pages.shared.features_page import FeaturesAsked, choose_feature
from pages.shared.figure_card import figure_card
from pages.shared.instant import draw_warnings, instant
from pages.shared.session import hub
from pages.shared.text import plain

if TYPE_CHECKING:
    from mi_core.model.model import LoadedModel
    from mi_core.transcoders.names import Feature
    from mi_core.transcoders.weights_neighbours_result import FeatureNeighboursResult
    from pages.shared.hub import About


_NOTHING = {
    "reads alike": "No other feature that reads like {} is known.",
    "writes alike": "No other feature that writes like {} is known.",
    "upstream": "No feature is known to write what {} reads.",
    "downstream": "No feature is known to read what {} writes.",
}


def draw_relatives(wanted: FeaturesAsked, about: About, feature: Feature) -> None:
    """Neighbours and virtual weights; a pass that would take long waits for a button."""
    st.markdown(f"#### Relatives of {plain(feature.text)}")
    st.number_input("Features in each list", min_value=1, max_value=30, key="feature_relatives", width=180)
    count = st.session_state["feature_relatives"]
    inputs = FeatureNeighboursInputs(feature.text, wanted.transcoder, count=count)
    result: FeatureNeighboursResult | None = instant(
        "feature_neighbours",
        inputs,
        _neighbours,
        f"Relatives of {feature.text}",
        about=about,
        seconds=_seconds(about, wanted.transcoder),
    )
    if result is None:
        return
    draw_warnings(result, told())
    _draw_pair(result, ("reads alike", "writes alike"), ALIKE_FORMULA)
    if len(result.virtual()):
        st.caption(f":material/info: {INDEPENDENT}")
        _draw_pair(result, ("upstream", "downstream"), VIRTUAL_FORMULA)


def _seconds(about: About, name: str) -> float | None:
    """What the pass takes; None while the transcoder is not open yet."""
    model = hub().resident(about.spec)
    transcoder = None if model is None else model.transcoders.get(name)
    if transcoder is None:
        return None
    from mi_core.transcoders.weights_cost import neighbours_cost

    return neighbours_cost(transcoder).seconds


def _neighbours(
    model: LoadedModel, inputs: FeatureNeighboursInputs, *, on_step: Any
) -> FeatureNeighboursResult:
    """Runs on the worker thread."""
    from mi_core.transcoders import feature_neighbours

    return feature_neighbours(model, inputs, on_step=on_step)


def _draw_pair(result: FeatureNeighboursResult, relations: tuple[str, str], formula: str) -> None:
    """Two relations beside each other; a click on a bar goes to that feature."""
    from mi_core.charts.feature_weights import related
    from mi_core.exports.feature_weights import relatives_figure

    for relation, column in zip(relations, st.columns(2), strict=True):
        with column:
            if not related(result, relation):
                st.caption(_NOTHING[relation].format(plain(result.feature.text)))
                continue
            name = f"feature_{relation.replace(' ', '_')}"
            figure_card(
                name,
                relatives_figure(result, relation),
                on_cell=lambda cell, relation=relation: _choose(result, relation, cell),
                formula=formula,
            )


def _choose(result: FeatureNeighboursResult, relation: str, cell: dict[str, Any]) -> None:
    from mi_core.charts.feature_weights import related

    found, index = related(result, relation), cell.get("index")
    if isinstance(index, int) and 0 <= index < len(found):
        choose_feature(found[index].feature)
