"""What can be chosen on the logit-lens page: site, colour, target, followed words, lens, window."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import streamlit as st

from mi_core.analyses.logit_lens_inputs import MAX_TRACKED, SITE_LABELS, STATISTIC_INFO, window
from mi_core.errors import LanternError
from pages.shared.lens_fields import SITES, STATISTICS, TARGETS
from pages.shared.selection import selection
from pages.shared.session import hub
from pages.shared.text import plain

if TYPE_CHECKING:
    from mi_core.analyses.logit_lens_inputs import LensTarget
    from pages.shared.hub import About

PLAIN = "plain"


def draw_controls(about: About | None) -> None:
    """One row of choices, and why some are not there."""
    missing = missing_sites(about)
    with st.container(horizontal=True, gap="small", vertical_alignment="bottom", key="lens_controls"):
        _site_widget("lens_site", SITES, missing)
        st.selectbox(
            "Colour",
            STATISTICS,
            format_func=lambda name: STATISTIC_INFO[name].label,
            key="lens_statistic",
            width=200,
            help=STATISTIC_INFO[st.session_state["lens_statistic"]].meaning,
        )
        st.selectbox(
            "Target of a column",
            list(TARGETS),
            format_func=TARGETS.__getitem__,
            key="lens_target",
            width=220,
            help="Whose probability and rank is read: that of the target typed above (or the model's own top "
            "token) at every position, or of the token that the prompt really has next.",
        )
        st.text_input(
            "Follow words",
            key="lens_tracked",
            width=220,
            placeholder="Rome, London",
            help=f"Up to {MAX_TRACKED} words, separated by commas. Their tokens are drawn as lines over the "
            "layers; of a word of several tokens the first one.",
        )
        _lens_widget(about)
        st.number_input(
            "Every n-th layer",
            min_value=1,
            max_value=1000,
            key="lens_stride",
            width=130,
            help="For deep models. The last layer is always read.",
        )
    for site, reason in missing.items():
        st.caption(f":material/block: {site} is not there on this model: {plain(reason)}.")


def _site_widget(key: str, sites: tuple[str, ...], missing: dict[str, str]) -> None:
    offered = [site for site in sites if site not in missing or site == st.session_state[key]]
    st.selectbox("Read", offered, format_func=SITE_LABELS.__getitem__, key=key, width=330)


def missing_sites(about: About | None) -> dict[str, str]:
    """Sites that the model in memory does not have, with the reason."""
    model = None if about is None else hub().resident(about.spec)
    if model is None:
        return {}
    return {site: model.structure.missing[site] for site in SITES if site in model.structure.missing}


def _lens_widget(about: About | None) -> None:
    """The plain lens, or one of the tuned lenses that are found for this model; hidden if there is none."""
    names, problems = _tuned(about)
    wanted = st.session_state["lens_file"]
    if not names and not wanted:
        return
    options = ["", *names] if not wanted or wanted in names else ["", *names, wanted]
    st.selectbox(
        "Lens",
        options,
        format_func=lambda name: name or PLAIN,
        key="lens_file",
        width=180,
        help=" ".join(problems) or "Tuned lenses are trained or loaded in the third tab.",
    )


def _tuned(about: About | None) -> tuple[list[str], list[str]]:
    """Names of usable lenses, and what is wrong with the others."""
    from mi_core.analyses.tuned_lens_store import lenses_of

    if about is None:
        return [], []
    try:
        found = lenses_of(about)
    except LanternError as error:
        return [], [plain(str(error))]
    names = dict.fromkeys(lens.name for lens in found if not lens.problem)
    return list(names), [f"{plain(lens.name)}: {plain(lens.problem)}" for lens in found if lens.problem]


def lens_version(about: About) -> str:
    """Tells two lenses of one name apart: a lens that was trained anew is another one. Empty = plain lens."""
    from mi_core.analyses.tuned_lens_store import lenses_of

    wanted = st.session_state["lens_file"]
    if not wanted:
        return ""
    folder = next((lens.folder for lens in lenses_of(about) if lens.name == wanted), wanted)
    try:
        return str(max(entry.stat().st_mtime_ns for entry in os.scandir(folder)))
    except (OSError, ValueError):
        return "missing"  # the library says what is wrong with it


def target() -> LensTarget:
    """The chosen target in the words of the library."""
    return "next token" if st.session_state["lens_target"] == "next" else "answer"


def tracked_words() -> tuple[str, ...]:
    """The words to follow, as typed."""
    words = (word.strip() for word in st.session_state["lens_tracked"].split(","))
    return tuple(dict.fromkeys(word for word in words if word))


def draw_window(n_tokens: int) -> None:
    """Which part of a long prompt is read; nothing for a short one."""
    columns = st.session_state["lens_columns"]
    if n_tokens <= columns:
        return
    with st.container(horizontal=True, gap="small", vertical_alignment="bottom", key="lens_window"):
        st.number_input(
            "From token",
            min_value=0,
            max_value=n_tokens - 1,
            value=None,
            step=columns,
            key="lens_first",
            width=150,
            placeholder="the end",
            help="First token of the window; empty = the window ends with the prompt.",
        )
        st.number_input("Tokens shown", min_value=4, max_value=64, key="lens_columns", width=150)
        shown = window_positions(n_tokens)
        st.caption(
            f"The prompt has {n_tokens:,} tokens; {shown[0]} to {shown[-1]} are shown. The window follows "
            "the selected token."
        )


def window_positions(n_tokens: int) -> tuple[int, ...]:
    """The positions that are shown: the chosen window, moved to the selected token if that lies outside."""
    state = st.session_state
    return window(n_tokens, state["lens_columns"], state["lens_first"], selection().position)
