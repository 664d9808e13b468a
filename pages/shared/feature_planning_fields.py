"""What the planning tab lets a user choose, as fields of the link."""

from __future__ import annotations

from mi_core.analyses.ablation_sweep_inputs import EFFECT_METRICS
from mi_core.transcoders.planning_inputs import MAX_CONTROLS, MAX_STRENGTH, ROUTING_STRENGTHS, STRENGTHS
from mi_core.transcoders.planning_pick import MAX_COUNT
from pages.shared import link

SOURCES = {"named": "named features", "pick": "features picked from two prompts"}
METRICS = {name: EFFECT_METRICS[name].label for name in ("probability", "log_probability", "logit", "rank")}


def listed(strengths: tuple[float, ...]) -> str:
    """Strengths as people write them."""
    return ", ".join(f"{strength:g}" for strength in strengths)


FIELDS = [
    link.choice("planning_source", "fp_by", "named", SOURCES),
    link.text("planning_inject", "fp_up", "", limit=4000),
    link.text("planning_suppress", "fp_down", "", limit=4000),
    link.text("planning_other", "fp_b", "", limit=20_000),
    link.number("planning_count", "fp_k", 12, 1, MAX_COUNT, whole=True),
    link.number("planning_count_down", "fp_kd", 12, 0, MAX_COUNT, whole=True),
    link.number("planning_share", "fp_share", 0.25, 0.0, 1.0),
    link.number("planning_strength", "fp_s", 10.0, -MAX_STRENGTH, MAX_STRENGTH),
    link.text("planning_strengths", "fp_grid", listed(STRENGTHS), limit=2000),
    link.text("planning_positions", "fp_pos", "", limit=2000),
    link.number("planning_controls", "fp_n", 10, 0, MAX_CONTROLS, whole=True),
    link.number("planning_seed", "fp_seed", 0, 0, 2**31 - 1, whole=True),
    link.choice("planning_metric", "fp_hp", "probability", METRICS),
    link.number("routing_position", "fr_pos", None, 0, 1_000_000, whole=True),
    link.number("routing_query", "fr_q", None, 0, 1_000_000, whole=True),
    link.text("routing_strengths", "fr_grid", listed(ROUTING_STRENGTHS), limit=2000),
]
