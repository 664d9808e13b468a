"""What the counting tab lets a user choose, as fields of the link."""

from __future__ import annotations

from pages.shared import link

SOURCES = {"diverse": "Lantern's diverse texts", "file": "A file of yours"}
PAIRS = {"1-2": "PC1 and PC2", "2-3": "PC2 and PC3", "1-3": "PC1 and PC3"}

FIELDS = [
    link.choice("helix_source", "hx_set", "diverse", SOURCES),
    link.number("helix_narrow", "hx_from", 20, 2, 1000, whole=True),
    link.number("helix_wide", "hx_to", 150, 2, 1000, whole=True),
    link.number("helix_step", "hx_step", 10, 1, 1000, whole=True),
    link.number("helix_count", "hx_max", 150, 2, 1000, whole=True),
    link.number("helix_least", "hx_least", 10, 1, 1_000_000, whole=True),
    link.number("helix_tokens", "hx_tokens", 60_000, 100, 5_000_000, whole=True),
    link.choice("helix_pair", "hx_pair", "1-2", PAIRS),
]
