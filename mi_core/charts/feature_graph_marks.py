"""The marks of the attribution graph: lines as wide as their influence, a shape and hue per kind of node."""

from typing import Any

from mi_core.charts.layers import mark_layer, name_channel, shown_name, shown_number
from mi_core.charts.text import pick_expression
from mi_core.charts.theme import NEGATIVE, POSITIVE
from mi_core.transcoders.graph_names import KIND_NAMES

Spec = dict[str, Any]

SHAPES = ("circle", "diamond", "square", "triangle-up")
HUES = ("#8570c4", "#8a8a8a", "#009e73", "#b8860b")
"""Of features, errors, tokens and logits; blue and orange are kept for the sign of edges."""
WIDE = 760  # plot width in pixels at which marks have their full size; in a narrow one they shrink with it


def grown(size: float, power: int = 1) -> Spec:
    """A length (power 1) or an area (power 2) that follows the width of the plot up to its full size."""
    return {"expr": f"{size} * pow(min(1, max(0.4, width / {WIDE})), {power})"}


_SIGNED: Spec = {"condition": {"test": "datum.value < 0", "value": NEGATIVE}, "value": POSITIVE}


def edge_layers(x: Spec, y: Spec, *, faint: bool) -> list[Spec]:
    """Lines from `edges`, `chosen_edges` and, while the pointer is near a node, `touching`."""
    ends = {"x": x, "y": y, "x2": {"field": "x2"}, "y2": {"field": "y2"}}
    width = {
        "field": "size", "type": "quantitative", "legend": None,
        "scale": {"domain": [0, 1], "range": [grown(0.3), grown(4.0)], "clamp": True},
    }  # fmt: skip
    strength = {**width, "scale": {"domain": [0, 1], "range": [0.12, 0.8], "clamp": True}}
    hovered = mark_layer("touching", "rule", look={"opacity": 0.85}, **ends, color=_SIGNED, strokeWidth=width)
    faintly: Spec = {} if faint else {"opacity": strength}
    return [
        mark_layer("edges", "rule", "edge-faint" if faint else "edge", **ends, strokeWidth=width, **faintly),
        mark_layer("chosen_edges", "rule", look={"opacity": 0.85}, **ends, color=_SIGNED, strokeWidth=width),
        {**hovered, "transform": [{"filter": {"param": "hover", "empty": False}}]},
    ]


def node_layers(x: Spec, y: Spec, *, chosen: bool) -> list[Spec]:
    """Marks of `nodes`, `pinned`, `chosen`, and names of `named` and `logits`; they hold the selections."""
    kinds = [str(kind) for kind in range(len(KIND_NAMES))]
    legend = {"title": None, "labelExpr": pick_expression(KIND_NAMES), "symbolOpacity": 1}
    shape = name_channel("kind", scale={"domain": kinds, "range": list(SHAPES)}, legend=legend)
    hue = name_channel("kind", scale={"domain": kinds, "range": list(HUES)}, legend=legend)
    signs = [
        {"test": "datum.sign > 0", "value": POSITIVE},
        {"test": "datum.sign < 0", "value": NEGATIVE},
    ]
    size = {
        "field": "size", "type": "quantitative", "legend": None,
        "scale": {"type": "sqrt", "range": [grown(26.0, 2), grown(190.0, 2)], "zero": True},
    }  # fmt: skip
    told = [
        shown_name("name", "node"), shown_name("label", "label"), shown_name("told", "its number"),
        shown_number("size", "influence [share]"),
        *([shown_name("weight", "edge")] if chosen else []),
    ]  # fmt: skip
    faded = {"condition": {"test": "datum.faded", "value": 0.28}, "value": 1}
    dots = mark_layer(
        "nodes", "point", look={"filled": True, "cursor": "pointer", "strokeWidth": 0},
        x=x, y=y, shape=shape, color={"condition": signs, **hue}, size=size, opacity=faded, tooltip=told,
    )  # fmt: skip
    ring = {"filled": False, "size": grown(300.0, 2)}
    above, left = {"dy": -12}, {"dx": -10, "align": "right", "baseline": "middle"}
    places = {"x": x, "y": y, "text": {"field": "beside"}}
    return [
        {
            **dots,
            "params": [_nearest("cell", "click", "node", "turn"), _nearest("hover", "pointerover", "node")],
        },
        mark_layer("pinned", "point", "pin", look=ring, x=x, y=y),
        mark_layer("chosen", "point", "ring", look={"size": grown(420.0, 2)}, x=x, y=y),
        *(
            mark_layer(data, "text", style, look=look, **places)
            for data, look in (("named", above), ("logits", left))
            for style in ("text-halo", "value")
        ),
    ]


def _nearest(name: str, event: str, *fields: str) -> Spec:
    """A selection of the node that is nearest to the pointer: small nodes are hard to hit."""
    select: Spec = {"type": "point", "fields": list(fields), "nearest": True, "toggle": False, "on": event}
    if name == "hover":
        select["clear"] = "pointerout"
    return {"name": name, "select": select}
