"""The ink that can be read on a coloured cell: black or white, whichever contrasts more with its fill.

The better of the two always reaches a contrast of 4.58 to 1, above the 4.5 that WCAG 2.1 asks of small text
(relative luminance and contrast ratio as defined there).
"""

import math
from collections.abc import Sequence

from mi_core.charts.colours import ColourScale
from mi_core.charts.theme import DIVERGING

BLACK, WHITE = "#000000", "#ffffff"

# Vega's "cividis", 64 colours from low to high; Vega blends neighbours in RGB, and so do we.
_CIVIDIS = (
    "00205100235800265d002961012b65042e670831690d346b11366c16396d1c3c6e213f6e26426e2c456e31476e374a6e3c4d6e"
    "42506e47536d4c566d51586e555b6e5a5e6e5e616e62646f66676f6a6a706e6d717270717573727976737c79747f7c75827f75"
    "8682768985778c8877908b78938e789691789a94789e9778a19b78a59e77a9a177aea575b2a874b6ab73bbaf71c0b26fc5b66d"
    "c9b96acebd68d3c065d8c462ddc85fe2cb5ce7cf58ebd355f0d652f3da4ff7de4cfae249fce647"
)
CIVIDIS: tuple[str, ...] = tuple(f"#{_CIVIDIS[i : i + 6]}" for i in range(0, len(_CIVIDIS), 6))

Colour = tuple[float, float, float]  # red, green and blue from 0 to 255


def fill_of(colours: ColourScale, value: float) -> Colour:
    """The colour in which Vega draws a finite value."""
    hues = colours.hues or (DIVERGING if colours.diverging else CIVIDIS)
    place = _place(colours, value, len(hues)) * (len(hues) - 1)
    index = min(int(place), len(hues) - 2)
    low, high = _channels(hues[index]), _channels(hues[index + 1])
    red, green, blue = (a + (b - a) * (place - index) for a, b in zip(low, high, strict=True))
    return red, green, blue


def _place(colours: ColourScale, value: float, hues: int) -> float:
    """How far along the scale a value lies, from 0 to 1."""
    low, high = colours.domain
    share = min(1.0, max(0.0, (value - low) / (high - low)))
    if not colours.logarithmic:
        return share
    if not (colours.hues or colours.diverging):
        return (_symlog(low + share * (high - low)) - _symlog(low)) / (_symlog(high) - _symlog(low))
    # Hues stand at equal steps of the value; only between two of them the blend is logarithmic.
    step = min(int(share * (hues - 1)), hues - 2)
    start, end = (_symlog(low + (high - low) * (step + i) / (hues - 1)) for i in (0, 1))
    within = (_symlog(low + share * (high - low)) - start) / (end - start)
    return (step + within) / (hues - 1)


def _symlog(value: float) -> float:
    return math.copysign(math.log1p(abs(value)), value)


def _channels(colour: str) -> Colour:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return red, green, blue


def luminance(colour: Colour) -> float:
    """Relative luminance, 0 (black) to 1 (white)."""
    parts = [channel / 255 for channel in colour]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def ink_on(colours: ColourScale, values: Sequence[float]) -> list[str]:
    """Black or white for every value; empty for one that is not finite, whose cell is grey."""
    return [
        (BLACK if luminance(fill_of(colours, value)) > _EQUAL else WHITE) if math.isfinite(value) else ""
        for value in values
    ]


# The luminance on which black and white contrast equally: (L + 0.05) / 0.05 = 1.05 / (L + 0.05).
_EQUAL = math.sqrt(1.05 * 0.05) - 0.05
