"""What the tabs of one feature and of the word search let a user choose, as fields of the link."""

from __future__ import annotations

from pages.shared import link

SIDES = {"writes": "write it", "reads": "read it"}
RANKS = {"deviations": "how far it stands out", "effect": "how strongly", "cosine": "angle alone"}
MAX_WORD = 100
ALL_LAYERS = "all"

FIELDS = [
    link.text("feature_write_layer", "fw_at", ALL_LAYERS, limit=10),
    link.number("feature_words", "fw_n", 10, 3, 50, whole=True),
    link.number("feature_relatives", "fw_rel", 8, 1, 30, whole=True),
    link.text("word_search_word", "fw_word", "", limit=MAX_WORD),
    link.choice("word_search_side", "fw_side", "writes", SIDES),
    link.choice("word_search_rank", "fw_by", "deviations", RANKS),
    link.number("word_search_count", "fw_k", 20, 1, 60, whole=True),
]
