"""Analyses: frozen Inputs -> function -> frozen Result, one question each.

Results and their tables load without torch; the functions that run a model load it when they are first asked
for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mi_core.analyses.ablation_sweep_inputs import (
    EFFECT_METRICS,
    AblationSweepInputs,
    JointAblationInputs,
)
from mi_core.analyses.ablation_sweep_result import AblationSweepResult, JointAblationResult
from mi_core.analyses.attention_dose_inputs import AttentionDoseInputs
from mi_core.analyses.attention_dose_result import AttentionDoseResult
from mi_core.analyses.attention_inputs import HEAD_METRICS, SHOWS, AttentionInputs
from mi_core.analyses.attention_result import AttentionResult
from mi_core.analyses.attribution_inputs import AttributionInputs
from mi_core.analyses.attribution_patching_agreement import Agreement, agreement
from mi_core.analyses.attribution_patching_result import AttributionPatchingResult
from mi_core.analyses.attribution_result import AttributionResult
from mi_core.analyses.cases import Case, PromptSet
from mi_core.analyses.causal_trace_average_inputs import ROLES, CausalTraceAverageInputs
from mi_core.analyses.causal_trace_average_types import CausalTraceAverageResult
from mi_core.analyses.causal_trace_inputs import KIND_LABELS, KINDS, METRICS, CausalTraceInputs, MetricInfo
from mi_core.analyses.causal_trace_parts import AnswerTokens, Check, PlanFigures, Reading, TraceGrid
from mi_core.analyses.causal_trace_result import CausalTraceResult, Step
from mi_core.analyses.character_helix_inputs import CharacterHelixInputs
from mi_core.analyses.character_helix_result import CharacterHelixResult
from mi_core.analyses.circuit_test_inputs import CircuitTestInputs
from mi_core.analyses.circuit_test_result import CircuitTestResult
from mi_core.analyses.composition_result import COMPOSITION_KINDS, CompositionInputs, CompositionResult
from mi_core.analyses.copying_scores_result import CopyingScoresInputs, CopyingScoresResult
from mi_core.analyses.generation_inputs import GenerationInputs
from mi_core.analyses.generation_result import GenerationResult
from mi_core.analyses.head_ablation_result import HeadAblationResult
from mi_core.analyses.head_classes_inputs import HeadClassesInputs
from mi_core.analyses.head_classes_result import HeadClassesResult
from mi_core.analyses.head_scores_inputs import HeadScoresInputs
from mi_core.analyses.head_scores_result import HeadScoresResult
from mi_core.analyses.head_views_result import HeadViewsInputs, HeadViewsResult
from mi_core.analyses.inspect_inputs import InspectInputs
from mi_core.analyses.inspect_result import InspectResult
from mi_core.analyses.inspect_weight_inputs import InspectWeightInputs
from mi_core.analyses.inspect_weight_result import InspectWeightResult
from mi_core.analyses.knockout_inputs import KnockoutInputs
from mi_core.analyses.knockout_result import KnockoutResult
from mi_core.analyses.logit_lens_inputs import (
    LENS_SITES,
    STATISTIC_INFO,
    STATISTICS,
    LogitLensInputs,
)
from mi_core.analyses.logit_lens_result import LensWord, LogitLensResult
from mi_core.analyses.logit_lens_steps_result import LogitLensStepsInputs, LogitLensStepsResult
from mi_core.analyses.neuron_inputs import (
    NeuronInputs,
    NeuronPromptInputs,
    NeuronSurveyInputs,
    NeuronTextInputs,
)
from mi_core.analyses.neuron_prompt_result import NeuronPromptResult
from mi_core.analyses.neuron_result import NeuronResult
from mi_core.analyses.neuron_survey_result import NeuronSurveyResult
from mi_core.analyses.neuron_text_result import NeuronTextResult
from mi_core.analyses.next_token_inputs import NextTokenInputs
from mi_core.analyses.next_token_result import NextTokenResult
from mi_core.analyses.path_patching_inputs import PathPatchingInputs
from mi_core.analyses.path_patching_result import PathPatchingResult
from mi_core.analyses.prediction_sweep_result import PredictionSweepInputs, PredictionSweepResult
from mi_core.analyses.recurrent_feedback_inputs import RecurrentFeedbackInputs
from mi_core.analyses.recurrent_feedback_result import RecurrentFeedbackResult
from mi_core.analyses.steering_convergence_result import SteeringConvergenceResult
from mi_core.analyses.steering_dose_result import SteeringDoseResult
from mi_core.analyses.steering_inputs import SteeringInputs
from mi_core.analyses.steering_layers_result import SteeringLayersResult
from mi_core.analyses.steering_routing_result import SteeringRoutingResult
from mi_core.analyses.steering_vector import SteeringVector
from mi_core.analyses.task_baseline_result import TaskBaselineResult
from mi_core.analyses.task_heads_result import TaskHeadsResult
from mi_core.analyses.task_inputs import HeadAblationInputs, PairText, TaskInputs
from mi_core.analyses.tuned_lens import TunedLens
from mi_core.analyses.tuned_lens_inputs import TunedLensSaveInputs, TunedLensTrainInputs
from mi_core.analyses.tuned_lens_result import TunedLensTrainResult

if TYPE_CHECKING:
    from mi_core.analyses.ablation_sweep_run import ablation_sweep, ablation_sweep_plan, joint_ablation
    from mi_core.analyses.attention_dose_run import attention_dose
    from mi_core.analyses.attention_run import attention_patterns, window_around
    from mi_core.analyses.attribution_patching_run import attribution_patching, attribution_patching_seconds
    from mi_core.analyses.attribution_run import attribution
    from mi_core.analyses.causal_trace_average_run import causal_trace_average
    from mi_core.analyses.causal_trace_run import causal_trace, causal_trace_plan
    from mi_core.analyses.character_helix_plan import character_helix_cost
    from mi_core.analyses.character_helix_run import character_helix
    from mi_core.analyses.circuit_test_run import circuit_test
    from mi_core.analyses.circuit_test_whole import head_circuit
    from mi_core.analyses.composition_run import composition, composition_seconds
    from mi_core.analyses.copying_scores_run import copying_scores, copying_seconds
    from mi_core.analyses.generation_run import generation
    from mi_core.analyses.head_ablation_run import head_ablation, head_ablation_seconds
    from mi_core.analyses.head_classes_run import head_classes
    from mi_core.analyses.head_scores_run import head_scores, head_scores_seconds
    from mi_core.analyses.head_views_run import head_views
    from mi_core.analyses.inspect_run import inspect_cost, inspect_model
    from mi_core.analyses.inspect_weight_run import inspect_weight, inspect_weight_cost
    from mi_core.analyses.knockout_run import knockout
    from mi_core.analyses.logit_lens_run import logit_lens
    from mi_core.analyses.logit_lens_steps_run import logit_lens_steps
    from mi_core.analyses.neuron_prompt_run import neuron_prompt
    from mi_core.analyses.neuron_run import neuron
    from mi_core.analyses.neuron_survey_run import neuron_survey, neuron_survey_cost
    from mi_core.analyses.neuron_text_run import neuron_text
    from mi_core.analyses.next_token_run import next_token
    from mi_core.analyses.path_patching_cost import (
        circuit_test_seconds,
        head_classes_seconds,
        path_patching_seconds,
    )
    from mi_core.analyses.path_patching_run import path_patching
    from mi_core.analyses.prediction_sweep_run import prediction_sweep
    from mi_core.analyses.recurrent_feedback_run import recurrent_feedback
    from mi_core.analyses.steering_convergence_run import steering_convergence
    from mi_core.analyses.steering_dose_run import steering_dose
    from mi_core.analyses.steering_layers_run import steering_layers
    from mi_core.analyses.steering_routing_run import steering_routing
    from mi_core.analyses.task_baseline_run import task_baseline
    from mi_core.analyses.task_heads_run import task_heads
    from mi_core.analyses.tuned_lens_save import tuned_lens_train_and_save
    from mi_core.analyses.tuned_lens_store import lenses_of, open_lens, save_lens
    from mi_core.analyses.tuned_lens_training import tuned_lens_train

__all__ = [
    "COMPOSITION_KINDS",
    "EFFECT_METRICS",
    "HEAD_METRICS",
    "KINDS",
    "KIND_LABELS",
    "LENS_SITES",
    "METRICS",
    "ROLES",
    "SHOWS",
    "STATISTICS",
    "STATISTIC_INFO",
    "AblationSweepInputs",
    "AblationSweepResult",
    "Agreement",
    "AnswerTokens",
    "AttentionDoseInputs",
    "AttentionDoseResult",
    "AttentionInputs",
    "AttentionResult",
    "AttributionInputs",
    "AttributionPatchingResult",
    "AttributionResult",
    "Case",
    "CausalTraceAverageInputs",
    "CausalTraceAverageResult",
    "CausalTraceInputs",
    "CausalTraceResult",
    "CharacterHelixInputs",
    "CharacterHelixResult",
    "Check",
    "CircuitTestInputs",
    "CircuitTestResult",
    "CompositionInputs",
    "CompositionResult",
    "CopyingScoresInputs",
    "CopyingScoresResult",
    "GenerationInputs",
    "GenerationResult",
    "HeadAblationInputs",
    "HeadAblationResult",
    "HeadClassesInputs",
    "HeadClassesResult",
    "HeadScoresInputs",
    "HeadScoresResult",
    "HeadViewsInputs",
    "HeadViewsResult",
    "InspectInputs",
    "InspectResult",
    "InspectWeightInputs",
    "InspectWeightResult",
    "JointAblationInputs",
    "JointAblationResult",
    "KnockoutInputs",
    "KnockoutResult",
    "LensWord",
    "LogitLensInputs",
    "LogitLensResult",
    "LogitLensStepsInputs",
    "LogitLensStepsResult",
    "MetricInfo",
    "NeuronInputs",
    "NeuronPromptInputs",
    "NeuronPromptResult",
    "NeuronResult",
    "NeuronSurveyInputs",
    "NeuronSurveyResult",
    "NeuronTextInputs",
    "NeuronTextResult",
    "NextTokenInputs",
    "NextTokenResult",
    "PairText",
    "PathPatchingInputs",
    "PathPatchingResult",
    "PlanFigures",
    "PredictionSweepInputs",
    "PredictionSweepResult",
    "PromptSet",
    "Reading",
    "RecurrentFeedbackInputs",
    "RecurrentFeedbackResult",
    "SteeringConvergenceResult",
    "SteeringDoseResult",
    "SteeringInputs",
    "SteeringLayersResult",
    "SteeringRoutingResult",
    "SteeringVector",
    "Step",
    "TaskBaselineResult",
    "TaskHeadsResult",
    "TaskInputs",
    "TraceGrid",
    "TunedLens",
    "TunedLensSaveInputs",
    "TunedLensTrainInputs",
    "TunedLensTrainResult",
    "ablation_sweep",
    "ablation_sweep_plan",
    "agreement",
    "attention_dose",
    "attention_patterns",
    "attribution",
    "attribution_patching",
    "attribution_patching_seconds",
    "causal_trace",
    "causal_trace_average",
    "causal_trace_plan",
    "character_helix",
    "character_helix_cost",
    "circuit_test",
    "circuit_test_seconds",
    "composition",
    "composition_seconds",
    "copying_scores",
    "copying_seconds",
    "generation",
    "head_ablation",
    "head_ablation_seconds",
    "head_circuit",
    "head_classes",
    "head_classes_seconds",
    "head_scores",
    "head_scores_seconds",
    "head_views",
    "inspect_cost",
    "inspect_model",
    "inspect_weight",
    "inspect_weight_cost",
    "joint_ablation",
    "knockout",
    "lenses_of",
    "logit_lens",
    "logit_lens_steps",
    "neuron",
    "neuron_prompt",
    "neuron_survey",
    "neuron_survey_cost",
    "neuron_text",
    "next_token",
    "open_lens",
    "path_patching",
    "path_patching_seconds",
    "prediction_sweep",
    "recurrent_feedback",
    "save_lens",
    "steering_convergence",
    "steering_dose",
    "steering_layers",
    "steering_routing",
    "task_baseline",
    "task_heads",
    "tuned_lens_train",
    "tuned_lens_train_and_save",
    "window_around",
]

_NEEDS_TORCH = {
    "head_ablation": "mi_core.analyses.head_ablation_run",
    "head_ablation_seconds": "mi_core.analyses.head_ablation_run",
    "task_baseline": "mi_core.analyses.task_baseline_run",
    "task_heads": "mi_core.analyses.task_heads_run",
    "steering_convergence": "mi_core.analyses.steering_convergence_run",
    "steering_dose": "mi_core.analyses.steering_dose_run",
    "steering_layers": "mi_core.analyses.steering_layers_run",
    "steering_routing": "mi_core.analyses.steering_routing_run",
    "ablation_sweep": "mi_core.analyses.ablation_sweep_run",
    "ablation_sweep_plan": "mi_core.analyses.ablation_sweep_run",
    "attention_dose": "mi_core.analyses.attention_dose_run",
    "joint_ablation": "mi_core.analyses.ablation_sweep_run",
    "attribution": "mi_core.analyses.attribution_run",
    "attribution_patching": "mi_core.analyses.attribution_patching_run",
    "attribution_patching_seconds": "mi_core.analyses.attribution_patching_run",
    "character_helix": "mi_core.analyses.character_helix_run",
    "character_helix_cost": "mi_core.analyses.character_helix_plan",
    "circuit_test": "mi_core.analyses.circuit_test_run",
    "circuit_test_seconds": "mi_core.analyses.path_patching_cost",
    "head_circuit": "mi_core.analyses.circuit_test_whole",
    "head_classes": "mi_core.analyses.head_classes_run",
    "head_classes_seconds": "mi_core.analyses.path_patching_cost",
    "path_patching": "mi_core.analyses.path_patching_run",
    "path_patching_seconds": "mi_core.analyses.path_patching_cost",
    "composition": "mi_core.analyses.composition_run",
    "composition_seconds": "mi_core.analyses.composition_run",
    "copying_scores": "mi_core.analyses.copying_scores_run",
    "copying_seconds": "mi_core.analyses.copying_scores_run",
    "recurrent_feedback": "mi_core.analyses.recurrent_feedback_run",
    "generation": "mi_core.analyses.generation_run",
    "head_views": "mi_core.analyses.head_views_run",
    "attention_patterns": "mi_core.analyses.attention_run",
    "head_scores": "mi_core.analyses.head_scores_run",
    "head_scores_seconds": "mi_core.analyses.head_scores_run",
    "window_around": "mi_core.analyses.attention_run",
    "inspect_weight": "mi_core.analyses.inspect_weight_run",
    "inspect_weight_cost": "mi_core.analyses.inspect_weight_run",
    "knockout": "mi_core.analyses.knockout_run",
    "lenses_of": "mi_core.analyses.tuned_lens_store",
    "open_lens": "mi_core.analyses.tuned_lens_store",
    "save_lens": "mi_core.analyses.tuned_lens_store",
    "tuned_lens_train": "mi_core.analyses.tuned_lens_training",
    "tuned_lens_train_and_save": "mi_core.analyses.tuned_lens_save",
    "inspect_cost": "mi_core.analyses.inspect_run",
    "inspect_model": "mi_core.analyses.inspect_run",
    "neuron": "mi_core.analyses.neuron_run",
    "neuron_prompt": "mi_core.analyses.neuron_prompt_run",
    "neuron_survey": "mi_core.analyses.neuron_survey_run",
    "neuron_survey_cost": "mi_core.analyses.neuron_survey_run",
    "neuron_text": "mi_core.analyses.neuron_text_run",
    "next_token": "mi_core.analyses.next_token_run",
    "causal_trace_average": "mi_core.analyses.causal_trace_average_run",
    "causal_trace": "mi_core.analyses.causal_trace_run",
    "causal_trace_plan": "mi_core.analyses.causal_trace_run",
    "logit_lens": "mi_core.analyses.logit_lens_run",
    "logit_lens_steps": "mi_core.analyses.logit_lens_steps_run",
    "prediction_sweep": "mi_core.analyses.prediction_sweep_run",
}


def __getattr__(name: str) -> Any:
    """Load the functions that need torch on first use."""
    if name not in _NEEDS_TORCH:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_NEEDS_TORCH[name]), name)
