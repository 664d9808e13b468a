"""Small words for writing Vega-Lite: channels and layers."""

from collections.abc import Sequence
from typing import Any

from mi_core.charts.text import literal
from mi_core.charts.theme import DASHES

Spec = dict[str, Any]


def number_channel(field: str, **more: Any) -> Spec:
    """A numeric field."""
    return {"field": field, "type": "quantitative", **more}


def name_channel(field: str, **more: Any) -> Spec:
    """A field of names."""
    return {"field": field, "type": "nominal", **more}


def shown_name(field: str, title: str) -> Spec:
    """A name in a tooltip."""
    return {"field": field, "type": "nominal", "title": title}


def shown_index(field: str, title: str) -> Spec:
    """A whole number in a tooltip."""
    return {"field": field, "type": "ordinal", "title": title}


def shown_number(field: str, title: str) -> Spec:
    """A value in a tooltip, with six significant digits: pointing must tell more than the colour does."""
    return {"field": field, "type": "quantitative", "format": ".6~g", "title": title}


def mark_layer(
    data: str, mark: str, style: str | None = None, /, *, look: Spec | None = None, **encoding: Any
) -> Spec:
    """One layer over a named data set; it has a tooltip only if its encoding says so."""
    described = {"type": mark, **({"style": style} if style else {}), **(look or {})}
    if "tooltip" not in encoding:
        described["tooltip"] = None
    return {"data": {"name": data}, "mark": described, "encoding": encoding}


def cell_selection(*fields: str) -> list[Spec]:
    """The selection of every figure of cells: a click gives `cell` with these fields."""
    return [{"name": "cell", "select": {"type": "point", "fields": list(fields), "toggle": False}}]


def dashes(field: str, names: Sequence[str]) -> Spec:
    """A dash per name, without a scale: with one the dashes get into the legend and break its symbols."""
    tests = [
        {"test": f"datum.{field} === {literal(name)}", "value": list(dash)}
        for name, dash in zip(names, DASHES, strict=False)
    ]
    return {"condition": tests, "value": [1, 0]}
