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
    "ActiveFeatures": "mi_core.transcoders.encode",
    "CltProbeInputs": "mi_core.transcoders.probe_inputs",
    "CltProbeResult": "mi_core.transcoders.probe_result",
    "Compiled": "mi_core.transcoders.feature_edits_compile",
    "CorpusPassInputs": "mi_core.transcoders.corpus_inputs",
    "CorpusPassResult": "mi_core.transcoders.corpus_result",
    "Encoder": "mi_core.transcoders.transcoder",
    "Feature": "mi_core.transcoders.names",
    "FeatureAt": "mi_core.transcoders.names",
    "FeatureCorpusInputs": "mi_core.transcoders.corpus_view_inputs",
    "FeatureCorpusResult": "mi_core.transcoders.corpus_view_result",
    "FeatureEdit": "mi_core.transcoders.feature_edits",
    "FeatureGenerationInputs": "mi_core.transcoders.feature_generation_inputs",
    "FeatureGenerationResult": "mi_core.transcoders.feature_generation_result",
    "FeatureNeighboursInputs": "mi_core.transcoders.weights_inputs",
    "FeatureNeighboursResult": "mi_core.transcoders.weights_neighbours_result",
    "FeatureRoutingInputs": "mi_core.transcoders.planning_inputs",
    "FeatureRoutingResult": "mi_core.transcoders.routing_result",
    "FeatureTextInputs": "mi_core.transcoders.feature_text_inputs",
    "FeatureTextResult": "mi_core.transcoders.feature_text_result",
    "FeatureWeightsInputs": "mi_core.transcoders.weights_inputs",
    "FeatureWeightsResult": "mi_core.transcoders.weights_result",
    "FeaturesOnPromptInputs": "mi_core.transcoders.prompt_inputs",
    "FeaturesOnPromptResult": "mi_core.transcoders.prompt_result",
    "Fit": "mi_core.transcoders.encode",
    "FoundTranscoder": "mi_core.transcoders.store",
    "FrozenPass": "mi_core.transcoders.linear_pass",
    "GraphEffectsInputs": "mi_core.transcoders.graph_removals_result",
    "GraphEffectsResult": "mi_core.transcoders.graph_removals_result",
    "GraphInputs": "mi_core.transcoders.graph_inputs",
    "GraphResult": "mi_core.transcoders.graph_result",
    "HeadLoadingsInputs": "mi_core.transcoders.graph_heads",
    "HeadLoadingsResult": "mi_core.transcoders.graph_heads",
    "Hook": "mi_core.transcoders.transcoder",
    "ImportedGraph": "mi_core.transcoders.graph_files",
    "InjectInputs": "mi_core.transcoders.inject_inputs",
    "InjectResult": "mi_core.transcoders.inject_result",
    "LocalFolder": "mi_core.transcoders.folder",
    "PlanningInputs": "mi_core.transcoders.planning_inputs",
    "PlanningPickInputs": "mi_core.transcoders.planning_pick",
    "PlanningPickResult": "mi_core.transcoders.planning_pick",
    "PlanningResult": "mi_core.transcoders.planning_result",
    "Pruned": "mi_core.transcoders.graph_scores",
    "Scores": "mi_core.transcoders.graph_scores",
    "Source": "mi_core.transcoders.transcoder",
    "Transcoder": "mi_core.transcoders.transcoder",
    "TranscoderCheckInputs": "mi_core.transcoders.formats_check_result",
    "TranscoderCheckResult": "mi_core.transcoders.formats_check_result",
    "WordHit": "mi_core.transcoders.words_result",
    "WordSearchInputs": "mi_core.transcoders.words_inputs",
    "WordSearchResult": "mi_core.transcoders.words_result",
    "active_features": "mi_core.transcoders.encode",
    "ask_plan": "mi_core.transcoders.hub_plan",
    "attribution_graph": "mi_core.transcoders.graph_run",
    "candle_json": "mi_core.transcoders.probe_files",
    "clt_probe": "mi_core.transcoders.probe_run",
    "compile_feature_edits": "mi_core.transcoders.feature_edits_compile",
    "corpus_pass": "mi_core.transcoders.corpus_run",
    "feature_corpus": "mi_core.transcoders.corpus_view_run",
    "feature_generation": "mi_core.transcoders.feature_generation_run",
    "feature_neighbours": "mi_core.transcoders.weights_neighbours_run",
    "feature_on_text": "mi_core.transcoders.feature_text_run",
    "feature_routing": "mi_core.transcoders.routing_run",
    "feature_vector": "mi_core.transcoders.feature_vectors",
    "feature_weights": "mi_core.transcoders.weights_run",
    "features_on_prompt": "mi_core.transcoders.prompt_run",
    "fetch_plan": "mi_core.transcoders.hub_plan",
    "fit": "mi_core.transcoders.encode",
    "format_feature_edits": "mi_core.transcoders.feature_edits",
    "found_transcoders": "mi_core.transcoders.store",
    "frozen_pass": "mi_core.transcoders.linear",
    "graph_effects": "mi_core.transcoders.graph_removals",
    "head_loadings": "mi_core.transcoders.graph_heads",
    "inject": "mi_core.transcoders.inject_run",
    "load_transcoder": "mi_core.transcoders.store",
    "masked_positions": "mi_core.transcoders.encode",
    "neuronpedia_json": "mi_core.transcoders.graph_files",
    "open_folder": "mi_core.transcoders.formats",
    "parse_feature": "mi_core.transcoders.names",
    "parse_feature_edits": "mi_core.transcoders.feature_edits",
    "parse_features": "mi_core.transcoders.names",
    "parse_reference": "mi_core.transcoders.hub_reference",
    "planning": "mi_core.transcoders.planning_run",
    "planning_features": "mi_core.transcoders.planning_pick_run",
    "planning_to_candle_mi": "mi_core.transcoders.planning_files",
    "prune": "mi_core.transcoders.graph_scores",
    "read_candle_json": "mi_core.transcoders.probe_files",
    "read_neuronpedia": "mi_core.transcoders.graph_files",
    "read_planning": "mi_core.transcoders.planning_files",
    "read_routing": "mi_core.transcoders.routing_files",
    "read_values": "mi_core.transcoders.encode",
    "reconstruct": "mi_core.transcoders.encode",
    "routing_to_candle_mi": "mi_core.transcoders.routing_files",
    "scores": "mi_core.transcoders.graph_scores",
    "subgraph_scores": "mi_core.transcoders.graph_scores",
    "transcoder_check": "mi_core.transcoders.formats_check",
    "word_search": "mi_core.transcoders.words_run",
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
