"""Waiting for what a page computes in the background."""

import time
from collections.abc import Sequence
from typing import Any

PATIENCE = 60.0
"""Seconds; a busy machine takes longer than the page's own patience."""


def until_idle(session: Any, slots: Sequence[str]) -> Any:
    """Run a session's page again until none of these runs is under way.

    Args:
        session: an AppTest.
        slots: names of the page's runs.
    """
    end = time.monotonic() + PATIENCE
    while active := [slot for slot in slots if (run := _run(session, slot)) and run.active]:
        assert time.monotonic() < end, f"{active} do not end"
        _run(session, active[0]).job.wait(0.1)
        session.run()
    return session


def _run(session: Any, slot: str) -> Any:
    key = f"_run_{slot}"
    return session.session_state[key] if key in session.session_state else None  # noqa: SIM401  # no get
