"""Interventions: one text form, and the engine edits that it stands for.

Grammar: `mi_core.analyses.interventions_grammar`; what the edits are: `mi_core.analyses.interventions_compile`.
"""

from mi_core.analyses.interventions_compile import MIN_REFERENCE, Reference, compile_edits
from mi_core.analyses.interventions_grammar import (
    MAX_INTERVENTIONS,
    MODES,
    Intervention,
    format_interventions,
    parse_interventions,
)

__all__ = [
    "MAX_INTERVENTIONS",
    "MIN_REFERENCE",
    "MODES",
    "Intervention",
    "Reference",
    "compile_edits",
    "format_interventions",
    "parse_interventions",
]
