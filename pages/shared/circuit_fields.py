"""What the tab "Head circuits" lets a user choose, as fields of the link (the task has its own)."""

from __future__ import annotations

from pages.shared import link

ABLATIONS = {"mean": "mean", "resample": "resample", "zero": "zero"}
SETTINGS = {"apart": "each by itself", "together": "all at once"}
MLPS = {"recomputed": "recomputed", "frozen": "frozen"}
NUMBERS = (
    "ablated",
    "direct",
    "attention_io",
    "attention_s1",
    "attention_s2",
    "io_above_s",
    "s2_above_io",
    "s2_to_s1",
    "copying",
    "copying_negative",
    "duplicate_token",
    "induction",
    "previous_token",
    "ablated_later",
    "later_change",
    "into_queries",
)

FIELDS = [
    link.choice("circuit_ablation", "ci_with", "mean", ABLATIONS),
    link.choice("circuit_number", "ci_show", "ablated", NUMBERS),
    link.text("circuit_heads", "ci_heads", "", limit=2000),
    link.text("circuit_receivers", "ci_into", "logits", limit=500),
    link.choice("circuit_setting", "ci_set", "apart", SETTINGS),
    link.choice("circuit_mlps", "ci_mlps", "recomputed", MLPS),
]
