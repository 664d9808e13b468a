"""The prompt above every page: text, live tokens, subject, target and distractor."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from mi_core.errors import LanternError
from pages.shared.catalogue import PageCard
from pages.shared.hub import About
from pages.shared.link import MAX_TEXT
from pages.shared.prompt_state import set_subject, subject_span, tokens_of
from pages.shared.selection import selection
from pages.shared.session import chosen_about
from pages.shared.text import code, plain
from pages.shared.token_strip import Chip, next_span, token_strip

if TYPE_CHECKING:
    from mi_core.tokens import TokenizedPrompt

_PENDING = "_pending_click"


def draw_header(card: PageCard) -> None:
    """Draw the prompt, its tokens and what is asked about them."""
    about = chosen_about()
    with st.container(key="header"):
        _prompt_row(card)
        tokens = _tokens_row("prompt", about, clickable=True)
        if _second_shown():
            other = _second_row(card, about, tokens)
            _length_hint(tokens, other)
        _hint(about, tokens)


def _prompt_row(card: PageCard) -> None:
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        with st.container(width="stretch"):
            _prompt_input("Prompt", "prompt", "A sentence that ends just before its answer")
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


def _prompt_input(label: str, key: str, placeholder: str) -> None:
    """One line that commits while typing; several lines once the prompt has them."""
    if "\n" in st.session_state[key] or st.session_state.get("_several_lines"):
        st.text_area(label, key=key, height=100, max_chars=MAX_TEXT, placeholder=placeholder)
    else:
        st.text_input(label, key=key, live="400ms", max_chars=MAX_TEXT, placeholder=placeholder)


def _second_shown() -> bool:
    return bool(st.session_state["second_prompt"]) or st.session_state["corruption"] == "prompt"


def _second_row(card: PageCard, about: About | None, first: TokenizedPrompt | None) -> TokenizedPrompt | None:
    _prompt_input(
        "Second prompt", "second_prompt", "The same sentence with another subject, as many tokens long"
    )
    return _tokens_row("second_prompt", about, clickable=False, first=first)


def _tokens_row(
    key: str, about: About | None, *, clickable: bool, first: TokenizedPrompt | None = None
) -> TokenizedPrompt | None:
    text = st.session_state[key]
    if not text:
        if clickable:
            st.caption("Type a prompt, or pick an example in the sidebar.")
        return None
    tokens, problem = tokens_of(text, about)
    if tokens is None:
        st.caption(plain(problem))
        return None
    span, _ = subject_span()
    chips = [_chip(tokens, position, span if clickable else None, first) for position in range(len(tokens))]
    label = "Tokens of the prompt" if clickable else "Tokens of the second prompt"
    token_strip(chips, key=f"strip_{key}", label=label, on_click=_clicked if clickable else None)
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


def _clicked(position: int, extend: bool) -> None:
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


def _hint(about: About | None, tokens: TokenizedPrompt | None) -> None:
    """One quiet line: number of tokens, the subject, and what often spoils an experiment."""
    if about is None or tokens is None:
        return
    from mi_core.tokens import prompt_warnings

    span, problem = subject_span()
    parts = [f"{len(tokens)} tokens"]
    if problem:
        parts.append(f":orange[{plain(problem)}]")
    elif span is None and _second_shown():
        parts.append("subject: the tokens in which the prompts differ")
    elif span is None:
        parts.append("no subject chosen: click its first and its last token")
    elif span[1] > len(tokens):
        parts.append(
            f":orange[the subject ends at token {span[1] - 1}, the prompt at token {len(tokens) - 1}]"
        )
    else:
        parts.append(f"subject {code(tokens.text_of(*span).strip())}")
    parts += _answers(about, tokens)
    parts += [f":orange[{plain(warning)}]" for warning in prompt_warnings(tokens, about.tokenizer)]
    with st.container(horizontal=True, gap="small", key="header_hint"):
        st.caption(" · ".join(parts))


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
