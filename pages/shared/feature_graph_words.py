"""What the features of a graph are called, and what the chosen one writes and reads, in a line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import streamlit as st

from mi_core.errors import LanternError
from mi_core.transcoders.graph_names import FEATURE
from pages.shared.boundary import show_error
from pages.shared.features_page import FeaturesAsked
from pages.shared.instant import instant
from pages.shared.session import hub
from pages.shared.text import code

if TYPE_CHECKING:
    from mi_core.model.model import LoadedModel
    from mi_core.transcoders.graph_result import GraphResult
    from mi_core.transcoders.weights_inputs import FeatureWeightsInputs
    from mi_core.transcoders.weights_result import FeatureWeightsResult

WORDS = 6


def feature_labels(result: GraphResult, asked: FeaturesAsked) -> dict[int, str]:
    """The names that the user (or the transcoder's folder) gives to the features of a graph, by node."""
    from mi_core.transcoders.labels import labels_of

    about = asked.asked.about
    model = None if about is None else hub().resident(about.spec)
    opened = [] if model is None else list(model.transcoders.values())
    folders = [one.folder for one in opened if one.fingerprint == result.transcoder_fingerprint]
    try:
        known = labels_of(result.transcoder_fingerprint, folders[0] if folders else None)
    except LanternError as error:
        show_error(error)
        return {}
    found = {}
    for node in result.nodes_of(FEATURE).tolist() if known else ():
        label = known.get(f"L{int(result.node_layer[node])}F{int(result.node_feature[node])}")
        if label is not None:
            found[node] = label.text
    return found


def draw_feature_words(result: GraphResult, node: int, asked: FeaturesAsked) -> None:
    """The words that a feature writes and reads, from the weights alone."""
    from mi_core.transcoders import FeatureWeightsInputs
    from mi_core.transcoders.names import Feature

    about = asked.asked.about
    if about is None:
        return
    feature = Feature(int(result.node_layer[node]), int(result.node_feature[node]))
    inputs = FeatureWeightsInputs(feature.text, asked.transcoder)
    words: FeatureWeightsResult | None = instant(
        "graph_feature", inputs, _run, "Words of the feature", about=about
    )
    if words is None:
        return
    writes = "not known: only encoders are here"
    if words.written:
        writes = _words(words, words.top_ids[0, 0].tolist())
    st.caption(f"Writes most: {writes}. Reads most: {_words(words, words.read_ids[0].tolist())}.")


def _words(result: FeatureWeightsResult, ids: list[int]) -> str:
    return " ".join(code(result.vocabulary.get(one, str(one)), 24) for one in ids[:WORDS])


def _run(model: LoadedModel, inputs: FeatureWeightsInputs, *, on_step: Any) -> FeatureWeightsResult:
    """Runs on the worker thread."""
    from mi_core.transcoders import feature_weights

    return feature_weights(model, inputs, on_step=on_step)
