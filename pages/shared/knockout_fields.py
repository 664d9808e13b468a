"""What the knock-out page lets a user choose, as fields of the link."""

from __future__ import annotations

import re

from mi_core.analyses.knockout_inputs import MAX_CONTINUATION, MAX_LIST_CHARACTERS, MAX_PINNED
from pages.shared import link
from pages.shared.attention_fields import parse_pins

TABS = {"list": "Interventions", "sweeps": "Sweeps", "circuits": "Head circuits"}
"""Word in the link -> label; the tabs' state is the label."""

REFERENCE_LABELS = {"general": "16 mixed sentences", "facts": "12 facts", "own": "my own prompts"}
SQUARES = {"both": "Before and after", "difference": "Edited \N{MINUS SIGN} baseline"}
LIST = "interventions"
"""Name of the list in the session; its key in the link is `ko`."""


def _parse_list(raw: str) -> str:
    """A list is read when the model is known; here only what could never be one is refused.

    Raises:
        link.BadValue: too long, or a character that no intervention has.
    """
    if len(raw) > MAX_LIST_CHARACTERS:
        raise link.BadValue(f"which is longer than {MAX_LIST_CHARACTERS:,} characters")
    if not re.fullmatch(r"[A-Za-z0-9@:+.=,\s-]*", raw):
        raise link.BadValue("which is no list of interventions such as L1H2:zero,e14-2@L1H2")
    return raw


def _tab() -> link.LinkField:
    words = {label: word for word, label in TABS.items()}
    named = link.choice("knockout_tabs", "ko_tab", None, TABS)
    return link.LinkField(
        "knockout_tabs", "ko_tab", TABS["list"], lambda raw: TABS[named.parse(raw)], words.__getitem__
    )


FIELDS = [
    link.LinkField(LIST, "ko", "", _parse_list),
    link.LinkField("knockout_pins", "ko_pins", "", parse_pins),
    link.choice("knockout_squares", "ko_show", "both", SQUARES),
    link.choice("knockout_reference", "ko_ref", "general", REFERENCE_LABELS),
    link.text("knockout_own", "ko_own", "", limit=6000),
    link.number("knockout_steps", "ko_steps", 20, 0, MAX_CONTINUATION, whole=True),
    _tab(),
]

PINS_HELP = f"Up to {MAX_PINNED} heads whose attention is shown before and after, such as L4H0,L5H1."
