"""The prompt that all pages share, as fields of the link and as tokens of the chosen model."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import streamlit as st

from mi_core.errors import InputError, LanternError
from mi_core.model.spec import DTYPES, ModelSpec
from pages.shared import link
from pages.shared.link import BadValue, parse_span, show_span
from pages.shared.text import plain

if TYPE_CHECKING:
    from mi_core.tokens import TokenizedPrompt
    from pages.shared.hub import About

DEFAULT_PROMPT = "The Eiffel Tower is located in the city of"
BOS = ("auto", "always", "never")
SPREAD = "spread"
"""Word for "over all devices" in the device field."""


def _checked(make: Callable[[str], ModelSpec], raw: str) -> ModelSpec:
    """A specification made from a link's text; what it refuses is said in its words."""
    try:
        return make(raw)
    except InputError as error:
        raise BadValue(f"but: {plain(str(error).rstrip('.'))}") from None


def _parse_device(raw: str) -> str:
    return raw if raw == SPREAD else _checked(lambda text: ModelSpec("any", device=text), raw).device


FIELDS = [
    link.LinkField("model", "model", "atlas", lambda raw: _checked(ModelSpec.from_text, raw).text),
    link.choice("dtype", "dtype", "float32", DTYPES),
    link.LinkField("device", "device", "auto", _parse_device),
    link.choice("attention", "attention", "fast", ("fast", "eager")),
    link.text("prompt", "prompt", DEFAULT_PROMPT),
    link.text("second_prompt", "b", ""),
    link.span("subject", "subject"),
    link.text("answer", "target", "", limit=500),
    link.text("distractor", "vs", "", limit=500),
    link.choice("bos", "bos", "auto", BOS),
]


def tokens_of(text: str, about: About | None) -> tuple[TokenizedPrompt | None, str]:
    """The prompt's tokens, or why there are none.

    Args:
        text: the prompt.
        about: what is known about the model; None while nothing is.

    Returns:
        Tokens and an empty text, or None and one plain sentence.
    """
    if about is None:
        return None, "The tokens are shown as soon as the model is loaded."
    from mi_core.tokens import tokenize

    try:
        return tokenize(about.tokenizer, text, bos=st.session_state["bos"], limit=about.context), ""
    except LanternError as error:
        return None, str(error)


def subject_span() -> tuple[tuple[int, int] | None, str]:
    """The subject's half-open token span as typed, clicked or linked, or what is wrong with it."""
    try:
        return parse_span(st.session_state["subject"]), ""
    except BadValue as problem:
        return None, f"The subject is “{st.session_state['subject']}”, {problem}."


def set_subject(span: tuple[int, int] | None) -> None:
    """Write the subject as the header shows it."""
    st.session_state["subject"] = show_span(span)
