"""Attention as it is looked at: one head's square, its sums and strongest pairs, small pictures of all heads.

A square is [query, key] of the window. NaN stands where there is nothing to show: the key lies after the
query, or it is position 0 and the first token is masked. Nothing is renormalised after masking.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from mi_core.analyses.attention_inputs import SHOW_INFO
from mi_core.analyses.attention_result import AttentionResult, Side

if TYPE_CHECKING:
    import pandas as pd

Square = Float[np.ndarray, "query key"]
Direction = Literal["from", "to"]

THUMBNAIL = 40
"""Pixels along a side of a small picture, at most."""

NOTHING = 255
"""Byte of a pixel that shows nothing; 0 to 254 are colours."""


def is_signed(result: AttentionResult, side: Side) -> bool:
    """Whether numbers can be negative, so that colours must have a white zero."""
    return side == "difference" or SHOW_INFO[result.inputs.show].signed


def square(
    result: AttentionResult, layer: int, head: int, side: Side = "a", *, mask_first: bool = False
) -> Square:
    """One head's pattern, float64.

    Args:
        result: what was looked at.
        layer: layer index.
        head: head index.
        side: A, B or A minus B.
        mask_first: leave key 0 out.

    Raises:
        InputError: there is no B.
    """
    values = result.patterns(side)[layer, head].astype(float)
    return np.where(_shown(result, mask_first), values, np.nan)


def _shown(result: AttentionResult, mask_first: bool) -> Bool[np.ndarray, "query key"]:
    size = result.values.shape[-1]
    shown = np.tri(size, dtype=bool)
    if mask_first and result.window[0] == 0:
        shown[:, 0] = False
    return shown


def key_sums(pattern: Square) -> Float[np.ndarray, " key"]:
    """What every key gives to all queries of the square together; NaN for a key that is not shown."""
    nothing = np.isnan(pattern).all(0)
    return np.where(nothing, np.nan, np.nansum(pattern, axis=0))


def along(pattern: Square, place: int, direction: Direction) -> Float[np.ndarray, " token"]:
    """What one token reads ("from" it, its row) or where it is read ("to" it, its column).

    Args:
        pattern: the square.
        place: index of the token in the window.
        direction: which of the two.
    """
    return pattern[place].copy() if direction == "from" else pattern[:, place].copy()


def ranks(pattern: Square) -> Int[np.ndarray, "query key"]:
    """Rank of every cell among the keys of its query, 1 = the strongest; 0 where nothing is shown.

    Strength is size, so of signed numbers a large negative one ranks before a small positive one.
    """
    strength = np.where(np.isnan(pattern), -1.0, np.abs(pattern))
    order = np.argsort(-strength, axis=1, kind="stable")
    found = np.empty(pattern.shape, np.int64)
    np.put_along_axis(found, order, np.arange(1, pattern.shape[1] + 1)[None, :], axis=1)
    return np.where(np.isnan(pattern), 0, found)


@dataclass(frozen=True, slots=True)
class Pair:
    """One cell of a square.

    Attributes:
        query: position in the prompt.
        key: position in the prompt.
        value: in the result's unit.
        rank: among the keys of that query, 1 = the strongest.
    """

    query: int
    key: int
    value: float
    rank: int


def top_pairs(pattern: Square, start: int = 0, count: int = 12) -> list[Pair]:
    """The strongest cells, strongest first.

    Args:
        pattern: the square.
        start: position of its first token.
        count: how many at most.
    """
    strength = np.where(np.isnan(pattern), -1.0, np.abs(pattern)).ravel()
    order = np.argsort(-strength, kind="stable")[:count]
    of_row, size = ranks(pattern), pattern.shape[1]
    places = [(int(index) // size, int(index) % size) for index in order if strength[index] >= 0]
    return [
        Pair(start + query, start + key, float(pattern[query, key]), int(of_row[query, key]))
        for query, key in places
    ]


def cells_frame(
    result: AttentionResult,
    heads: Sequence[tuple[int, int]],
    sides: Sequence[Side] = ("a",),
    *,
    mask_first: bool = False,
) -> "pd.DataFrame":
    """Tidy table of whole heads: prompt, layer, head, query, query_token, key, key_token, value, unit.

    Cells with a later key are left out. Every row of a windowed square ends with `key` empty: what the query
    gives to keys before the window.
    """
    import pandas as pd

    parts = []
    for side in sides:
        for layer, head in heads:
            parts += _cells(result, layer, head, side, mask_first)
    frame = pd.concat([pd.DataFrame(part) for part in parts], ignore_index=True)
    return frame.astype({"key": "Int64"})


_SIDE_NAMES = {"a": "A", "b": "B", "difference": "A - B"}


def _cells(
    result: AttentionResult, layer: int, head: int, side: Side, mask_first: bool
) -> list[dict[str, object]]:
    pattern, start = square(result, layer, head, side, mask_first=mask_first), result.window[0]
    queries, keys = np.nonzero(~np.isnan(pattern))
    tokens = result.tokens_of(side)
    names = np.array([token.visible for token in tokens], dtype=object)
    shared = {"prompt": _SIDE_NAMES[side], "layer": layer, "head": head, "unit": result.unit}
    parts: list[dict[str, object]] = [
        {
            **shared,
            "query": start + queries,
            "query_token": names[start + queries],
            "key": start + keys,
            "key_token": names[start + keys],
            "value": pattern[queries, keys],
        }
    ]
    if start > 0:
        rows = np.arange(start, result.window[1])
        rest = {"key": None, "key_token": "(before the window)", "value": result.outsides(side)[layer, head]}
        parts.append({**shared, "query": rows, "query_token": names[rows], **rest})
    return parts


@dataclass(frozen=True, slots=True, eq=False)
class Thumbnails:
    """Small pictures of all heads.

    Attributes:
        pixels: 0 to 254 along the scale, `NOTHING` where nothing is shown. Signed: 127 is zero.
        limits: largest size of a number in each head's picture; with a common scale all are equal.
        signed: whether colours have a white zero.
        pooled: tokens along a side of one pixel, 1 = every cell is a pixel.
    """

    pixels: UInt8[np.ndarray, "layer head row column"]
    limits: Float[np.ndarray, "layer head"]
    signed: bool
    pooled: int


def thumbnails(
    result: AttentionResult, side: Side = "a", *, mask_first: bool = False, common: bool = False
) -> Thumbnails:
    """Pictures of at most `THUMBNAIL` pixels; a pixel of several cells shows the strongest of them.

    Args:
        result: what was looked at.
        side: A, B or A minus B. A and B have one scale.
        mask_first: leave key 0 out, of the scale too.
        common: one scale for all heads instead of one per head.
    """
    signed, shown = is_signed(result, side), _shown(result, mask_first)
    size = result.values.shape[-1]
    pooled = -(-size // THUMBNAIL)
    starts = np.arange(0, size, pooled)
    nothing = ~_pool(shown[None].astype(np.float32), starts, np.maximum)[0].astype(bool)
    limits = _limits(result, side, shown)
    if common:
        limits = np.full_like(limits, limits.max(initial=0.0))
    pixels = np.empty((result.n_layers, result.n_heads, len(starts), len(starts)), np.uint8)
    patterns = result.patterns(side)
    for layer in range(result.n_layers):  # one layer at a time: the whole may be a quarter of a gigabyte
        strongest = _strongest(np.where(shown, patterns[layer], 0.0), starts, signed)
        scale = np.where(limits[layer] > 0, limits[layer], 1.0)[:, None, None]
        share = np.clip(np.nan_to_num(strongest / scale), -1.0, 1.0)
        levels = 127 + 127 * share if signed else 254 * share
        pixels[layer] = np.where(nothing, NOTHING, np.round(levels)).astype(np.uint8)
    return Thumbnails(pixels, limits, signed, pooled)


def _limits(
    result: AttentionResult, side: Side, shown: Bool[np.ndarray, "query key"]
) -> Float[np.ndarray, "layer head"]:
    """Largest size of a shown number per head; over A and B together, so that they can be compared."""
    sides: tuple[Side, ...] = ("a", "b") if side != "difference" and result.compared else (side,)
    largest = np.zeros((result.n_layers, result.n_heads))
    for each in sides:
        patterns = result.patterns(each)
        for layer in range(result.n_layers):
            sizes = np.abs(patterns[layer][:, shown])
            found = sizes.max(-1, initial=0.0)
            largest[layer] = np.maximum(largest[layer], np.nan_to_num(found))
    return largest


def _strongest(
    values: Float[np.ndarray, "head query key"], starts: Int[np.ndarray, " block"], signed: bool
) -> Float[np.ndarray, "head row column"]:
    """The number of largest size in every block."""
    high = _pool(values, starts, np.maximum)
    if not signed:
        return high
    low = _pool(values, starts, np.minimum)
    return np.where(-low > high, low, high)


def _pool(
    values: Float[np.ndarray, "head query key"], starts: Int[np.ndarray, " block"], ufunc: np.ufunc
) -> Float[np.ndarray, "head row column"]:
    return ufunc.reduceat(ufunc.reduceat(values, starts, axis=1), starts, axis=2)


def ordered_heads(
    numbers: Float[np.ndarray, "layer head"], *, by_number: bool = False, top: int = 0
) -> list[tuple[int, int]]:
    """Heads in the order in which they are shown.

    Args:
        numbers: what heads are shaded by.
        by_number: strongest first (by size; NaN last), instead of layer by layer.
        top: only this many of the strongest; 0 = all.

    Returns:
        (layer, head) pairs.
    """
    strength = np.where(np.isnan(numbers), -1.0, np.abs(numbers)).ravel()
    order = np.argsort(-strength, kind="stable")
    kept = order[:top] if top > 0 else order
    if not by_number:
        kept = np.sort(kept)
    return [(int(index) // numbers.shape[1], int(index) % numbers.shape[1]) for index in kept]
