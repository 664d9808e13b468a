"""Interventions: one text form, and the engine edits that it stands for.

Grammar: `interventions_grammar`; the edits: `interventions_compile`; where means and the values of a second
prompt come from: `interventions_reference`.
"""

from mi_core.analyses.interventions_compile import MIN_REFERENCE, Reference, compile_edits
from mi_core.analyses.interventions_grammar import (
    MAX_INTERVENTIONS,
    MODES,
    Intervention,
    format_interventions,
    parse_interventions,
)
from mi_core.analyses.interventions_reference import REFERENCES, reference_of

__all__ = [
    "MAX_INTERVENTIONS",
    "MIN_REFERENCE",
    "MODES",
    "REFERENCES",
    "Intervention",
    "Reference",
    "compile_edits",
    "format_interventions",
    "parse_interventions",
    "reference_of",
]
