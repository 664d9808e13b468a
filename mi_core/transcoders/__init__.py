"""Transcoders and sparse autoencoders: features read, tested, intervened on and drawn as a graph.

    from mi_core import load_model
    from mi_core.transcoders import load_transcoder
    transcoder = load_transcoder(load_model("atlas"))

Names are fetched on first use, so importing this package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mi_core.transcoders.corpus_inputs import CorpusPassInputs
    from mi_core.transcoders.corpus_result import CorpusPassResult
    from mi_core.transcoders.corpus_run import corpus_pass
    from mi_core.transcoders.corpus_view_inputs import FeatureCorpusInputs
    from mi_core.transcoders.corpus_view_result import FeatureCorpusResult
    from mi_core.transcoders.corpus_view_run import feature_corpus
    from mi_core.transcoders.encode import (
        ActiveFeatures,
        Fit,
        active_features,
        fit,
        masked_positions,
        read_values,
        reconstruct,
        written_values,
    )
    from mi_core.transcoders.feature_edits import FeatureEdit, format_feature_edits, parse_feature_edits
    from mi_core.transcoders.feature_edits_compile import Compiled, compile_feature_edits
    from mi_core.transcoders.feature_generation_inputs import FeatureGenerationInputs
    from mi_core.transcoders.feature_generation_result import FeatureGenerationResult
    from mi_core.transcoders.feature_generation_run import feature_generation
    from mi_core.transcoders.feature_text_inputs import FeatureTextInputs
    from mi_core.transcoders.feature_text_result import FeatureTextResult
    from mi_core.transcoders.feature_text_run import feature_on_text
    from mi_core.transcoders.feature_vectors import feature_vector
    from mi_core.transcoders.folder import LocalFolder
    from mi_core.transcoders.formats import open_folder
    from mi_core.transcoders.formats_check import transcoder_check
    from mi_core.transcoders.formats_check_result import TranscoderCheckInputs, TranscoderCheckResult
    from mi_core.transcoders.graph_files import ImportedGraph, neuronpedia_json, read_neuronpedia
    from mi_core.transcoders.graph_heads import HeadLoadingsInputs, HeadLoadingsResult, head_loadings
    from mi_core.transcoders.graph_inputs import GraphInputs
    from mi_core.transcoders.graph_removals import graph_effects
    from mi_core.transcoders.graph_removals_result import GraphEffectsInputs, GraphEffectsResult
    from mi_core.transcoders.graph_result import GraphResult
    from mi_core.transcoders.graph_run import attribution_graph
    from mi_core.transcoders.graph_scores import Pruned, Scores, prune, scores, subgraph_scores
    from mi_core.transcoders.hub_plan import ask_plan, fetch_plan
    from mi_core.transcoders.hub_reference import parse_reference
    from mi_core.transcoders.inject_inputs import InjectInputs
    from mi_core.transcoders.inject_result import InjectResult
    from mi_core.transcoders.inject_run import inject
    from mi_core.transcoders.linear import frozen_pass
    from mi_core.transcoders.linear_pass import FrozenPass
    from mi_core.transcoders.names import Feature, FeatureAt, parse_feature, parse_features
    from mi_core.transcoders.planning_files import planning_to_candle_mi, read_planning
    from mi_core.transcoders.planning_inputs import FeatureRoutingInputs, PlanningInputs
    from mi_core.transcoders.planning_pick import PlanningPickInputs, PlanningPickResult
    from mi_core.transcoders.planning_pick_run import planning_features
    from mi_core.transcoders.planning_result import PlanningResult
    from mi_core.transcoders.planning_run import planning
    from mi_core.transcoders.probe_files import candle_json, read_candle_json
    from mi_core.transcoders.probe_inputs import CltProbeInputs
    from mi_core.transcoders.probe_result import CltProbeResult
    from mi_core.transcoders.probe_run import clt_probe
    from mi_core.transcoders.prompt_inputs import FeaturesOnPromptInputs
    from mi_core.transcoders.prompt_result import FeaturesOnPromptResult
    from mi_core.transcoders.prompt_run import features_on_prompt
    from mi_core.transcoders.routing_files import read_routing, routing_to_candle_mi
    from mi_core.transcoders.routing_result import FeatureRoutingResult
    from mi_core.transcoders.routing_run import feature_routing
    from mi_core.transcoders.store import FoundTranscoder, found_transcoders, load_transcoder
    from mi_core.transcoders.transcoder import Encoder, Hook, Source, Transcoder
    from mi_core.transcoders.weights_inputs import FeatureNeighboursInputs, FeatureWeightsInputs
    from mi_core.transcoders.weights_neighbours_result import FeatureNeighboursResult
    from mi_core.transcoders.weights_neighbours_run import feature_neighbours
    from mi_core.transcoders.weights_result import FeatureWeightsResult
    from mi_core.transcoders.weights_run import feature_weights
    from mi_core.transcoders.words_inputs import WordSearchInputs
    from mi_core.transcoders.words_result import WordHit, WordSearchResult
    from mi_core.transcoders.words_run import word_search

_HOMES = {
    "GraphEffectsInputs": "mi_core.transcoders.graph_removals_result",
    "GraphEffectsResult": "mi_core.transcoders.graph_removals_result",
    "graph_effects": "mi_core.transcoders.graph_removals",
    "ImportedGraph": "mi_core.transcoders.graph_files",
    "neuronpedia_json": "mi_core.transcoders.graph_files",
    "read_neuronpedia": "mi_core.transcoders.graph_files",
    "GraphInputs": "mi_core.transcoders.graph_inputs",
    "GraphResult": "mi_core.transcoders.graph_result",
    "attribution_graph": "mi_core.transcoders.graph_run",
    "Pruned": "mi_core.transcoders.graph_scores",
    "Scores": "mi_core.transcoders.graph_scores",
    "prune": "mi_core.transcoders.graph_scores",
    "scores": "mi_core.transcoders.graph_scores",
    "subgraph_scores": "mi_core.transcoders.graph_scores",
    "HeadLoadingsInputs": "mi_core.transcoders.graph_heads",
    "HeadLoadingsResult": "mi_core.transcoders.graph_heads",
    "head_loadings": "mi_core.transcoders.graph_heads",
    "FrozenPass": "mi_core.transcoders.linear_pass",
    "frozen_pass": "mi_core.transcoders.linear",
    "feature_generation": "mi_core.transcoders.feature_generation_run",
    "FeatureGenerationResult": "mi_core.transcoders.feature_generation_result",
    "FeatureGenerationInputs": "mi_core.transcoders.feature_generation_inputs",
    "feature_on_text": "mi_core.transcoders.feature_text_run",
    "FeatureTextResult": "mi_core.transcoders.feature_text_result",
    "FeatureTextInputs": "mi_core.transcoders.feature_text_inputs",
    "feature_corpus": "mi_core.transcoders.corpus_view_run",
    "FeatureCorpusResult": "mi_core.transcoders.corpus_view_result",
    "FeatureCorpusInputs": "mi_core.transcoders.corpus_view_inputs",
    "corpus_pass": "mi_core.transcoders.corpus_run",
    "CorpusPassResult": "mi_core.transcoders.corpus_result",
    "CorpusPassInputs": "mi_core.transcoders.corpus_inputs",
    "FeatureEdit": "mi_core.transcoders.feature_edits",
    "parse_feature_edits": "mi_core.transcoders.feature_edits",
    "format_feature_edits": "mi_core.transcoders.feature_edits",
    "Compiled": "mi_core.transcoders.feature_edits_compile",
    "compile_feature_edits": "mi_core.transcoders.feature_edits_compile",
    "InjectInputs": "mi_core.transcoders.inject_inputs",
    "InjectResult": "mi_core.transcoders.inject_result",
    "inject": "mi_core.transcoders.inject_run",
    "FeatureNeighboursInputs": "mi_core.transcoders.weights_inputs",
    "FeatureWeightsInputs": "mi_core.transcoders.weights_inputs",
    "FeatureNeighboursResult": "mi_core.transcoders.weights_neighbours_result",
    "feature_neighbours": "mi_core.transcoders.weights_neighbours_run",
    "FeatureWeightsResult": "mi_core.transcoders.weights_result",
    "feature_weights": "mi_core.transcoders.weights_run",
    "WordSearchInputs": "mi_core.transcoders.words_inputs",
    "WordHit": "mi_core.transcoders.words_result",
    "WordSearchResult": "mi_core.transcoders.words_result",
    "word_search": "mi_core.transcoders.words_run",
    "routing_to_candle_mi": "mi_core.transcoders.routing_files",
    "read_routing": "mi_core.transcoders.routing_files",
    "read_planning": "mi_core.transcoders.planning_files",
    "planning_to_candle_mi": "mi_core.transcoders.planning_files",
    "planning_features": "mi_core.transcoders.planning_pick_run",
    "planning": "mi_core.transcoders.planning_run",
    "feature_vector": "mi_core.transcoders.feature_vectors",
    "feature_routing": "mi_core.transcoders.routing_run",
    "PlanningResult": "mi_core.transcoders.planning_result",
    "PlanningPickResult": "mi_core.transcoders.planning_pick",
    "PlanningPickInputs": "mi_core.transcoders.planning_pick",
    "PlanningInputs": "mi_core.transcoders.planning_inputs",
    "FeatureRoutingResult": "mi_core.transcoders.routing_result",
    "FeatureRoutingInputs": "mi_core.transcoders.planning_inputs",
    "features_on_prompt": "mi_core.transcoders.prompt_run",
    "FeaturesOnPromptResult": "mi_core.transcoders.prompt_result",
    "FeaturesOnPromptInputs": "mi_core.transcoders.prompt_inputs",
    "read_candle_json": "mi_core.transcoders.probe_files",
    "candle_json": "mi_core.transcoders.probe_files",
    "clt_probe": "mi_core.transcoders.probe_run",
    "CltProbeResult": "mi_core.transcoders.probe_result",
    "CltProbeInputs": "mi_core.transcoders.probe_inputs",
    "TranscoderCheckInputs": "mi_core.transcoders.formats_check_result",
    "TranscoderCheckResult": "mi_core.transcoders.formats_check_result",
    "transcoder_check": "mi_core.transcoders.formats_check",
    "open_folder": "mi_core.transcoders.formats",
    "LocalFolder": "mi_core.transcoders.folder",
    "ask_plan": "mi_core.transcoders.hub_plan",
    "fetch_plan": "mi_core.transcoders.hub_plan",
    "parse_reference": "mi_core.transcoders.hub_reference",
    "ActiveFeatures": "mi_core.transcoders.encode",
    "Encoder": "mi_core.transcoders.transcoder",
    "Feature": "mi_core.transcoders.names",
    "FeatureAt": "mi_core.transcoders.names",
    "Fit": "mi_core.transcoders.encode",
    "FoundTranscoder": "mi_core.transcoders.store",
    "Hook": "mi_core.transcoders.transcoder",
    "Source": "mi_core.transcoders.transcoder",
    "Transcoder": "mi_core.transcoders.transcoder",
    "active_features": "mi_core.transcoders.encode",
    "fit": "mi_core.transcoders.encode",
    "found_transcoders": "mi_core.transcoders.store",
    "load_transcoder": "mi_core.transcoders.store",
    "masked_positions": "mi_core.transcoders.encode",
    "parse_feature": "mi_core.transcoders.names",
    "parse_features": "mi_core.transcoders.names",
    "read_values": "mi_core.transcoders.encode",
    "reconstruct": "mi_core.transcoders.encode",
    "written_values": "mi_core.transcoders.encode",
}

__all__ = [
    "ActiveFeatures",
    "CltProbeInputs",
    "CltProbeResult",
    "Compiled",
    "CorpusPassInputs",
    "CorpusPassResult",
    "Encoder",
    "Feature",
    "FeatureAt",
    "FeatureCorpusInputs",
    "FeatureCorpusResult",
    "FeatureEdit",
    "FeatureGenerationInputs",
    "FeatureGenerationResult",
    "FeatureNeighboursInputs",
    "FeatureNeighboursResult",
    "FeatureRoutingInputs",
    "FeatureRoutingResult",
    "FeatureTextInputs",
    "FeatureTextResult",
    "FeatureWeightsInputs",
    "FeatureWeightsResult",
    "FeaturesOnPromptInputs",
    "FeaturesOnPromptResult",
    "Fit",
    "FoundTranscoder",
    "FrozenPass",
    "GraphEffectsInputs",
    "GraphEffectsResult",
    "GraphInputs",
    "GraphResult",
    "HeadLoadingsInputs",
    "HeadLoadingsResult",
    "Hook",
    "ImportedGraph",
    "InjectInputs",
    "InjectResult",
    "LocalFolder",
    "PlanningInputs",
    "PlanningPickInputs",
    "PlanningPickResult",
    "PlanningResult",
    "Pruned",
    "Scores",
    "Source",
    "Transcoder",
    "TranscoderCheckInputs",
    "TranscoderCheckResult",
    "WordHit",
    "WordSearchInputs",
    "WordSearchResult",
    "active_features",
    "ask_plan",
    "attribution_graph",
    "candle_json",
    "clt_probe",
    "compile_feature_edits",
    "corpus_pass",
    "feature_corpus",
    "feature_generation",
    "feature_neighbours",
    "feature_on_text",
    "feature_routing",
    "feature_vector",
    "feature_weights",
    "features_on_prompt",
    "fetch_plan",
    "fit",
    "format_feature_edits",
    "found_transcoders",
    "frozen_pass",
    "graph_effects",
    "head_loadings",
    "inject",
    "load_transcoder",
    "masked_positions",
    "neuronpedia_json",
    "open_folder",
    "parse_feature",
    "parse_feature_edits",
    "parse_features",
    "parse_reference",
    "planning",
    "planning_features",
    "planning_to_candle_mi",
    "prune",
    "read_candle_json",
    "read_neuronpedia",
    "read_planning",
    "read_routing",
    "read_values",
    "reconstruct",
    "routing_to_candle_mi",
    "scores",
    "subgraph_scores",
    "transcoder_check",
    "word_search",
    "written_values",
]


def __getattr__(name: str) -> Any:
    """Fetch a public name from its home (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
