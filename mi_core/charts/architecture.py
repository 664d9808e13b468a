"""The plan of a model: all layers in a row, and one block large, drawn from what the model really has.

Above: embedding, one column of two cells per layer (attention, MLP), final norm, unembedding. Below: the
chosen block, with the norms before and behind its two modules, heads and key-value heads, gated or plain MLP,
one module after the other or side by side (parallel blocks). Every box can be clicked; `cell` then has the
fields part and layer (-1 for what exists once).

Horizontal places are thousandths of the width, vertical ones pixels of the screen's size; on paper all of it
follows the type size.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mi_core.analyses.inspect_parts import Architecture
from mi_core.charts.layers import cell_selection, mark_layer, name_channel, number_channel, shown_name
from mi_core.charts.text import legible

Spec = dict[str, Any]

WIDTH = 1000.0
ONCE = -1
"""Layer of what exists once."""

PARTS = ("embed", "attn", "mlp", "norm", "final_norm", "unembed")
"""What a box can be; a click gives one of them."""

# In the order of the theme's colours, of which the last is grey; two are left out.
_HUES = ("attention", "mlp", "ends", "unused", "free", "norm")
_HUE_OF = {
    "embed": "ends",
    "unembed": "ends",
    "attn": "attention",
    "mlp": "mlp",
    "norm": "norm",
    "final_norm": "norm",
}

_ROW = (26.0, 92.0)  # the row of layers
_LAYERS = (118.0, 818.0)  # from the first to the last layer
_SERIAL_HEIGHT, _PARALLEL_HEIGHT = 300, 372


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle with up to three lines of text.

    Attributes:
        part: one of `PARTS`.
        layer: layer number, or `ONCE`.
        left, top, right, bottom: edges.
        lines: text, from top to bottom.
        note: what the tooltip says.
        small: drawn without text (the row of layers).
    """

    part: str
    layer: int
    left: float
    top: float
    right: float
    bottom: float
    lines: tuple[str, ...]
    note: str
    small: bool = False


def architecture_chart(
    plan: Architecture,
    *,
    layer: int | None = None,
    part: str | None = None,
    sites_missing: Sequence[str] = (),
) -> Spec:
    """Draw a model.

    Args:
        plan: from an inspection.
        layer: chosen layer, drawn large; None = the first one is, and none is marked.
        part: chosen part, one of `PARTS`; outlined.
        sites_missing: names of sites that cannot be read, for the note on blocks; empty = all can.

    Returns:
        A Vega-Lite specification without looks.
    """
    shown = layer if layer is not None and 0 <= layer < plan.n_layers else 0
    boxes = [*_row(plan), *_block(plan, shown)]
    height = _PARALLEL_HEIGHT if plan.parallel else _SERIAL_HEIGHT
    chosen = [
        _record(box) for box in boxes if box.part == part and box.layer == (ONCE if layer is None else shown)
    ]
    return {
        "height": height,
        "datasets": {
            "boxes": [_record(box) for box in boxes],
            "chosen": chosen,
            "texts": [record for box in boxes for record in _texts(box)],
            "zoom": _zoom(plan, shown),
            "wires": _wires(plan),
            "adds": _adds(plan),
            "heads": _arrow_heads(plan),
            "labels": _labels(plan, shown, sites_missing),
        },
        "layer": _layers(height),
    }


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
        tooltip=told,
    )
    live["params"] = cell_selection("part", "layer")
    text = {"field": "text", "type": "nominal"}
    words, ring = {"limit": {"expr": f"datum.room * width / {WIDTH:.0f}"}}, {"filled": False, "size": 110}
    beside = {"align": "left", "baseline": "middle"}
    return [
        mark_layer("zoom", "rule", "separator", **box),
        mark_layer("wires", "rule", "axis-line", **box),
        mark_layer("heads", "point", "axis-line", look={"shape": "triangle-right", "filled": True}, **point),
        mark_layer("adds", "point", "axis-line", look=ring, **point),
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
        "hue": _HUE_OF[box.part], "x": box.left, "x1": box.right, "y": box.top, "y1": box.bottom,
    }  # fmt: skip


