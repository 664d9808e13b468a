"""Untrusted text in figures: tokens and names made visible and harmless.

A token can hold anything: quotes, markup, line breaks, characters that turn the writing direction of what
follows. Labels reach Vega as string literals inside an expression, so they are written as JSON with nothing
but ASCII; and nothing invisible is left in them, because a reader could not tell two such tokens apart.
"""

import json
import math
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

from mi_core.visible import visible

MINUS = "\u2212"
_ISOLATE, _END_ISOLATE = "\u2068", "\u2069"
_RIGHT_TO_LEFT = {"R", "AL", "AN"}


@lru_cache(maxsize=4096)  # the cells of a grid repeat their texts
def legible(text: str) -> str:
    """A text in which nothing is invisible or acts on its neighbours, but with plain spaces.

    For titles and names; tokens arrive visible already, and going through this twice does no harm.
    """
    return " ".join(visible(word) if word else "" for word in text.split(" "))


def isolated(text: str) -> str:
    """The text, kept from reordering what stands beside it if it is written from right to left."""
    if any(unicodedata.bidirectional(character) in _RIGHT_TO_LEFT for character in text):
        return f"{_ISOLATE}{text}{_END_ISOLATE}"
    return text


def token_label(position: int, text: str, *, marked: bool = False) -> str:
    """A token as every figure shows it: position, visible text, and `*` on the subject."""
    return f"{position} {isolated(legible(text))}{'*' if marked else ''}"


def literal(value: object) -> str:
    """A value as a literal inside a Vega expression, in ASCII, safe inside a script element too."""
    return json.dumps(value, ensure_ascii=True, allow_nan=False).replace("<", "\\u003c")


def pick_expression(labels: Sequence[str], index: str = "datum.value") -> str:
    """A Vega expression that gives the label of a position; nothing where there is none."""
    return f"{literal(list(labels))}[{index}] || ''"


def number(value: float) -> str:
    """Three significant digits, as in every figure and caption; a true minus sign; "none" for NaN."""
    if math.isnan(value):
        return "none"
    if value == 0:
        return "0"
    shown = f"{value:.3g}" if 1e-4 <= abs(value) < 1e5 else f"{value:.2e}"
    return shown.replace("-", MINUS, 1) if shown.startswith("-") else shown


def exact(value: float) -> str:
    """Six significant digits, as tooltips show a number; a true minus sign."""
    return f"{value:.6g}".replace("-", MINUS, 1) if value < 0 else f"{value:.6g}"
