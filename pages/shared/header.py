"""The prompt above every page: text, live tokens, subject, target and distractor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import streamlit as st

from mi_core.errors import LanternError
from pages.shared.catalogue import PageCard
from pages.shared.hub import About
from pages.shared.link import MAX_TEXT
from pages.shared.prompt_state import set_subject, subject_span, tokens_of
from pages.shared.selection import select, selection
from pages.shared.session import chosen_about
from pages.shared.text import code, plain
from pages.shared.token_strip import Chip, next_span, token_strip

if TYPE_CHECKING:
    from mi_core.tokens import TokenizedPrompt

_PENDING = "_pending_click"
_COMPARING = "_comparing"


def draw_header(card: PageCard) -> None:
    """Draw the prompt, its tokens and what is asked about them."""
    about = chosen_about()
    with st.container(key="header"):
        _prompt_row(card)
        tokens = _tokens_row("prompt", about, on_click=_subject_clicked if card.subject else _token_clicked)
        if _second_shown(card):
            other = _second_row(card, about, tokens)
            if card.second != "any":
                _length_hint(tokens, other)
        _hint(card, about, tokens)


def _prompt_row(card: PageCard) -> None:
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        with st.container(width="stretch"):
            _prompt_input("Prompt", "prompt", "A sentence that ends just before its answer")
        if card.subject:
            st.text_input(
                "Subject tokens",
                key="subject",
                width=120,
                placeholder="e.g. 1-4",
                help="Positions of the tokens that name the subject, such as 1-4. Or click the first and the "
                "last one below.",
            )
        st.text_input(
            "Target",
            key="answer",
            width=140,
            placeholder="top token",
            help="The answer whose probability is followed. Empty: the token that the model itself finds "
            "most probable.",
        )
        st.text_input(
            "Compare with",
            key="distractor",
            width=140,
            placeholder="none",
            help="A wrong answer to compare with; it adds the logit difference to the metrics.",
        )
        _compare_switch(card)


def _prompt_input(label: str, key: str, placeholder: str) -> None:
    """One line that commits while typing; several lines once the prompt has them."""
    if "\n" in st.session_state[key] or st.session_state.get("_several_lines"):
        st.text_area(label, key=key, height=100, max_chars=MAX_TEXT, placeholder=placeholder)
    else:
        st.text_input(label, key=key, live="400ms", max_chars=MAX_TEXT, placeholder=placeholder)


def _second_shown(card: PageCard) -> bool:
    """The causal trace says in its settings whether it needs one; other pages have a switch."""
    if card.subject:
        return bool(st.session_state["second_prompt"]) or st.session_state["corruption"] == "prompt"
    return card.second != "no" and bool(st.session_state["second_prompt"] or st.session_state.get(_COMPARING))


def _compare_switch(card: PageCard) -> None:
    """Opens the second prompt on pages that can compare; it closes with its text."""
    if card.second == "no" or card.subject:
        return
    if _second_shown(card):
        st.button("One prompt", icon=":material/close:", key="compare_off", on_click=_stop_comparing)
    else:
        st.button(
            "Compare",
            icon=":material/compare_arrows:",
            key="compare_on",
            on_click=st.session_state.__setitem__,
            args=(_COMPARING, True),
            help="Put a second prompt beside this one.",
        )


def _stop_comparing() -> None:
    st.session_state.update({"second_prompt": "", _COMPARING: False})


def _second_row(card: PageCard, about: About | None, first: TokenizedPrompt | None) -> TokenizedPrompt | None:
    hint = "Any other prompt"
    if card.second != "any":
        hint = "The same sentence with another subject, as many tokens long"
    _prompt_input("Second prompt", "second_prompt", hint)
    return _tokens_row("second_prompt", about, first=first)


def _tokens_row(
    key: str,
    about: About | None,
    *,
    on_click: Callable[[int, bool], None] | None = None,
    first: TokenizedPrompt | None = None,
) -> TokenizedPrompt | None:
    text = st.session_state[key]
    if not text:
        if first is None and key == "prompt":
            st.caption("Type a prompt, or pick an example in the sidebar.")
        return None
    tokens, problem = tokens_of(text, about)
    if tokens is None:
        st.caption(plain(problem))
        return None
    span = subject_span()[0] if on_click is _subject_clicked else None
    chips = [_chip(tokens, position, span, first) for position in range(len(tokens))]
    label = "Tokens of the prompt" if key == "prompt" else "Tokens of the second prompt"
    token_strip(chips, key=f"strip_{key}", label=label, on_click=on_click)
    return tokens


def _chip(
    tokens: TokenizedPrompt, position: int, span: tuple[int, int] | None, first: TokenizedPrompt | None
) -> Chip:
    token = tokens.tokens[position]
    differs = first is not None and (position >= len(first) or first.tokens[position].id != token.id)
    return Chip(
        position,
        token.visible,
        title=f"token {position}: {token.visible} (id {token.id})",
        special=token.special,
        subject=span is not None and span[0] <= position < span[1],
        differs=differs,
        chosen=first is None and selection().position == position,
    )


def _token_clicked(position: int, _extend: bool) -> None:
    """The token that is looked at; a second click lets go of it."""
    chosen = selection()
    select(replace(chosen, position=None if chosen.position == position else position))


def _subject_clicked(position: int, extend: bool) -> None:
    span, _ = subject_span()
    span, st.session_state[_PENDING] = next_span(span, st.session_state.get(_PENDING), position, extend)
    set_subject(span)


def _length_hint(first: TokenizedPrompt | None, second: TokenizedPrompt | None) -> None:
    if first is None or second is None or len(first) == len(second):
        return
    from mi_core.tokens import align

    st.warning(
        f"The two prompts differ in length: {len(first)} and {len(second)} tokens. "
        "Change words until both have as many tokens.",
        icon=":material/straighten:",
    )
    st.code(align(first, second, ("first", "second")).text, language=None)


def _hint(card: PageCard, about: About | None, tokens: TokenizedPrompt | None) -> None:
    """One quiet line: number of tokens, what is chosen among them, and what often spoils an experiment."""
    if about is None or tokens is None:
        return
    from mi_core.tokens import prompt_warnings

    count = len(tokens)
    parts = [f"{count} token{'s' if count != 1 else ''}"]
    parts += [_subject_hint(card, tokens)] if card.subject else _token_hint(tokens)
    parts += _answers(about, tokens)
    parts += [f":orange[{plain(warning)}]" for warning in prompt_warnings(tokens, about.tokenizer)]
    with st.container(horizontal=True, gap="small", key="header_hint"):
        st.caption(" · ".join(parts))


def _token_hint(tokens: TokenizedPrompt) -> list[str]:
    position = selection().position
    if position is None:
        return ["click a token to look at it"]
    if position >= len(tokens):
        return [f":orange[token {position} is chosen, the prompt ends at token {len(tokens) - 1}]"]
    return [f"looking at token {position} {code(tokens.tokens[position].visible)}"]


def _subject_hint(card: PageCard, tokens: TokenizedPrompt) -> str:
    span, problem = subject_span()
    if problem:
        return f":orange[{plain(problem)}]"
    if span is None and _second_shown(card):
        return "subject: the tokens in which the prompts differ"
    if span is None:
        return "no subject chosen: click its first and its last token"
    if span[1] > len(tokens):
        return f":orange[the subject ends at token {span[1] - 1}, the prompt at token {len(tokens) - 1}]"
    return f"subject {code(tokens.text_of(*span).strip())}"


def _answers(about: About, tokens: TokenizedPrompt) -> list[str]:
    """Target and distractor as the tokens that will be read, and what is doubtful about them."""
    from mi_core.answers import answer_warnings, choose_answer

    typed = {"target": st.session_state["answer"], "compared with": st.session_state["distractor"]}
    try:
        chosen = {
            name: choose_answer(about.tokenizer, tokens, text) for name, text in typed.items() if text.strip()
        }
        target = chosen.get("target")
        warnings = () if target is None else answer_warnings(target, chosen.get("compared with"))
    except LanternError as error:
        return [f":orange[{plain(str(error))}]"]
    shown = [f"{name} {code(''.join(choice.pieces))}" for name, choice in chosen.items()]
    return shown + [f":orange[{plain(warning)}]" for warning in warnings]
