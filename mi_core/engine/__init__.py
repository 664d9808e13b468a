"""The engine: hooked forward passes (`run`) and exact shared sweeps (`sweep`, `plan`)."""

from mi_core.engine.build import build_model
from mi_core.engine.edits import Edit, format_edit, parse_edit
from mi_core.engine.plan import Plan, plan
from mi_core.engine.run import Run, run
from mi_core.engine.sweep import SweepResult, sweep
from mi_core.engine.variants import Base, Variant

__all__ = [
    "Base",
    "Edit",
    "Plan",
    "Run",
    "SweepResult",
    "Variant",
    "build_model",
    "format_edit",
    "parse_edit",
    "plan",
    "run",
    "sweep",
]
