"""Where the boxes of the plan of a model stand, and what is written in them.

Horizontal places are thousandths of the width, vertical ones pixels of the screen's size; on paper all of it
follows the type size.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from mi_core.analyses.inspect_parts import Architecture

WIDTH = 1000.0
ONCE = -1
"""Layer of what exists once."""

PARTS = ("embed", "block", "attn", "mlp", "norm", "final_norm", "unembed")
"""What a box can be; a click gives one of them."""

ROW = (26.0, 92.0)  # the row of layers
STRIP = (95.0, 110.0)  # the numbers under it
LAYERS = (134.0, 750.0)  # from the first to the last layer
CROWDED = 24
"""Layers above which the columns of the row have no borders and few numbers."""


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
        border: 1, or 0 for none.
        mark: the only text of a small box.
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
    border: int = 1
    mark: str = ""


# --- the row of layers ---


def row_boxes(plan: Architecture) -> Iterator[Box]:
    """Everything the stream passes, from left to right."""
    top, bottom = ROW
    positions = "" if plan.rotary else " + positions"
    yield Box(
        "embed", ONCE, 0.0, top, 116.0, bottom, ("embed", f"{plan.d_vocab:,}"),
        f"{plan.d_vocab:,} tokens to {plan.d_model} numbers{positions}",
    )  # fmt: skip
    for layer in range(plan.n_layers):
        yield from _column(plan, layer)
    if plan.final_norm:
        yield Box("final_norm", ONCE, 766.0, top, 846.0, bottom, ("norm",), plan.final_norm)
    softcap = "" if plan.softcap is None else f", softcap {plan.softcap:g}"
    tied = ", tied to the embedding" if plan.tied else ""
    yield Box(
        "unembed", ONCE, 860.0, top, WIDTH, bottom, ("unembed", f"{plan.d_vocab:,}"),
        f"{plan.d_model} numbers to {plan.d_vocab:,} logits{tied}{softcap}",
    )  # fmt: skip


def _column(plan: Architecture, layer: int) -> Iterator[Box]:
    """One layer: attention above, MLP below, and under them the layer's number."""
    left, right = column_ends(plan, layer)
    top, bottom = ROW
    middle, border = (top + bottom) / 2, int(plan.n_layers <= CROWDED)
    for part, first, last, words in (
        ("attn", top, middle, "attention"),
        ("mlp", middle, bottom, "MLP"),
    ):
        note = attention_note(plan, layer) if part == "attn" else mlp_note(plan)
        yield Box(part, layer, left, first, right, last, (words,), note, small=True, border=border)
    numbered = plan.n_layers <= CROWDED or layer % 10 == 0
    words = "all weights of this layer"
    yield Box("block", layer, left, STRIP[0], right, STRIP[1], ("block",), words, small=True, border=0,
              mark=str(layer) if numbered else "")  # fmt: skip


def column_ends(plan: Architecture, layer: int) -> tuple[float, float]:
    """Left and right edge of a layer's column."""
    first, last = LAYERS
    step = (last - first) / plan.n_layers
    gap = min(4.0, 0.15 * step)
    return first + layer * step + gap / 2, first + (layer + 1) * step - gap / 2


def attention_note(plan: Architecture, layer: int) -> str:
    """Heads of a layer's attention in a clause."""
    kv = "" if plan.n_kv_heads == plan.n_heads else f", {plan.n_kv_heads} key-value heads"
    kind = f", {plan.layer_kinds[layer]}" if plan.layer_kinds else ""
    normed = ", queries and keys normed" if plan.query_key_norm else ""
    return f"{plan.n_heads} heads of {plan.d_head}{kv}{normed}{kind}"


def mlp_note(plan: Architecture) -> str:
    """The MLP of a block in a clause."""
    gated = "gated, " if plan.gated else ""
    return f"{gated}{plan.d_mlp:,} neurons" + (f", {plan.activation}" if plan.activation else "")


# --- one block ---

STREAM = 168.0  # height of the residual stream of a serial block
_BRANCH = (204.0, 272.0)  # its modules
PARALLEL_STREAM = 252.0
_UPPER, _LOWER = (160.0, 228.0), (276.0, 344.0)
_HALVES = ((45.0, 465.0), (520.0, 940.0))


def branches(plan: Architecture) -> tuple[tuple[str, float, float, float, float], ...]:
    """(part, left, right, top, bottom) of the two modules with their norms."""
    if plan.parallel:
        return ("attn", 140.0, 860.0, *_UPPER), ("mlp", 140.0, 860.0, *_LOWER)
    return ("attn", *_HALVES[0], *_BRANCH), ("mlp", *_HALVES[1], *_BRANCH)


def block_boxes(plan: Architecture, layer: int) -> Iterator[Box]:
    """The modules of one block and their norms."""
    for part, left, right, top, bottom in branches(plan):
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
        return ("MLP", f"{plan.d_mlp:,} neurons", *detail), mlp_note(plan)
    heads = f"{plan.n_heads} heads \N{MULTIPLICATION SIGN} {plan.d_head}"
    grouped = (f"{plan.n_kv_heads} KV heads",) if plan.n_kv_heads != plan.n_heads else ()
    kind = (plan.layer_kinds[layer],) if plan.layer_kinds else ()
    return ("attention", heads, *grouped, *kind), attention_note(plan, layer)
