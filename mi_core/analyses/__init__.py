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

if TYPE_CHECKING:
    from mi_core.analyses.causal_trace_average_run import causal_trace_average
    from mi_core.analyses.causal_trace_run import causal_trace, causal_trace_plan

__all__ = [
    "KINDS",
    "KIND_LABELS",
    "METRICS",
    "ROLES",
    "AnswerTokens",
    "Case",
    "CausalTraceAverageInputs",
    "CausalTraceAverageResult",
    "CausalTraceInputs",
    "CausalTraceResult",
    "Check",
    "MetricInfo",
    "PlanFigures",
    "PromptSet",
    "Reading",
    "Step",
    "TraceGrid",
    "causal_trace",
    "causal_trace_average",
    "causal_trace_plan",
]

_NEEDS_TORCH = {
    "causal_trace_average": "mi_core.analyses.causal_trace_average_run",
    "causal_trace": "mi_core.analyses.causal_trace_run",
    "causal_trace_plan": "mi_core.analyses.causal_trace_run",
}


def __getattr__(name: str) -> Any:
    """Load the functions that need torch on first use."""
    if name not in _NEEDS_TORCH:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_NEEDS_TORCH[name]), name)