def _texts(box: Box) -> Iterator[dict[str, Any]]:
    """The lines of a box, centred."""
    if box.small:
        return
    middle = (box.top + box.bottom) / 2
    for number, line in enumerate(box.lines):
        offset = (number - (len(box.lines) - 1) / 2) * 15.0
        yield {
            "x": (box.left + box.right) / 2, "y": middle + offset, "text": legible(line),
            "room": box.right - box.left - 6,
        }  # fmt: skip


# --- the row of layers ---


def _row(plan: Architecture) -> Iterator[Box]:
    """Everything the stream passes, from left to right."""
    top, bottom = _ROW
    positions = "" if plan.rotary else " + positions"
    yield Box(
        "embed", ONCE, 0.0, top, 92.0, bottom, ("embed", f"{plan.d_vocab:,}"),
        f"{plan.d_vocab:,} tokens to {plan.d_model} numbers{positions}",
    )  # fmt: skip
    for layer in range(plan.n_layers):
        yield from _column(plan, layer)
    if plan.final_norm:
        yield Box("final_norm", ONCE, 838.0, top, 898.0, bottom, ("norm",), plan.final_norm)
    softcap = "" if plan.softcap is None else f", softcap {plan.softcap:g}"
    tied = ", tied to the embedding" if plan.tied else ""
    yield Box(
        "unembed", ONCE, 908.0, top, WIDTH, bottom, ("unembed", f"{plan.d_vocab:,}"),
        f"{plan.d_model} numbers to {plan.d_vocab:,} logits{tied}{softcap}",
    )  # fmt: skip


def _column(plan: Architecture, layer: int) -> Iterator[Box]:
    """One layer: attention above, MLP below."""
    left, right = _column_ends(plan, layer)
    top, bottom = _ROW
    middle = (top + bottom) / 2
    for part, first, last, words in (
        ("attn", top, middle, "attention"),
        ("mlp", middle, bottom, "MLP"),
    ):
        note = _attention_note(plan, layer) if part == "attn" else _mlp_note(plan)
        yield Box(part, layer, left, first, right, last, (words,), note, small=True)


def _column_ends(plan: Architecture, layer: int) -> tuple[float, float]:
    first, last = _LAYERS
    step = (last - first) / plan.n_layers
    gap = min(4.0, 0.15 * step)
    return first + layer * step + gap / 2, first + (layer + 1) * step - gap / 2


def _attention_note(plan: Architecture, layer: int) -> str:
    kv = "" if plan.n_kv_heads == plan.n_heads else f", {plan.n_kv_heads} key-value heads"
    kind = f", {plan.layer_kinds[layer]}" if plan.layer_kinds else ""
    normed = ", queries and keys normed" if plan.query_key_norm else ""
    return f"{plan.n_heads} heads of {plan.d_head}{kv}{normed}{kind}"


def _mlp_note(plan: Architecture) -> str:
    gated = "gated, " if plan.gated else ""
    return f"{gated}{plan.d_mlp:,} neurons" + (f", {plan.activation}" if plan.activation else "")


def _zoom(plan: Architecture, layer: int) -> list[dict[str, float]]:
    """Two lines from the layer's column to the drawing of its block."""
    left, right = _column_ends(plan, layer)
    top = _ROW[1] + 3
    end = _ROW[1] + 40
    return [
        {"x": left, "x1": 0.0, "y": top, "y1": end},
        {"x": right, "x1": WIDTH, "y": top, "y1": end},
    ]


# --- one block ---

_STREAM = 168.0  # height of the residual stream of a serial block
_BRANCH = (204.0, 272.0)  # its modules
_PARALLEL_STREAM = 252.0
_UPPER, _LOWER = (160.0, 228.0), (276.0, 344.0)
_HALVES = ((60.0, 480.0), (540.0, 960.0))


def _branches(plan: Architecture) -> tuple[tuple[str, float, float, float, float], ...]:
    """(part, left, right, top, bottom) of the two modules with their norms."""
    if plan.parallel:
        return ("attn", 140.0, 860.0, *_UPPER), ("mlp", 140.0, 860.0, *_LOWER)
    return ("attn", *_HALVES[0], *_BRANCH), ("mlp", *_HALVES[1], *_BRANCH)


