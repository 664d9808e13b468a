"""What the attribution page lets a user choose, as fields of the link."""

from __future__ import annotations

from pages.shared import link

DRAWINGS = {"bars": "Bars", "waterfall": "Waterfall"}
COMPARISONS = {"both": "Side by side", "difference": "Difference"}

FIELDS = [
    link.choice("attribution_drawing", "dl_as", "bars", DRAWINGS),
    link.choice("attribution_compare", "dl_compare", "both", COMPARISONS),
    link.text("attribution_neurons", "dl_neurons", "", limit=2000),
    link.number("attribution_shown", "dl_n", 16, 1, 60, whole=True),
]
