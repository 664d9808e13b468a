"""What the tab "Sweeps" lets a user choose, as fields of the link."""

from __future__ import annotations

from mi_core.analyses.ablation_sweep_inputs import EFFECT_METRICS
from pages.shared import link

WHAT = {
    "heads": "Heads", "modules": "Attention and MLPs", "edges": "Edges into the last token", "keys": "Keys",
}  # fmt: skip
MODES = {"zero": "Zero", "mean": "Mean", "resample": "Resample"}
POSITIONS = {"all": "At all tokens", "last": "At the last token"}
KINDS = {"scale": "Multiply", "set": "Set"}
METRIC_LABELS = {
    "probability": "Probability", "log_probability": "Log-probability", "logit": "Logit",
    "logit_difference": "Logit difference", "kl": "KL", "rank": "Rank", "top1_flip": "Top token changed",
}  # fmt: skip

FIELDS = [
    link.choice("ablation_what", "ks_what", "heads", WHAT),
    link.choice("ablation_mode", "ks_mode", "zero", MODES),
    link.choice("ablation_positions", "ks_at", "all", POSITIONS),
    link.choice("ablation_metric", "ks_metric", "probability", EFFECT_METRICS),
    link.flag("ablation_listed", "ks_list"),
    link.text("ablation_heads", "ks_heads", "", limit=2000),
    link.flag("dose_shown", "ks_dose"),
    link.choice("dose_kind", "ks_kind", "scale", KINDS),
    link.number("dose_key", "ks_key", 0, 0, 1_000_000, whole=True),
    link.number("dose_query", "ks_query", None, 0, 1_000_000, whole=True),
    link.number("dose_layer", "ks_layer", None, 0, 10_000, whole=True),
    link.number("dose_head", "ks_head", None, 0, 10_000, whole=True),
    link.number("dose_wished", "ks_wish", None, -1e6, 1e6),
]
