"""The prompt as the model sees it: one chip per token with its position, clickable and reachable by keyboard.

The chips are made in the browser with `textContent`, so a token such as `<script>` is shown and never run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import streamlit as st
from streamlit.components.v2 import component

from pages.shared.theme import ASSETS

MAX_CHIPS = 600
"""Chips drawn at most; longer prompts show their two ends."""

_HTML = """
<div id="strip" role="group"></div>
"""

_STRIP = component(
    "lantern_token_strip",
    html=_HTML,
    css=(ASSETS / "css" / "token_strip.css").read_text(encoding="utf-8"),
    js=(ASSETS / "js" / "token_strip.js").read_text(encoding="utf-8"),
)


@dataclass(frozen=True)
class Chip:
    """One token of the strip.

    Attributes:
        position: token position from 0.
        text: visible text.
        title: what a hover says.
        special: whether it is a token such as beginning-of-sequence.
        subject: whether it belongs to the subject.
        differs: whether it differs from the other prompt's token.
        chosen: whether it is the selected position.
    """

    position: int
    text: str
    title: str = ""
    special: bool = False
    subject: bool = False
    differs: bool = False
    chosen: bool = False

    def data(self) -> dict[str, object]:
        """Plain values for the browser."""
        marks = [name for name in ("subject", "differs", "chosen") if getattr(self, name)]
        title = self.title or f"token {self.position}: {self.text}"
        return {
            "position": self.position,
            "text": self.text,
            "title": title,
            "special": self.special,
            "marks": marks,
        }


def token_strip(
    chips: Sequence[Chip], *, key: str, label: str, on_click: Callable[[int, bool], None] | None = None
) -> None:
    """Draw a strip of tokens.

    Args:
        chips: the tokens in order.
        key: unique key.
        label: what a screen reader calls the strip.
        on_click: called with the position and whether Shift was held; None makes the strip read-only.
    """

    def clicked() -> None:
        event = st.session_state[key]["clicked"]
        position = event.get("position") if isinstance(event, dict) else None
        if on_click is not None and isinstance(position, int) and any(c.position == position for c in chips):
            on_click(position, bool(event.get("extend")))

    _STRIP(
        key=key,
        data={"chips": _shortened(chips), "clickable": on_click is not None, "label": label},
        on_clicked_change=clicked,
    )


def _shortened(chips: Sequence[Chip]) -> list[dict[str, object]]:
    if len(chips) <= MAX_CHIPS:
        return [chip.data() for chip in chips]
    half = MAX_CHIPS // 2
    gap: dict[str, object] = {"gap": f"… {len(chips) - 2 * half} more …"}
    return [*(c.data() for c in chips[:half]), gap, *(c.data() for c in chips[-half:])]


def next_span(current: tuple[int, int] | None, pending: int | None, position: int, extend: bool) -> tuple:
    """What a click makes of a span.

    The first click starts a span, the second one ends it; Shift extends the span that is there.

    Args:
        current: half-open span before the click.
        pending: position of the first click of a pair, if there was one.
        position: where the click was.
        extend: whether Shift was held.

    Returns:
        The half-open span after the click, and the pending first click (None when the pair is complete).
    """
    if extend and current is not None:
        return (min(current[0], position), max(current[1], position + 1)), None
    if pending is not None and pending != position:
        return (min(pending, position), max(pending, position) + 1), None
    return (position, position + 1), position if pending is None else None
