"""What the generation tab lets a user choose, as fields of the link."""

from __future__ import annotations

import re

from mi_core.analyses.generation_inputs import MAX_COEFFICIENT, MAX_SEED, MAX_SEEDS, MAX_STEPS
from mi_core.analyses.recurrent_feedback_inputs import MAX_DEPTH
from pages.shared import link
from pages.shared.link import BadValue, LinkField

MODES = {"prefill": "the prompt's last token", "sustained": "that and every generated token"}
WHERES = {"all": "all tokens", "prompt": "the prompt", "generated": "generated tokens"}


def parse_seeds(raw: str) -> tuple[int, ...]:
    """Read seeds as people write them: `0, 1, 5`.

    Raises:
        BadValue: anything else.
    """
    parts = [part.strip() for part in raw.split(",") if part.strip()]
    if not parts or not all(re.fullmatch(r"\d{1,10}", part) for part in parts):
        raise BadValue("which is not a list of whole numbers such as 0, 1, 2")
    seeds = tuple(dict.fromkeys(int(part) for part in parts))
    if len(seeds) > MAX_SEEDS or max(seeds) > MAX_SEED:
        raise BadValue(f"but there are at most {MAX_SEEDS} seeds, up to {MAX_SEED:,}")
    return seeds


def _seeds_text(raw: str) -> str:
    return ", ".join(map(str, parse_seeds(raw)))


FIELDS = [
    link.text("generation_interventions", "ge_ko", "", limit=4000),
    link.text("generation_plus", "ge_plus", "", limit=4000),
    link.text("generation_minus", "ge_minus", "", limit=4000),
    link.number("generation_layer", "ge_layer", None, 0, 10_000, whole=True),
    link.number("generation_coefficient", "ge_c", 2.0, -MAX_COEFFICIENT, MAX_COEFFICIENT),
    link.choice("generation_where", "ge_where", "all", WHERES),
    link.number("generation_steps", "ge_n", 20, 1, MAX_STEPS, whole=True),
    link.number("generation_temperature", "ge_t", 0.0, 0.0, 100.0),
    link.number("generation_top_p", "ge_p", 1.0, 0.01, 1.0),
    LinkField("generation_seeds", "ge_seeds", "0, 1, 2", _seeds_text),
    link.flag("generation_stop", "ge_stop", default=True),
    link.flag("generation_loop", "ge_loop"),
    link.number("loop_start", "ge_l0", None, 0, 10_000, whole=True),
    link.number("loop_end", "ge_l1", None, 0, 10_000, whole=True),
    link.number("loop_depth", "ge_depth", 2, 1, MAX_DEPTH, whole=True),
    link.number("loop_strength", "ge_strength", 0.0, -MAX_COEFFICIENT, MAX_COEFFICIENT),
    link.choice("loop_mode", "ge_mode", "prefill", MODES),
]
