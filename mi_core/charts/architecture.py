"""The plan of a model: all layers in a row, and one block large, drawn from what the model really has.

Above: embedding, one column of two cells per layer (attention, MLP), final norm, unembedding. Below: the
chosen block, with the norms before and behind its two modules, heads and key-value heads, gated or plain MLP,
one module after the other or side by side (parallel blocks). Every box can be clicked; `cell` then has the
fields part and layer (-1 for what exists once).
"""

from collections.abc import Iterator, Sequence
from typing import Any

from mi_core.analyses.inspect_parts import Architecture
from mi_core.charts.architecture_boxes import (
    LAYERS,
    ONCE,
    PARALLEL_STREAM,
    ROW,
    STREAM,
    STRIP,
    WIDTH,
    Box,
    attention_note,
    block_boxes,
    branches,
    column_ends,
    mlp_note,
    row_boxes,
)
from mi_core.charts.layers import cell_selection, mark_layer, name_channel, number_channel, shown_name
from mi_core.charts.text import legible

Spec = dict[str, Any]

# In the order of the theme's colours, of which the last is grey; two are left out.
_HUES = ("attention", "mlp", "ends", "unused", "free", "norm")
_HUE_OF = {
    "embed": "ends",
    "unembed": "ends",
    "attn": "attention",
    "mlp": "mlp",
    "block": "norm",
    "norm": "norm",
    "final_norm": "norm",
}

_SERIAL_HEIGHT, _PARALLEL_HEIGHT = 282, 354


def architecture_chart(plan: Architecture, *, layer: int | None = None, part: str | None = None) -> Spec:
    """Draw a model.

    Args:
        plan: from an inspection.
        layer: chosen layer, drawn large; None = the first one is, and none is marked.
        part: chosen part, one of `architecture_boxes.PARTS`; outlined.

    Returns:
        A Vega-Lite specification without looks.
    """
    shown = layer if layer is not None and 0 <= layer < plan.n_layers else 0
    boxes = [*row_boxes(plan), *block_boxes(plan, shown)]
    wanted = "block" if part is None and layer is not None else part
    height = _PARALLEL_HEIGHT if plan.parallel else _SERIAL_HEIGHT
    place = ONCE if layer is None else layer
    chosen = [_record(box) for box in boxes if (box.part, box.layer) == (wanted, place)]
    if wanted == "block":  # the whole column, not only the number under it
        chosen = [{**record, "y": ROW[0]} for record in chosen]
    return {
        "height": height,
        "datasets": {
            "boxes": [_record(box) for box in boxes],
            "chosen": chosen,
            "texts": [record for box in boxes for record in _texts(box)],
            "zoom": _zoom(plan, shown),
            "wires": _wires(plan, boxes),
            "adds": _adds(plan),
            "heads": _arrow_heads(plan),
            "labels": _labels(plan, shown),
        },
        "layer": _layers(height),
    }


# Sizes of the theme's points, in the ink of its axes.
_RING = {"style": ["best", "axis-line"]}
_ARROW = {"style": ["dot", "axis-line"], "shape": "triangle-right"}


def _layers(height: int) -> list[Spec]:
    """Wires below boxes, boxes below their texts, and the outline of the chosen box on top."""
    across = number_channel("x", scale=_scale(WIDTH), axis=None)
    down = number_channel("y", scale={**_scale(float(height)), "reverse": True}, axis=None)
    box = {"x": across, "x2": {"field": "x1"}, "y": down, "y2": {"field": "y1"}}
    point = {"x": across, "y": down}
    hue = name_channel("hue", scale={"domain": list(_HUES)}, legend=None)
    told = [shown_name("name", "part"), shown_name("note", "what")]
    live = mark_layer(
        "boxes",
        "rect",
        look={"cursor": "pointer", "fillOpacity": 0.2},
        **box,
        fill=hue,
        stroke=hue,
        strokeWidth=number_channel("border", scale=None, legend=None),
        tooltip=told,
    )
    live["params"] = cell_selection("part", "layer")
    text = {"field": "text", "type": "nominal"}
    words = {"limit": {"expr": f"datum.room * width / {WIDTH:.0f}"}}
    beside = {"align": "left", "baseline": "middle"}
    return [
        mark_layer("zoom", "rule", "reference", **box),
        mark_layer("wires", "rule", "axis-line", **box),
        mark_layer("heads", "point", look=_ARROW, **point),
        mark_layer("adds", "point", look=_RING, **point),
        live,
        mark_layer("texts", "text", "value", look=words, **point, text=text),
        mark_layer("labels", "text", "note", look=beside, **point, text=text),
        mark_layer("chosen", "rect", "halo", **box),
        mark_layer("chosen", "rect", "chosen", **box),
    ]


def _scale(end: float) -> Spec:
    return {"domain": [0.0, end], "nice": False, "zero": False}


