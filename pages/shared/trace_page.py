"""The causal trace of one prompt: set-up, run and view put together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from mi_core.errors import LanternError
from pages.shared import running
from pages.shared.boundary import draw_failure
from pages.shared.examples import stored_result
from pages.shared.instant import draw_warnings, step_reporter
from pages.shared.link import visit
from pages.shared.running import Run
from pages.shared.session import chosen_about, chosen_spec, hub, waiter
from pages.shared.text import plain
from pages.shared.trace_cell import draw_cell
from pages.shared.trace_inputs import (
    Asked,
    asked,
    changed,
    cost_line,
    expected_seconds,
    restore,
    sentence,
)
from pages.shared.trace_preview import draw_agreement, draw_preview
from pages.shared.trace_setup import draw_setup
from pages.shared.trace_view import (
    SLOT,
    draw_curve,
    draw_heatmaps,
    draw_partial,
    draw_runs_line,
    draw_severed,
)

if TYPE_CHECKING:
    from collections.abc import Hashable

    from mi_core.analyses.causal_trace_inputs import CausalTraceInputs
    from mi_core.analyses.causal_trace_result import CausalTraceResult
    from mi_core.model.model import LoadedModel
    from pages.shared.hub import About
    from pages.shared.job import Job

AUTOMATIC_SECONDS = 60.0
"""A link that says "this has run" runs it again by itself if that is expected to take less."""


def draw_trace_tab() -> None:
    """Set-up, cost, Run, and what came out."""
    about = chosen_about()
    with st.container(border=True, key="trace_setup"):
        draw_setup(about)
        wanted = asked(about)
        _run_row(about, wanted)
    run = _current(wanted)
    if run is None and wanted.inputs is not None and about is not None:
        run = _already_there(about, wanted.inputs)
    if run is None:
        _draw_empty(about)
        draw_preview(about, wanted.inputs)
        return
    if not running.settle(run):
        running.follow(SLOT, _draw_partial)
        return
    _draw_outcome(run, wanted)


def _current(wanted: Asked) -> Run | None:
    """The page's run; after a link or an example one with other settings is let go."""
    run = running.current(SLOT)
    if run is not None and run.visit != visit():
        if run.spec != chosen_spec() or run.inputs != wanted.inputs:
            running.forget(SLOT)
            return None
        run.visit = visit()
    return run


def _run_row(about: About | None, wanted: Asked) -> None:
    problem, cost = wanted.problem, ""
    if wanted.inputs is not None:
        try:
            cost = cost_line(about, wanted.inputs)
        except LanternError as error:
            problem = str(error)
    with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
        ready = not problem and about is not None
        if st.button(
            "Run",
            type="primary",
            icon=":material/play_arrow:",
            shortcut="Ctrl+Enter",
            disabled=not ready,
            key="run_trace",
            help=sentence(problem) if problem else None,
        ):
            _start(about, wanted.inputs)
        if problem:
            st.markdown(f":orange[:material/info: {sentence(problem)}]")
        else:
            st.caption(cost)
    block = problem.partition("\n\n")[2]
    if block.strip():
        st.code(block.strip("\n"), language=None)


def _key(about: About, inputs: CausalTraceInputs) -> Hashable:
    return ("causal_trace", about.fingerprint, inputs)


def _start(about: About | None, inputs: CausalTraceInputs | None) -> None:
    if about is None or inputs is None:
        return
    key = _key(about, inputs)
    stored = hub().result(about.spec, key)
    if stored is not None:
        running.finished(SLOT, about.spec, inputs, stored)
    else:
        job = hub().run(
            about.spec, key, waiter(), lambda model, job: trace(model, inputs, job), "Causal trace"
        )
        running.begin(SLOT, about.spec, inputs, job)
    st.session_state["ran"] = True


def trace(model: LoadedModel, inputs: CausalTraceInputs, job: Job) -> CausalTraceResult:
    """Runs on the worker thread."""
    from mi_core.analyses import causal_trace

    return causal_trace(model, inputs, on_step=step_reporter(job, "cells"))


def _already_there(about: About, inputs: CausalTraceInputs) -> Run | None:
    """A result for exactly these settings: computed before, stored with an example, or linked."""
    key = _key(about, inputs)
    known = hub().result(about.spec, key) or stored_result(about, inputs)
    if known is not None:
        return running.finished(SLOT, about.spec, inputs, known)
    if st.session_state["ran"] and _is_cheap(about, inputs):
        _start(about, inputs)
        return running.current(SLOT)
    return None


def _is_cheap(about: About, inputs: CausalTraceInputs) -> bool:
    """Whether a link may start this run by itself; a long one waits for the button."""
    try:
        seconds = expected_seconds(about, inputs)
    except LanternError:
        return False
    return seconds is not None and seconds < AUTOMATIC_SECONDS


def _draw_empty(about: About | None) -> None:
    ready = "Check the prompt and its subject above, then press **Run**, or pick an example in the sidebar."
    waiting = "The model is not loaded yet; the sidebar shows how far it is."
    st.info(f"Nothing has run yet. {waiting if about is None else ready}", icon=":material/grid_on:")


def _draw_partial(result: CausalTraceResult) -> None:
    draw_warnings(result)
    draw_partial(result)


def _draw_outcome(run: Run, wanted: Asked) -> None:
    if run.error is not None:
        draw_failure(run.error, "the causal trace")
        return
    result: CausalTraceResult = run.result
    _draw_state(run, result, wanted)
    draw_warnings(result)
    draw_runs_line(result)
    draw_heatmaps(result)
    draw_cell(result)
    draw_curve(result)
    draw_severed(result)
    draw_agreement(chosen_about(), result)


def _draw_state(run: Run, result: CausalTraceResult, wanted: Asked) -> None:
    """Whether the figure is what the settings above ask for."""
    stale = _what_changed(run, result, wanted)
    if not stale and not result.cancelled:
        return
    with st.container(horizontal=True, vertical_alignment="center", key="trace_state"):
        if result.cancelled:
            st.badge(
                "stopped early: hatched cells were not run", icon=":material/stop_circle:", color="orange"
            )
        if stale:
            st.badge(f"{stale} changed since this ran", icon=":material/history:", color="orange")
            if wanted.inputs is not None:
                st.button(
                    "Run again",
                    icon=":material/play_arrow:",
                    on_click=_start,
                    args=(chosen_about(), wanted.inputs),
                    key="run_again",
                )
            st.button(
                "Restore its settings",
                icon=":material/undo:",
                on_click=restore,
                args=(result.inputs,),
                key="restore_trace",
            )


def _what_changed(run: Run, result: CausalTraceResult, wanted: Asked) -> str:
    names = [] if run.spec == chosen_spec() else ["model"]
    names += changed(result.inputs, wanted.inputs) if wanted.inputs is not None else ["settings"]
    return plain(", ".join(names))
