"""Analyses: frozen Inputs -> function -> frozen Result, one question each.

Results and their tables load without torch; the functions that run a model load it when they are first asked
for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mi_core.analyses.cases import Case, PromptSet
from mi_core.analyses.causal_trace_average_inputs import ROLES, CausalTraceAverageInputs
from mi_core.analyses.causal_trace_average_types import CausalTraceAverageResult
from mi_core.analyses.causal_trace_inputs import KIND_LABELS, KINDS, METRICS, CausalTraceInputs, MetricInfo
from mi_core.analyses.causal_trace_parts import AnswerTokens, Check, PlanFigures, Reading, TraceGrid
from mi_core.analyses.causal_trace_result import CausalTraceResult, Step
from mi_core.analyses.inspect_inputs import InspectInputs
from mi_core.analyses.inspect_result import InspectResult
from mi_core.analyses.logit_lens_inputs import (
    LENS_SITES,
    STATISTIC_INFO,
    STATISTICS,
    LogitLensInputs,
)
from mi_core.analyses.logit_lens_result import LensWord, LogitLensResult
from mi_core.analyses.logit_lens_steps_result import LogitLensStepsInputs, LogitLensStepsResult
from mi_core.analyses.next_token_inputs import NextTokenInputs
from mi_core.analyses.next_token_result import NextTokenResult
from mi_core.analyses.prediction_sweep_result import PredictionSweepInputs, PredictionSweepResult
from mi_core.analyses.tuned_lens import TunedLens
from mi_core.analyses.tuned_lens_inputs import TunedLensSaveInputs, TunedLensTrainInputs
from mi_core.analyses.tuned_lens_result import TunedLensTrainResult

if TYPE_CHECKING:
    from mi_core.analyses.causal_trace_average_run import causal_trace_average
    from mi_core.analyses.causal_trace_run import causal_trace, causal_trace_plan
    from mi_core.analyses.inspect_run import inspect_cost, inspect_model
    from mi_core.analyses.logit_lens_run import logit_lens
    from mi_core.analyses.logit_lens_steps_run import logit_lens_steps
    from mi_core.analyses.next_token_run import next_token
    from mi_core.analyses.prediction_sweep_run import prediction_sweep
    from mi_core.analyses.tuned_lens_save import tuned_lens_train_and_save
    from mi_core.analyses.tuned_lens_store import lenses_of, open_lens, save_lens
    from mi_core.analyses.tuned_lens_train import tuned_lens_train

__all__ = [
    "KINDS",
    "KIND_LABELS",
    "LENS_SITES",
    "METRICS",
    "ROLES",
    "STATISTICS",
    "STATISTIC_INFO",
    "AnswerTokens",
    "Case",
    "CausalTraceAverageInputs",
    "CausalTraceAverageResult",
    "CausalTraceInputs",
    "CausalTraceResult",
    "Check",
    "InspectInputs",
    "InspectResult",
    "LensWord",
    "LogitLensInputs",
    "LogitLensResult",
    "LogitLensStepsInputs",
    "LogitLensStepsResult",
    "MetricInfo",
    "NextTokenInputs",
    "NextTokenResult",
    "PlanFigures",
    "PredictionSweepInputs",
    "PredictionSweepResult",
    "PromptSet",
    "Reading",
    "Step",
    "TraceGrid",
    "TunedLens",
    "TunedLensSaveInputs",
    "TunedLensTrainInputs",
    "TunedLensTrainResult",
    "causal_trace",
    "causal_trace_average",
    "causal_trace_plan",
    "inspect_cost",
    "inspect_model",
    "lenses_of",
    "logit_lens",
    "logit_lens_steps",
    "next_token",
    "open_lens",
    "prediction_sweep",
    "save_lens",
    "tuned_lens_train",
    "tuned_lens_train_and_save",
]

_NEEDS_TORCH = {
    "lenses_of": "mi_core.analyses.tuned_lens_store",
    "open_lens": "mi_core.analyses.tuned_lens_store",
    "save_lens": "mi_core.analyses.tuned_lens_store",
    "tuned_lens_train": "mi_core.analyses.tuned_lens_train",
    "tuned_lens_train_and_save": "mi_core.analyses.tuned_lens_save",
    "inspect_cost": "mi_core.analyses.inspect_run",
    "inspect_model": "mi_core.analyses.inspect_run",
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
