"""The engine: hooked passes (`run`), exact shared sweeps (`sweep`, `plan`), and doors for those who look."""

from mi_core.engine.build import build_model
from mi_core.engine.edits import Edit, format_edit, parse_edit
from mi_core.engine.generate import Generated, Sampling, generate
from mi_core.engine.generate_edits import Where, live_edits
from mi_core.engine.gradient import Gradients, gradients
from mi_core.engine.observe import Observation, observe
from mi_core.engine.plan import Plan, plan
from mi_core.engine.readout import FrozenNorm, Readout, frozen_norm, post_norm, readout
from mi_core.engine.run import Run, run
from mi_core.engine.sweep import SweepResult, sweep
from mi_core.engine.unembed import unembed
from mi_core.engine.variants import Base, Variant

__all__ = [
    "Base",
    "Edit",
    "FrozenNorm",
    "Generated",
    "Gradients",
    "Observation",
    "Plan",
    "Readout",
    "Run",
    "Sampling",
    "SweepResult",
    "Variant",
    "Where",
    "build_model",
    "format_edit",
    "frozen_norm",
    "generate",
    "gradients",
    "live_edits",
    "observe",
    "parse_edit",
    "plan",
    "post_norm",
    "readout",
    "run",
    "sweep",
    "unembed",
]
