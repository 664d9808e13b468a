"""Waiting for what a page computes in the background, however long this machine takes."""

import time
from collections.abc import Sequence
from typing import Any

PATIENCE = 300.0
"""Seconds; far more than a slow and busy machine needs."""


def patient(session: Any) -> Any:
    """Let every run of a session's page, a click's too, go on until nothing is under way.

    A page waits about a second for a result; what comes later is drawn by one more run, which a browser asks
    for by itself.
    """
    once, waiting = session._run, []

    def run(*arguments: Any, **named: Any) -> Any:
        once(*arguments, **named)
        if not waiting:
            waiting.append(True)
            try:
                until_idle(session)
            finally:
                waiting.clear()
        return session

    session._run = run
    return session


def until_idle(session: Any, asked: Sequence[str] = ()) -> Any:
    """Run a session's page again until nothing is under way; the end of one run may begin the next.

    Args:
        session: an AppTest.
        asked: names of runs that are wanted in any case: where this machine is so slow that the page tells
            their cost and waits, its button is pressed.
    """
    end = time.monotonic() + PATIENCE
    while True:
        while under_way := active(session):
            assert time.monotonic() < end, f"{list(under_way)} do not end"
            waiting = [run for run in under_way.values() if not run.job.done]
            if waiting:
                waiting[0].job.wait(0.1)
            session.run()
            if not waiting and active(session) == under_way:
                break  # they belong to a tab that is not open, and nobody collects them
        buttons = {f"start_{slot}" for slot in asked}
        start = next((button for button in session.button if button.key in buttons), None)
        if start is None:
            return session
        start.click().run()


def active(session: Any) -> dict[str, Any]:
    """The session's runs whose results it has not seen yet, by name."""
    state = session.session_state._state.filtered_state
    runs = {key.removeprefix("_run_"): value for key, value in state.items() if key.startswith("_run_")}
    return {slot: run for slot, run in runs.items() if run.active}
