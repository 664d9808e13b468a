"""What the probe tab lets a user choose, as fields of the link."""

from __future__ import annotations

from pages.shared import link

WHICH = {"strongest": "Strongest at the last token", "chosen": "The chosen feature"}

FIELDS = [
    link.choice("probe_which", "fb_which", "strongest", WHICH),
    link.number("probe_strength", "fb_s", 5.0, -1000, 1000),
    link.number("probe_top", "fb_k", 10, 1, 100, whole=True),
]
