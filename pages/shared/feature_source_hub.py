"""A transcoder on the Hugging Face hub: what it holds, and fetching a part of it; only when asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import streamlit as st

from mi_core.errors import InputError, LanternError
from mi_core.model.progress import format_bytes
from mi_core.transcoders.formats_names import USES, Use
from mi_core.transcoders.hub_plan import Plan, allow_rows, ask_plan, fetch_plan, known_plan, parse_layers
from mi_core.transcoders.hub_reference import parse_reference
from pages.shared import running
from pages.shared.boundary import draw_failure, show_error
from pages.shared.session import chosen_spec, downloads, waiter
from pages.shared.text import code, plain

if TYPE_CHECKING:
    from pages.shared.job import Job

SLOT = "feature_fetch"
_SHOWN: tuple[Use, ...] = ("encoder", "decoder", "both", "examples", "settings")
_FETCHED: dict[Use, str] = {
    "encoder": "encoders",
    "both": "layers",
    "decoder": "decoders",
    "examples": "examples",
}
_APART = "encoders alone: all of each layer's file but its decoder"


def draw_hub(name: str) -> None:
    """Sizes, then what to fetch.

    Args:
        name: an address on the hub.
    """
    try:
        reference = parse_reference(name)
        plan = known_plan(reference)
    except LanternError as error:
        show_error(error)
        return
    with st.container(border=True, key="feature_hub"):
        st.markdown(f"**On the hub:** {code(reference.text, 100)}")
        if plan is None:
            _draw_question(name)
            return
        _draw_sizes(plan)
        _draw_entire(plan, name)
        if not _following():
            _draw_fetch(plan)
            _draw_rows(plan)


def _draw_question(name: str) -> None:
    st.caption(
        "This asks huggingface.co for the list of its files and their sizes, and reads the headers of files "
        "that hold whole layers, to know how much the encoders alone are. No weights are downloaded."
    )
    if st.button("Ask for its size", key="feature_hub_ask", icon=":material/travel_explore:"):
        _ask(name)


def _ask(name: str) -> None:
    try:
        with st.spinner("Asking Hugging Face"):
            ask_plan(parse_reference(name))
    except LanternError as error:
        show_error(error)
        return
    running.forget("feature_source")
    st.rerun()


def _draw_sizes(plan: Plan) -> None:
    rows = ["| Files | Size | Here |", "|---|---|---|"]
    for use in _SHOWN:
        files = [one for one in plan.uses if one.use == use]
        if files:
            here = sum(one.bytes for one in files if one.here)
            size = format_bytes(plan.bytes(use))
            label = _APART if all(one.part for one in files) else USES[use]
            rows.append(f"| {label} ({len(files)}) | {size} | {format_bytes(here) if here else 'nothing'} |")
    st.markdown("\n".join(rows))
    gated = " Its owner must grant access first." if plan.listing.gated else ""
    st.caption(f"Commit {code(plan.listing.commit[:12])}.{gated}")


def _draw_entire(plan: Plan, name: str) -> None:
    """Why encoders of some files cannot be fetched alone, one line per reason; it may be different later."""
    reasons = plan.entire
    for why in dict.fromkeys(reasons.values()):
        files = [file for file, reason in reasons.items() if reason == why]
        more = f" and {len(files) - 1} more" if len(files) > 1 else ""
        st.caption(
            f"{code(files[0], 100)}{more} can only be fetched whole, encoder and decoder together: "
            f"{plain(why)}."
        )
    if reasons and st.button("Ask again", key="feature_hub_again", icon=":material/refresh:"):
        _ask(name)


def _draw_fetch(plan: Plan) -> None:
    """Encoders (or whole layers), then decoders, of the layers asked for."""
    text = st.text_input(
        "Layers",
        key="feature_hub_layers",
        placeholder="all",
        width=220,
        help="For example 0-3, 12. Empty = all.",
    )
    try:
        layers = parse_layers(text)
    except InputError as error:
        show_error(error)
        return
    with st.container(horizontal=True, gap="small"):
        for use, label in _FETCHED.items():
            size = plan.bytes(use, layers, missing=True)
            if size:
                st.button(
                    f"Fetch {label}, {format_bytes(size)}",
                    key=f"feature_hub_fetch_{use}",
                    icon=":material/download:",
                    on_click=_fetch,
                    args=(plan, use, layers),
                )


def _draw_rows(plan: Plan) -> None:
    """Permission to read single rows; only where files can be read by row."""
    if not plan.rows_on_hub:
        return
    allowed = plan.listing.by_range
    st.caption(
        "Single decoder rows and examples **may be read from the hub** when a feature needs them; what was "
        "read stays on disk."
        if allowed
        else "Instead of fetching decoders, the rows of single features can be read from the hub when they "
        "are needed (some ten to hundred kB each); what was read stays on disk."
    )
    st.button(
        "Stop reading from the hub" if allowed else "Read rows from the hub when needed",
        key="feature_hub_rows",
        icon=":material/cloud_off:" if allowed else ":material/cloud_download:",
        on_click=_allow,
        args=(plan, not allowed),
    )


def _allow(plan: Plan, allowed: bool) -> None:
    allow_rows(plan, allowed)
    running.forget("feature_source")


def _fetch(plan: Plan, use: Use, layers: tuple[int, ...] | None) -> None:
    """Begin a download; it has a worker of its own, so that runs go on meanwhile."""

    def work(job: Job) -> None:
        fetch_plan(plan, (use,), layers, on_phase=_reporter(job))

    key = ("fetch transcoder", plan.reference, plan.listing.commit, use, layers)
    job = downloads().submit(key, waiter(), work, f"Fetch {plan.reference.repo}")
    running.begin(SLOT, chosen_spec(), key, job)


def _reporter(job: Job) -> Callable[[str, float, str], None]:
    return lambda phase, fraction, text: job.report(fraction, text)


def _following() -> bool:
    """Whether a download runs (its progress is drawn then); a finished one is told and forgotten."""
    run = running.current(SLOT)
    if run is None:
        return False
    if not running.settle(run):
        running.follow(SLOT, lambda partial: None)
        return True
    running.forget(SLOT)
    running.forget("feature_source")
    if run.error is not None:
        draw_failure(run.error, "the download")
        return False
    st.toast(plain("Fetched."), icon=":material/check:")
    st.rerun()
    return False