def _record(box: Box) -> dict[str, Any]:
    name = box.lines[0] if box.lines else box.part
    where = "" if box.layer == ONCE else f"layer {box.layer}, "
    return {
        "part": box.part, "layer": box.layer, "name": legible(f"{where}{name}"), "note": legible(box.note),
        "hue": _HUE_OF[box.part], "border": box.border,
        "x": box.left, "x1": box.right, "y": box.top, "y1": box.bottom,
    }  # fmt: skip


def _texts(box: Box) -> Iterator[dict[str, Any]]:
    """The lines of a box, centred."""
    lines = ((box.mark,) if box.mark else ()) if box.small else box.lines
    middle = (box.top + box.bottom) / 2
    for number, line in enumerate(lines):
        offset = (number - (len(lines) - 1) / 2) * 15.0
        yield {
            "x": (box.left + box.right) / 2, "y": middle + offset, "text": legible(line),
            "room": 60 if box.mark else box.right - box.left - 6,
        }  # fmt: skip


def _zoom(plan: Architecture, layer: int) -> list[dict[str, float]]:
    """Two lines from the layer's column to the drawing of its block."""
    left, right = column_ends(plan, layer)
    top, end = STRIP[1] + 2, STRIP[1] + 26
    return [
        {"x": left, "x1": 0.0, "y": top, "y1": end},
        {"x": right, "x1": WIDTH, "y": top, "y1": end},
    ]


def _wires(plan: Architecture, boxes: Sequence[Box]) -> list[dict[str, float]]:
    """The stream, and the branches that leave it, pass their boxes and come back."""
    stream = PARALLEL_STREAM if plan.parallel else STREAM
    row = (ROW[0] + ROW[1]) / 2
    wires = [_level(0.0, WIDTH, stream)]
    ends = [(box.left, box.right) for box in boxes if box.layer == ONCE]
    wires += _between([*ends, LAYERS], ends[0][1], ends[-1][0], row)
    for _, left, right, top, bottom in branches(plan):
        middle = (top + bottom) / 2
        inside = [(box.left, box.right) for box in boxes if not box.small and box.top < middle < box.bottom]
        wires += [_upright(left, stream, middle), _upright(right, middle, stream)]
        wires += _between([one for one in inside if left < one[0] and one[1] < right], left, right, middle)
    return wires


def _level(left: float, right: float, height: float) -> dict[str, float]:
    return {"x": left, "x1": right, "y": height, "y1": height}


def _upright(place: float, top: float, bottom: float) -> dict[str, float]:
    return {"x": place, "x1": place, "y": top, "y1": bottom}


def _between(
    boxes: Sequence[tuple[float, float]], left: float, right: float, height: float
) -> list[dict[str, float]]:
    """Pieces of a level line that are not hidden by boxes, which let it shine through."""
    pieces = []
    for first, last in sorted(boxes):
        if first > left:
            pieces.append(_level(left, min(first, right), height))
        left = max(left, last)
    return [*pieces, _level(left, right, height)] if left < right else pieces


def _adds(plan: Architecture) -> list[dict[str, float]]:
    """Where a branch is added to the stream."""
    stream = PARALLEL_STREAM if plan.parallel else STREAM
    places = {right for _, _, right, _, _ in branches(plan)}
    return [{"x": place, "y": stream} for place in sorted(places)]


def _arrow_heads(plan: Architecture) -> list[dict[str, float]]:
    return [{"x": WIDTH - 4, "y": PARALLEL_STREAM if plan.parallel else STREAM}]


def _labels(plan: Architecture, layer: int) -> list[dict[str, Any]]:
    """Words beside the drawing."""
    kind = "parallel block" if plan.parallel else "block"
    doubt = "" if plan.norms_known else "; norms left out, its sums could not be proved"
    title = f"layer {layer}: {kind}, stream of {plan.d_model} numbers per token{doubt}"
    return [
        {"x": LAYERS[0], "y": 12.0, "text": f"{plan.n_layers} layers: attention above, MLP below"},
        {"x": 12.0, "y": STRIP[1] + 36.0, "text": title},
    ]


def describe_architecture(plan: Architecture) -> str:
    """A few sentences that stand for the drawing."""
    order = "side by side on the same stream" if plan.parallel else "one after the other"
    before = [name for name in dict.fromkeys((plan.attention_norm, plan.mlp_norm)) if name]
    behind = [name for name in (plan.attention_post_norm, plan.mlp_post_norm) if name]
    norms = f"Norms before: {', '.join(before) or 'none'}; behind: {', '.join(behind) or 'none'}."
    if not plan.norms_known:
        norms = "Its norms are left out: the sums of its blocks could not be proved."
    return (
        f"A {plan.family} model of {plan.n_layers} layers on a stream of {plan.d_model} numbers per token. "
        f"Each block has attention ({attention_note(plan, 0)}) and an MLP ({mlp_note(plan)}), {order}. "
        f"{norms} Vocabulary of {plan.d_vocab:,} tokens, embedding and unembedding "
        f"{'tied' if plan.tied else 'separate'}."
    )
