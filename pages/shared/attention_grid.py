"""All heads as small pictures on a canvas: hover looks, a click locks, a double click shows one alone.

Pictures and colours are made here as bytes; the browser only paints them. Nothing in them is text from a
prompt. Only a lock runs the page again.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import streamlit as st
from streamlit.components.v2 import component

from pages.shared.theme import ASSETS, theme_name

if TYPE_CHECKING:
    from mi_core.analyses.attention_view import Thumbnails

_HTML = """
<div id="attention">
  <div id="frame"><canvas id="heads" tabindex="0" role="img"></canvas></div>
  <div id="card">
    <div id="title"></div>
    <canvas id="big" width="400" height="400" role="img"></canvas>
    <dl id="numbers"></dl>
    <div id="note"></div>
  </div>
  <div id="said" aria-live="polite"></div>
</div>
"""

_GRID = component(
    "lantern_attention_grid",
    html=_HTML,
    css=(ASSETS / "css" / "attention_grid.css").read_text(encoding="utf-8"),
    js=(ASSETS / "js" / "attention_grid.js").read_text(encoding="utf-8"),
)

_GREY = {"light": [230, 230, 230], "dark": [59, 63, 71]}
"""Pixels without a number, as in the figures."""


@dataclass(frozen=True)
class HeadTile:
    """One head of the grid.

    Attributes:
        layer: layer index.
        head: head index.
        shade: colour of its frame, 0 to 254 along the shades; -1 = no number.
        value: the number that it is shaded by, as text.
        numbers: all its numbers, as texts.
        scale: what the colours of its picture mean, a sentence.
    """

    layer: int
    head: int
    shade: int
    value: str
    numbers: tuple[str, ...]
    scale: str


@dataclass(frozen=True)
class GridWords:
    """What the grid says.

    Attributes:
        label: what a screen reader calls it.
        metrics: names of the numbers.
        metric: index of the one that shades.
    """

    label: str
    metrics: tuple[str, ...]
    metric: int


def attention_grid(
    tiles: Sequence[HeadTile],
    pictures: Thumbnails,
    words: GridWords,
    *,
    signed_shade: bool,
    in_rows: bool,
    locked: tuple[int, int] | None,
    pinned: Sequence[tuple[int, int]],
    key: str,
    on_lock: Callable[[int, int], None],
) -> None:
    """Draw the grid.

    Args:
        tiles: the heads to draw, in order.
        pictures: of all heads.
        words: what it says.
        signed_shade: whether the shades have a white zero.
        in_rows: layers down and heads across; False = one after the other.
        locked: (layer, head) of the locked head.
        pinned: heads with a pin.
        key: unique key.
        on_lock: called with layer and head of a clicked head.
    """
    known = {(tile.layer, tile.head) for tile in tiles}

    def clicked() -> None:
        event = st.session_state[key]["locked"]
        layer, head = (event.get("layer"), event.get("head")) if isinstance(event, dict) else (None, None)
        if isinstance(layer, int) and isinstance(head, int) and (layer, head) in known:
            on_lock(layer, head)

    pixels = b"".join(pictures.pixels[tile.layer, tile.head].tobytes() for tile in tiles)
    layers, heads = pictures.pixels.shape[:2]
    data: dict[str, Any] = {
        "label": words.label,
        "metrics": words.metrics,
        "metric": words.metric,
        "n_layers": layers,
        "n_heads": heads,
        "full": in_rows,
        "size": pictures.pixels.shape[-1],
        "pixels": base64.b64encode(pixels).decode("ascii"),
        "colours": colour_bytes(signed=pictures.signed),
        "shades": colour_bytes(signed=signed_shade),
        "grey": _GREY[theme_name()],
        "heads": [
            {
                "layer": tile.layer,
                "head": tile.head,
                "shade": tile.shade,
                "value": tile.value,
                "numbers": tile.numbers,
                "scale": tile.scale,
            }
            for tile in tiles
        ],
        "locked": None if locked is None else {"layer": locked[0], "head": locked[1]},
        "pinned": [{"layer": layer, "head": head} for layer, head in pinned],
    }
    _GRID(key=key, data=data, on_locked_change=clicked)


def colour_bytes(*, signed: bool) -> list[int]:
    """Red, green and blue of 255 steps along the figures' own scales, one after the other."""
    from mi_core.charts.colours import ColourScale
    from mi_core.charts.ink import fill_of

    scale = ColourScale("", "", (-1.0, 1.0) if signed else (0.0, 1.0), diverging=signed)
    low, high = scale.domain
    return [
        round(channel) for step in range(255) for channel in fill_of(scale, low + (high - low) * step / 254)
    ]
