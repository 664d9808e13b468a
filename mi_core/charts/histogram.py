"""Histograms: counts that were made before, as bars for one series and as outlines for several."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mi_core.charts.layers import mark_layer, number_channel, shown_name, shown_number
from mi_core.charts.text import legible

Spec = dict[str, Any]

HEIGHT = 260


@dataclass(frozen=True, slots=True)
class Series:
    """Counts of one quantity.

    Attributes:
        name: in the legend.
        counts: one per bin.
    """

    name: str
    counts: Sequence[float]


def histogram(
    edges: Sequence[float],
    series: Sequence[Series],
    *,
    x_title: str,
    unit: str,
    y_title: str = "count",
    marks: Sequence[tuple[float, str]] = (),
    logarithmic_counts: bool = False,
) -> Spec:
    """Counts over bins.

    Args:
        edges: ends of the bins, one more than there are bins.
        series: counts.
        x_title: the quantity.
        unit: its unit.
        y_title: what is counted.
        marks: values with names, drawn as vertical rules.
        logarithmic_counts: heights follow log(1 + count), so that 0 stays 0.

    Returns:
        Specification without looks.
    """
    heading = legible(f"{x_title} [{unit}]" if unit else x_title)
    records = [
        {"series": legible(s.name), "x": edges[i], "x1": edges[i + 1], "count": count, "zero": 0}
        for s in series for i, count in enumerate(s.counts)
    ]  # fmt: skip
    x = number_channel("x", scale={"nice": False, "zero": False}, axis={"title": heading, "grid": False})
    y = number_channel(
        "count", scale={"type": "symlog"} if logarithmic_counts else {}, axis={"title": legible(y_title)}
    )
    tooltip = [
        shown_name("series", "series"),
        shown_number("x", "from"),
        shown_number("x1", "to"),
        shown_number("count", legible(y_title)),
    ]
    colour = (
        {"color": {"field": "series", "type": "nominal", "legend": {"title": None}}}
        if len(series) > 1
        else {}
    )
    return {
        "height": HEIGHT,
        "datasets": {"bins": records, "marks": [{"x": v, "label": legible(n)} for v, n in marks]},
        "layer": [
            mark_layer(
                "bins", "rect", x=x, x2={"field": "x1"}, y=y, y2={"field": "zero"}, tooltip=tooltip, **colour
            ),
            mark_layer("marks", "rule", "reference", x=x),
        ],
    }
