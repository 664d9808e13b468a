"""What the head-circuit tab lets a user choose about a task, as fields of the link."""

from __future__ import annotations

from mi_core.analyses.tasks import TASK_LABELS
from pages.shared import link

ORDERS = {"both": "both orders", "ABBA": "ABBA", "BABA": "BABA"}
MODES = {"mean": "Mean of the set", "zero": "Zero", "resample": "Counterfactual"}
MOST_PROMPTS = 300

FIELDS = [
    link.choice("task_name", "tk", "ioi", TASK_LABELS),
    link.number("task_count", "tk_n", 64, 2, MOST_PROMPTS, whole=True),
    link.number("task_seed", "tk_seed", 0, 0, 2**32 - 1, whole=True),
    link.choice("task_order", "tk_order", "both", ORDERS),
    link.choice("task_mode", "tk_mode", "mean", MODES),
    link.text("task_look", "tk_look", "direct", limit=40),
]
