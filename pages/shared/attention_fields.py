"""What the attention page lets a user choose, as fields of the link."""

from __future__ import annotations

import re

from mi_core.analyses.attention_inputs import METRIC_NAMES, SHOWS
from mi_core.analyses.attribution_inputs import head_name
from mi_core.analyses.head_scores_inputs import MAX_LENGTH, MAX_SAMPLES, SCORE_NAMES
from pages.shared import link

TABS = {"prompt": "This prompt", "types": "Head types (random repeated tokens)"}
"""Word in the link -> label; the tabs' state is the label."""

SIDES = {"a": "A", "b": "B", "both": "A beside B", "difference": "A \N{MINUS SIGN} B"}
SORTS = {"place": "by layer", "number": "by the number"}
SCALES = {"head": "per head", "all": "one for all"}
DIRECTIONS = {"from": "what it reads", "to": "who reads it"}
MAX_PINS = 6


def parse_pins(raw: str) -> str:
    """Check a list of heads such as `L4H0,L5H1`.

    Raises:
        link.BadValue: anything else, or too many.
    """
    parts = [part.strip() for part in raw.split(",") if part.strip()]
    if any(re.fullmatch(r"L\d{1,4}H\d{1,4}", part) is None for part in parts) or len(parts) > MAX_PINS:
        raise link.BadValue(f"which is not a list of up to {MAX_PINS} heads such as L4H0,L5H1")
    return ",".join(dict.fromkeys(parts))


def pinned_heads(text: str) -> list[tuple[int, int]]:
    """(layer, head) of a checked list."""
    return [(int(layer), int(head)) for layer, head in re.findall(r"L(\d+)H(\d+)", text)]


def pins_text(heads: list[tuple[int, int]]) -> str:
    """The inverse of `pinned_heads`."""
    return ",".join(head_name(layer, head) for layer, head in heads)


def _tab() -> link.LinkField:
    words = {label: word for word, label in TABS.items()}
    named = link.choice("attention_tabs", "at_tab", None, TABS)
    return link.LinkField(
        "attention_tabs", "at_tab", TABS["prompt"], lambda raw: TABS[named.parse(raw)], words.__getitem__
    )


FIELDS = [
    link.choice("attention_show", "at_show", "weights", SHOWS),
    link.choice("attention_shade", "at_shade", "effect", METRIC_NAMES),
    link.flag("attention_mask", "at_mask"),
    link.choice("attention_side", "at_side", "a", SIDES),
    link.number("attention_top", "at_top", 0, 0, 100_000, whole=True),
    link.choice("attention_sort", "at_sort", "place", SORTS),
    link.choice("attention_scale", "at_scale", "head", SCALES),
    link.choice("attention_direction", "at_dir", "from", DIRECTIONS),
    link.LinkField("attention_pins", "at_pins", "", parse_pins),
    link.choice("attention_score", "at_score", "induction", SCORE_NAMES),
    link.number("attention_length", "at_length", 50, 2, MAX_LENGTH, whole=True),
    link.number("attention_samples", "at_n", 4, 1, MAX_SAMPLES, whole=True),
    link.number("attention_seed", "at_seed", 0, 0, 2**32 - 1, whole=True),
    link.number("attention_threshold", "at_from", 0.4, 0.01, 1.0),
    _tab(),
]
