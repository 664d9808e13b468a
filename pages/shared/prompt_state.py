"""The prompt that all pages share, as fields of the link and as tokens of the chosen model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from mi_core.errors import LanternError
from pages.shared import link
from pages.shared.link import BadValue, parse_span, show_span

if TYPE_CHECKING:
    from mi_core.tokens import TokenizedPrompt
    from pages.shared.hub import About

DEFAULT_PROMPT = "The Eiffel Tower is located in the city of"
BOS = ("auto", "always", "never")

FIELDS = [
    link.text("model", "model", "atlas", limit=500),
    link.text("revision", "rev", "", limit=100),
    link.choice("dtype", "dtype", "float32", ("float32", "bfloat16", "float16", "float64")),
    link.text("device", "device", "auto", limit=20),
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
        return tokenize(about.tokenizer, text, bos=st.session_state["bos"]), ""
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