def _block(plan: Architecture, layer: int) -> Iterator[Box]:
    """The modules of one block and their norms."""
    for part, left, right, top, bottom in _branches(plan):
        attention = part == "attn"
        before = plan.attention_norm if attention else plan.mlp_norm
        behind = plan.attention_post_norm if attention else plan.mlp_post_norm
        shared = plan.parallel and plan.attention_norm == plan.mlp_norm
        inner_left, inner_right = left + 24, right - 24
        narrow = 96.0
        if before:
            note = f"{before} (one norm for both)" if shared else before
            yield Box("norm", layer, inner_left, top + 12, inner_left + narrow, bottom - 12, ("norm",), note)
            inner_left += narrow + 20
        if behind:
            yield Box(
                "norm", layer, inner_right - narrow, top + 12, inner_right, bottom - 12, ("norm",), behind
            )
            inner_right -= narrow + 20
        lines, note = _module_text(plan, layer, attention)
        yield Box(part, layer, inner_left, top, inner_right, bottom, lines, note)


def _module_text(plan: Architecture, layer: int, attention: bool) -> tuple[tuple[str, ...], str]:
    if not attention:
        gated = "gated " if plan.gated else ""
        detail = (f"{gated}{plan.activation}".strip(),) if gated or plan.activation else ()
        return ("MLP", f"{plan.d_mlp:,} neurons", *detail), _mlp_note(plan)
    heads = f"{plan.n_heads} heads \N{MULTIPLICATION SIGN} {plan.d_head}"
    grouped = (f"{plan.n_kv_heads} KV heads",) if plan.n_kv_heads != plan.n_heads else ()
    kind = (plan.layer_kinds[layer],) if plan.layer_kinds and not grouped else ()
    return ("attention", heads, *grouped, *kind), _attention_note(plan, layer)


def _wires(plan: Architecture) -> list[dict[str, float]]:
    """The stream, and the branches that leave it and come back."""
    stream = _PARALLEL_STREAM if plan.parallel else _STREAM
    row = (_ROW[0] + _ROW[1]) / 2
    wires = [
        {"x": 0.0, "x1": WIDTH, "y": stream, "y1": stream},
        {"x": 92.0, "x1": 908.0, "y": row, "y1": row},
    ]
    for _, left, right, top, bottom in _branches(plan):
        middle = (top + bottom) / 2
        wires += [
            {"x": left, "x1": left, "y": stream, "y1": middle},
            {"x": left, "x1": right, "y": middle, "y1": middle},
            {"x": right, "x1": right, "y": middle, "y1": stream},
        ]
    return wires


def _adds(plan: Architecture) -> list[dict[str, float]]:
    """Where a branch is added to the stream."""
    stream = _PARALLEL_STREAM if plan.parallel else _STREAM
    places = {right for _, _, right, _, _ in _branches(plan)}
    return [{"x": place, "y": stream} for place in sorted(places)]


def _arrow_heads(plan: Architecture) -> list[dict[str, float]]:
    return [{"x": WIDTH - 4, "y": _PARALLEL_STREAM if plan.parallel else _STREAM}]


def _labels(plan: Architecture, layer: int, sites_missing: Sequence[str]) -> list[dict[str, Any]]:
    """Words beside the drawing."""
    unproved = "attn_out" in sites_missing or "mlp_out" in sites_missing
    kind = "parallel block" if plan.parallel else "block"
    doubt = "; norms left out, its sums could not be proved" if unproved else ""
    title = f"layer {layer}: {kind}, stream of {plan.d_model} numbers per token{doubt}"
    return [
        {"x": _LAYERS[0], "y": 12.0, "text": f"{plan.n_layers} layers: attention above, MLP below"},
        {"x": 12.0, "y": _ROW[1] + 50.0, "text": title},
    ]


def describe_architecture(plan: Architecture) -> str:
    """A few sentences that stand for the drawing."""
    order = "side by side on the same stream" if plan.parallel else "one after the other"
    before = [name for name in dict.fromkeys((plan.attention_norm, plan.mlp_norm)) if name]
    behind = [name for name in (plan.attention_post_norm, plan.mlp_post_norm) if name]
    norms = f"Norms before: {', '.join(before) or 'none'}; behind: {', '.join(behind) or 'none'}."
    return (
        f"A {plan.family} model of {plan.n_layers} layers on a stream of {plan.d_model} numbers per token. "
        f"Each block has attention ({_attention_note(plan, 0)}) and an MLP ({_mlp_note(plan)}), {order}. "
        f"{norms} Vocabulary of {plan.d_vocab:,} tokens, embedding and unembedding "
        f"{'tied' if plan.tied else 'separate'}."
    )
