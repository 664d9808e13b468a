"""A run as a page sees it: started by a button, followed without blocking, stopped, kept over reruns.

A short run is simply waited for, so that its figure is there at once. A longer one is followed by a fragment
that looks every half second and redraws only itself; the page stays usable meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from typing import Any

import streamlit as st

from mi_core.errors import Cancelled
from mi_core.model.spec import ModelSpec
from pages.shared.job import Job
from pages.shared.link import visit
from pages.shared.session import hub, waiter

PATIENCE_SECONDS = 1.2
"""How long a script waits for a run before it shows progress instead."""

STOPPED = Cancelled()
"""The error of a run that was stopped before there was anything to keep."""

_STEP_SECONDS = 0.02
_LOOK_EVERY = 0.3


@dataclass
class Run:
    """A run that a page started.

    Attributes:
        spec: the model.
        inputs: what was asked for, besides the model.
        job: the worker's job.
        result: what came out, or what was done when it was stopped.
        error: why there is no result.
        stopped: whether this session pressed Cancel.
        visit: see `link.visit`.
        started: when it was asked for, `time.monotonic()`.
    """

    spec: ModelSpec
    inputs: Hashable
    job: Job
    result: Any = None
    error: BaseException | None = None
    stopped: bool = False
    visit: int = 0
    started: float = field(default_factory=time.monotonic)

    @property
    def active(self) -> bool:
        """Whether the page still has to wait."""
        return self.result is None and self.error is None


def current(slot: str) -> Run | None:
    """The page's last run, if it has one."""
    return st.session_state.get(f"_run_{slot}")


def begin(slot: str, spec: ModelSpec, inputs: Hashable, job: Job) -> Run:
    """Remember a new run; the one before is left (and cancelled, if nobody else waits for it)."""
    forget(slot)
    run = Run(spec, inputs, job, visit=visit())
    st.session_state[f"_run_{slot}"] = run
    return run


def finished(slot: str, spec: ModelSpec, inputs: Hashable, result: Any) -> Run:
    """Remember a result that was there already (stored, or computed for another tab)."""
    forget(slot)
    job = Job(inputs, lambda job: None, "stored", 0)
    run = Run(spec, inputs, job, result=result, visit=visit())
    st.session_state[f"_run_{slot}"] = run
    return run


def forget(slot: str) -> None:
    """Leave the page's run."""
    old = current(slot)
    if old is not None and not old.job.done and old.job.waiters:
        hub().worker.leave(old.job, waiter())
    st.session_state.pop(f"_run_{slot}", None)


def stop(slot: str) -> None:
    """Cancel, keeping what is done."""
    run = current(slot)
    if run is None or not run.active:
        return
    run.stopped = True
    if not hub().worker.stop(run.job, waiter()):
        run.result = run.job.progress.partial  # other tabs still want the rest
        run.error = STOPPED if run.result is None else None


def settle(run: Run) -> bool:
    """Wait for a run that has just begun; True when it has ended and `result` or `error` is set.

    The script yields to Streamlit at every step, so a click during the wait is answered at once.
    """
    end = run.started + PATIENCE_SECONDS
    while not run.job.done and run.active and time.monotonic() < end:
        run.job.wait(_STEP_SECONDS)
        st.session_state.get("_yield")
    return _collect(run)


def _collect(run: Run) -> bool:
    if not run.active:
        return True
    if not run.job.done:
        return False
    try:
        run.result = run.job.value()
    except CancelledError:
        run.result = run.job.progress.partial
        run.error = STOPPED if run.result is None else None
    except BaseException as error:  # whatever the run raised is shown by the page
        run.error = error
    return True


def follow(slot: str, draw_partial: Callable[[Any], None]) -> None:
    """Show progress, a Cancel button and what is done so far; the page reruns when the run has ended.

    Args:
        slot: name of the page's run.
        draw_partial: draws a partial result.
    """

    @st.fragment(run_every=_LOOK_EVERY)
    def watch() -> None:
        run = current(slot)
        if run is None or _collect(run):
            st.rerun(scope="app")
        _progress(slot, run)
        if run.job.progress.partial is not None:
            draw_partial(run.job.progress.partial)

    watch()


def _progress(slot: str, run: Run) -> None:
    job = run.job
    with st.container(horizontal=True, vertical_alignment="center", key=f"progress_{slot}"):
        with st.container(width="stretch"):
            st.progress(job.progress.fraction, progress_text(job, hub().worker.runs_ahead(job)))
        st.button(
            "Cancel",
            key=f"cancel_{slot}",
            icon=":material/stop_circle:",
            on_click=stop,
            args=(slot,),
            help="Stop; what is done stays.",
        )


def progress_text(job: Job, ahead: int) -> str:
    """What a progress bar says."""
    if ahead:
        return f"{job.label}: {ahead} run{'s' if ahead > 1 else ''} ahead of you"
    progress = job.progress
    left = "" if progress.seconds_left is None else f" · {duration(progress.seconds_left)} left"
    return f"{job.label}: {progress.text or 'starting'}{left}"


def duration(seconds: float) -> str:
    """Seconds for people: `0.4 s`, `12 s`, `3 min 20 s`."""
    if seconds < 0.1:
        return "less than 0.1 s"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"
