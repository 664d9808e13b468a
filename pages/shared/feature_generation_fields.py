"""What the tab Steer of the features page lets a user choose, as fields of the link."""

from __future__ import annotations

from mi_core.analyses.generation_inputs import MAX_STEPS
from pages.shared import link
from pages.shared.generation_fields import WHERES, parse_seeds
from pages.shared.link import LinkField


def _seeds_text(raw: str) -> str:
    return ", ".join(map(str, parse_seeds(raw)))


HOWS = {"add": "add", "set": "set to"}

FIELDS = [
    link.text("steer_features", "fg_f", "", limit=4000),
    link.number("steer_amount", "fg_a", 5.0, -1e6, 1e6),
    link.choice("steer_how", "fg_how", "add", HOWS),
    link.choice("steer_where", "fg_where", "all", WHERES),
    link.number("steer_steps", "fg_n", 20, 1, MAX_STEPS, whole=True),
    link.number("steer_temperature", "fg_t", 0.0, 0.0, 100.0),
    link.number("steer_top_p", "fg_p", 1.0, 0.01, 1.0),
    LinkField("steer_seeds", "fg_seeds", "0, 1, 2", _seeds_text),
]
