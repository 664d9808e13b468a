"""The state that a link carries: a table of fields, read from the URL and written back after every run.

Streamlit can bind a widget to the URL itself, but it drops bad values without a word and can only judge a
layer or a token position once the model is there. So the fields live in the session under their own names
(which are also the widgets' keys), and this file moves them between session and URL: everything that comes in
is checked, and what cannot be used is said.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx
from streamlit.runtime.state import SessionStateProxy

from pages.shared.text import code

MAX_TEXT = 20_000
"""Characters of a prompt that a link may carry; browsers and proxies cut longer addresses."""

_WRITTEN = "_link_written"
_PROBLEMS = "_link_problems"
_PAGE = "_link_page"
_VISIT = "_link_visit"
_REMEMBERED = 20
_IGNORED = {"v", "token"}


class BadValue(ValueError):
    """A value in a link that cannot be used; the message completes "asks for x, ..."."""


@dataclass(frozen=True)
class LinkField:
    """One value that pages share and links carry.

    Attributes:
        name: key in the session, and of the widget that edits it.
        key: name in the URL.
        default: value when nothing is said; not written to the URL.
        parse: text from the URL -> value; raises `BadValue`.
        show: value -> text for the URL.
    """

    name: str
    key: str
    default: Any
    parse: Callable[[str], Any]
    show: Callable[[Any], str] = str


def text(name: str, key: str, default: str = "", limit: int = MAX_TEXT) -> LinkField:
    """A field of free text."""

    def parse(raw: str) -> str:
        if len(raw) > limit:
            raise BadValue(f"which is longer than {limit:,} characters")
        return raw.replace("\r\n", "\n").replace("\x00", "")

    return LinkField(name, key, default, parse)


def choice(name: str, key: str, default: str | None, options: Iterable[str]) -> LinkField:
    """A field with one of a few values."""
    allowed = tuple(options)

    def parse(raw: str) -> str:
        if raw not in allowed:
            raise BadValue(f"which is none of {', '.join(allowed)}")
        return raw

    return LinkField(name, key, default, parse)


def choices(name: str, key: str, default: tuple[str, ...], options: Iterable[str]) -> LinkField:
    """A field with several of a few values, separated by commas; the order is that of the options."""
    allowed = tuple(options)

    def parse(raw: str) -> list[str]:
        wanted = [part for part in raw.split(",") if part]
        unknown = [part for part in wanted if part not in allowed]
        if unknown or not wanted:
            raise BadValue(f"but there is only {', '.join(allowed)}")
        return [option for option in allowed if option in wanted]

    return LinkField(name, key, list(default), parse, ",".join)


def number(
    name: str, key: str, default: float | None, low: float, high: float, *, whole: bool = False
) -> LinkField:
    """A field with a number between two bounds (inclusive); `default` None means "not chosen"."""

    def parse(raw: str) -> float:
        try:
            value = int(raw) if whole else float(raw)
        except ValueError:
            raise BadValue("which is not a whole number" if whole else "which is not a number") from None
        if not (math.isfinite(value) and low <= value <= high):
            raise BadValue(f"which is not between {_bound(low)} and {_bound(high)}")
        return value

    return LinkField(name, key, default, parse, lambda value: str(value) if whole else f"{value:g}")


def _bound(value: float) -> str:
    """A bound as people write it: 1,000,000 and not 1e+06."""
    return f"{value:,.0f}" if abs(value) >= 1e6 else f"{value:g}"


def flag(name: str, key: str, default: bool = False) -> LinkField:
    """A field that is on or off."""

    def parse(raw: str) -> bool:
        if raw not in ("0", "1"):
            raise BadValue("which is neither 0 nor 1")
        return raw == "1"

    return LinkField(name, key, default, parse, lambda value: "1" if value else "0")


def span(name: str, key: str) -> LinkField:
    """A field with a range of token positions as people write it: `3` or `3-5`, both ends included."""
    return LinkField(name, key, "", lambda raw: show_span(parse_span(raw)))


def parse_span(raw: str) -> tuple[int, int] | None:
    """Read `3-5` as the half-open span (3, 6); empty text is None.

    Raises:
        BadValue: anything else.
    """
    cleaned = raw.replace(" ", "").replace("\N{EN DASH}", "-")
    if not cleaned:
        return None
    match = re.fullmatch(r"(\d{1,6})(?:-(\d{1,6}))?", cleaned)
    if not match:
        raise BadValue("which is not a range of token positions such as 2-4")
    first = int(match[1])
    last = int(match[2] or match[1])
    if last < first:
        raise BadValue("which ends before it begins")
    return first, last + 1


def show_span(value: tuple[int, int] | None) -> str:
    """Write a half-open span with both ends included; None is the empty text."""
    if value is None:
        return ""
    first, last = value[0], value[1] - 1
    return str(first) if first == last else f"{first}-{last}"


def read_link(values: Mapping[str, str], fields: Iterable[LinkField]) -> tuple[dict[str, Any], list[str]]:
    """Check the values of a link.

    Args:
        values: URL key -> text.
        fields: the fields that this page and the frame know.

    Returns:
        Field name -> value for what is good, and one Markdown sentence for every value that is not.
    """
    known = {field.key: field for field in fields}
    good: dict[str, Any] = {}
    problems = []
    for key, raw in values.items():
        field = known.get(key)
        if field is None:
            if key not in _IGNORED:
                problems.append(f"This link sets {code(key, 30)}, which means nothing here; it was left out.")
            continue
        try:
            good[field.name] = field.parse(raw)
        except BadValue as problem:
            shown = "" if field.default is None else field.show(field.default)
            kept = code(shown) if shown else "no value"
            problems.append(
                f"This link asks for {code(key, 30)} = {code(raw)}, {problem}. Using {kept} instead."
            )
    return good, problems


def write_link(state: Mapping[str, Any] | SessionStateProxy, fields: Iterable[LinkField]) -> dict[str, str]:
    """URL keys and texts of every field that differs from its default."""
    link = {}
    for field in fields:
        value = state.get(field.name, field.default)
        if value is not None and value != field.default:
            link[field.key] = field.show(value)
    return link


# --- the session and the address bar ---


def take_link(fields: list[LinkField], page: str) -> bool:
    """Start of a run: give every field a value, and follow the URL after a link or the Back button.

    Widget values of pages that are not on screen would be dropped by Streamlit; writing every field to itself
    keeps them.

    Args:
        fields: all fields of the frame and of every page.
        page: the page that is about to run.

    Returns:
        Whether this is a session's first run and nothing was asked for.
    """
    state = st.session_state
    first = _WRITTEN not in state
    arrived = {key: st.query_params[key] for key in st.query_params}
    if _is_new_link(arrived, page):
        good, problems = read_link(arrived, fields)
        state[_PROBLEMS] = problems
        new_visit()
        if not first:  # another link inside the same session: what it does not say is default
            state.update({field.name: field.default for field in fields})
        state.update(good)
        _remember(arrived)
    for field in fields:
        state[field.name] = state.get(field.name, field.default)
    state[_PAGE] = page
    return first and not set(arrived) - _IGNORED


def _is_new_link(arrived: dict[str, str], page: str) -> bool:
    """Whether the address bar says something that this session did not write itself.

    A run may still carry an address from a moment ago, so the last few written ones do not count, unless the
    user pressed Back or followed a link to another page.
    """
    state, context = st.session_state, get_script_run_ctx()
    if _WRITTEN not in state:
        return True
    if not arrived:
        return False
    moved = page != state.get(_PAGE) or getattr(context, "is_history_navigation", False)
    return arrived != state[_WRITTEN][-1] if moved else arrived not in state[_WRITTEN]


def put_link(fields: list[LinkField]) -> None:
    """End of a run: make the address bar say what the session holds."""
    link = write_link(st.session_state, fields)
    if {key: st.query_params[key] for key in st.query_params} != link:
        st.query_params.from_dict(link)
    _remember(link)


def _remember(link: dict[str, str]) -> None:
    history = [known for known in st.session_state.get(_WRITTEN, []) if known != link]
    st.session_state[_WRITTEN] = [*history[-_REMEMBERED:], link]


def new_visit() -> None:
    """Note that settings were replaced as a whole: pages let go of results that do not belong to them."""
    st.session_state[_VISIT] = visit() + 1


def visit() -> int:
    """How often settings were replaced as a whole, by a link, by Back or by an example."""
    return st.session_state.get(_VISIT, 0)


def link_problems() -> list[str]:
    """Sentences about what the last opened link got wrong."""
    return st.session_state.get(_PROBLEMS, [])


def dismiss_problems() -> None:
    """The user has read them."""
    st.session_state[_PROBLEMS] = []
