"""Colour scales that do not lie, and the colour bar that says what they mean."""

import math
from dataclasses import dataclass
from typing import Any

from mi_core.charts.text import legible, literal, number
from mi_core.charts.theme import DIVERGING

Spec = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ColourScale:
    """What the colours mean.

    Attributes:
        title: the quantity.
        unit: its unit, printed after it.
        domain: values at the two ends; descending turns the colours round.
        diverging: blue above zero, orange below, white at zero; `domain` must then be symmetric.
        marks: values named on the colour bar, such as (0.08, "corrupted").
        hues: colours from low to high, instead of the theme's.
        logarithmic: colours follow log(1 + value), for ranks.
    """

    title: str
    unit: str
    domain: tuple[float, float]
    diverging: bool = False
    marks: tuple[tuple[float, str], ...] = ()
    hues: tuple[str, ...] = ()
    logarithmic: bool = False

    def __post_init__(self) -> None:
        """A scale without extent, or a diverging one whose white is not zero, would lie."""
        low, high = self.domain
        if not (math.isfinite(low) and math.isfinite(high)) or low == high:
            raise ValueError(f"colour domain {self.domain} has no extent")
        if self.diverging and low != -high:
            raise ValueError(f"diverging colour domain {self.domain} is not symmetric")

    @property
    def heading(self) -> str:
        """Title and unit."""
        return f"{self.title} [{self.unit}]" if self.unit else self.title


def colour_channel(colours: ColourScale) -> Spec:
    """The channel that colours the field "value", and its legend."""
    scale: Spec = {"domain": list(colours.domain), "clamp": True, "nice": False, "interpolate": "rgb"}
    hues = colours.hues or (DIVERGING if colours.diverging else ())
    if hues:
        # One domain value per hue: otherwise Vega smooths through the hues, and zero is not quite white.
        low, high = colours.domain
        scale["domain"] = [low + (high - low) * index / (len(hues) - 1) for index in range(len(hues))]
        scale["range"] = list(hues)
    if colours.logarithmic:
        scale["type"] = "symlog"
    return {
        "field": "value",
        "type": "quantitative",
        "scale": scale,
        "title": legible(colours.heading),
        "legend": colour_bar(colours),
    }


def colour_bar(colours: ColourScale) -> Spec:
    """Legend with both ends, the named marks and, between them, round numbers."""
    values = bar_ticks(colours)
    names = dict(colours.marks)
    written = sorted({*values, *colours.domain})
    near = 1e-9 * max(abs(end) for end in colours.domain)
    choices = ""
    for value in written:
        lines = [number(value), legible(names[value])] if value in names else [number(value)]
        choices += f"abs(datum.value - {literal(value)}) <= {near} ? {literal(lines)} : "
    return {"values": values, "labelExpr": f"{choices}''", "labelOverlap": False}


def symmetric_bound(largest: float) -> float:
    """End of a diverging scale: the next number with two digits above the largest absolute value.

    Args:
        largest: absolute value, 0 or more; for 0 the bound is 1.
    """
    if largest <= 0:
        return 1.0
    unit = 10.0 ** (math.floor(math.log10(largest)) - 1)
    return float(f"{math.ceil(round(largest / unit, 9)) * unit:.6g}")


def bar_ticks(colours: ColourScale) -> list[float]:
    """Values written on the colour bar: marks first, then the ends, then round numbers, none too close."""
    low, high = sorted(colours.domain)
    marks = [value for value, _ in colours.marks if low <= value <= high]
    place = math.log1p if colours.logarithmic else float
    clearance = 0.2 * (place(high) - place(low))
    chosen: list[float] = []
    for value in (*marks, low, high, *_round_numbers(low, high, logarithmic=colours.logarithmic)):
        if all(abs(place(value) - place(other)) >= clearance * (1 - 1e-9) for other in chosen):
            chosen.append(value)
    return sorted(chosen)


def _round_numbers(low: float, high: float, *, logarithmic: bool) -> list[float]:
    """Two to five multiples of 1, 2 or 5 times a power of ten; powers of ten on a logarithmic scale."""
    if logarithmic:
        return [float(10**power) for power in range(8) if low < 10**power < high]
    unit = 10.0 ** math.floor(math.log10((high - low) / 2))
    step = next(unit * factor for factor in (1, 2, 5, 10) if (high - low) / (unit * factor) <= 5)
    return [round(index * step, 12) for index in range(math.ceil(low / step), math.floor(high / step) + 1)]
