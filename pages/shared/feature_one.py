"""The tab of one feature: choosing it, what it writes and reads, its examples, its relatives."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import streamlit as st

from mi_core.transcoders.names import Feature
from mi_core.transcoders.weights_inputs import FeatureWeightsInputs
from pages.shared.feature_one_relatives import draw_relatives
from pages.shared.feature_one_view import draw_reads, draw_writes
from pages.shared.feature_source import told
from pages.shared.features_page import (
    FeaturesAsked,
    choose_feature,
    chosen_feature,
    features_asked,
    pins,
    toggle_pin,
)
from pages.shared.instant import draw_warnings, instant
from pages.shared.selection import select, selection
from pages.shared.session import hub
from pages.shared.text import plain

if TYPE_CHECKING:
    from mi_core.model.model import LoadedModel
    from mi_core.transcoders.transcoder import Transcoder
    from mi_core.transcoders.weights_result import FeatureWeightsResult
    from pages.shared.hub import About

SHOWN_PINS = 16
MOST_FEATURES = 100_000_000
"""As many as a link may ask for: beyond a number box's end Streamlit would show 0 and say nothing."""


def draw_feature_tab() -> None:
    """The tab."""
    wanted = features_asked()
    if wanted is None or wanted.asked.about is None:
        return
    about = wanted.asked.about
    feature = _draw_choice(about, wanted)
    if feature is None:
        st.info(_how_to_choose(), icon=":material/touch_app:")
        return
    inputs = FeatureWeightsInputs(feature.text, wanted.transcoder, tokens=st.session_state["feature_words"])
    result: FeatureWeightsResult | None = instant(
        "feature_weights", inputs, _weights, f"Feature {feature.text}", about=about
    )
    if result is None:
        return
    _draw_labels(wanted, feature)
    draw_warnings(result, told())
    draw_writes(result)
    draw_reads(result)
    _draw_corpus(wanted, feature)
    draw_relatives(wanted, about, feature)
    _draw_dead(wanted)


def _how_to_choose() -> str:
    """What is missing to a feature."""
    number = selection().feature
    if number is not None:
        return f"Every layer may have a feature {number:,}: type its layer, too."
    return (
        "No feature is chosen. Click one under “This prompt”, find one by a word, or type a layer and a "
        "number."
    )


def _weights(model: LoadedModel, inputs: FeatureWeightsInputs, *, on_step: Any) -> FeatureWeightsResult:
    """Runs on the worker thread."""
    from mi_core.transcoders import feature_weights

    return feature_weights(model, inputs, on_step=on_step)


def opened(about: About, name: str) -> Transcoder | None:
    """The transcoder, if some analysis has opened it already."""
    model = hub().resident(about.spec)
    return None if model is None else model.transcoders.get(name)


def _draw_choice(about: About, wanted: FeaturesAsked) -> Feature | None:
    """Layer and number as widgets, pins; what a link asks for and this transcoder lacks is said."""
    transcoder = opened(about, wanted.transcoder)
    _refuse_layer(about, transcoder)
    layer = selection().layer
    count = None if transcoder is None or layer is None else transcoder.n_features.get(layer)
    _refuse_feature(layer, count)
    with st.container(horizontal=True, gap="medium", vertical_alignment="bottom"):
        _number("Layer", "selected_layer", about.dims.n_layers - 1)
        _number("Feature", "selected_feature", MOST_FEATURES if count is None else count - 1)
        st.number_input("Words at each end", min_value=3, max_value=50, key="feature_words", width=150)
        feature = chosen_feature()
        if feature is not None:
            pinned = feature in pins()
            st.button(
                "Take the pin away" if pinned else "Pin",
                icon=":material/keep_off:" if pinned else ":material/keep:",
                key="feature_pin",
                on_click=toggle_pin,
                args=(feature,),
                help="Pinned features stay at hand in all tabs and in the link.",
            )
            st.button(
                "Intervene",
                icon=":material/edit:",
                key="feature_intervene",
                on_click=choose_feature,
                args=(feature,),
                kwargs={"tab": "inject"},
                help="Set, add, suppress or ablate this feature in the prompt.",
            )
    _draw_pins(feature)
    if feature is not None:
        st.subheader(feature.text, anchor=False)
    return feature


def _number(label: str, key: str, largest: int) -> None:
    st.number_input(
        label,
        min_value=0,
        max_value=max(0, largest),
        step=1,
        key=key,
        width=140,
        placeholder="any number" if largest >= MOST_FEATURES else f"0 to {largest:,}",
    )


def _refuse_layer(about: About, transcoder: Transcoder | None) -> None:
    """Forget a layer that this model, or its transcoder, does not have, and say so."""
    layer = selection().layer
    if layer is None:
        return
    if layer >= about.dims.n_layers:
        st.warning(f"There is no layer {layer} in this model; it has layers 0 to {about.dims.n_layers - 1}.")
    elif transcoder is not None and layer not in transcoder.n_features:
        listed = ", ".join(map(str, transcoder.layers))
        st.warning(f"The transcoder has no features in layer {layer}; it has layers {listed}.")
    else:
        return
    select(replace(selection(), layer=None, feature=None))


def _refuse_feature(layer: int | None, count: int | None) -> None:
    """Forget a feature that its layer does not have, and say so."""
    feature = selection().feature
    if feature is None or count is None or feature < count:
        return
    st.warning(f"Layer {layer} has no feature {feature:,}; its features count from 0 to {count - 1:,}.")
    select(replace(selection(), feature=None))


def _draw_pins(feature: Feature | None) -> None:
    """Pinned features as buttons."""
    others = [one for one in pins() if one != feature][:SHOWN_PINS]
    if not others:
        return
    with st.container(horizontal=True, gap="small", vertical_alignment="center", key="feature_pins_row"):
        st.caption("Pinned:", width="content")
        for one in others:
            st.button(
                one.text, key=f"pinned_{one.text}", type="tertiary", on_click=choose_feature, args=(one,)
            )


def _draw_labels(wanted: FeaturesAsked, feature: Feature) -> None:
    if find_spec("pages.shared.feature_corpus") is not None:
        from pages.shared.feature_corpus import draw_labels

        draw_labels(wanted, feature.layer, feature.index)


def _draw_corpus(wanted: FeaturesAsked, feature: Feature) -> None:
    """Examples, density, test text; the part of the corpus pass."""
    if find_spec("pages.shared.feature_corpus") is not None:
        from pages.shared.feature_corpus import draw_corpus

        st.markdown(f"#### When is {plain(feature.text)} active?")
        draw_corpus(wanted, feature.layer, feature.index)


def _draw_dead(wanted: FeaturesAsked) -> None:
    if find_spec("pages.shared.feature_corpus") is not None:
        from pages.shared.feature_corpus import draw_dead

        with st.expander("Dead features", icon=":material/do_not_disturb_on:"):
            draw_dead(wanted)
