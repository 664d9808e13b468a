"""One run: what is wanted, who waits for it, how far it is, and what came out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from concurrent.futures import CancelledError
from dataclasses import dataclass
from typing import Any

from mi_core.errors import Cancelled


@dataclass(frozen=True)
class Progress:
    """What a running job last said about itself."""

    fraction: float = 0.0
    text: str = ""
    seconds_left: float | None = None
    partial: Any = None
    version: int = 0
    """Grows with every partial result, so that a page redraws only what is new."""


class Job:
    """One run: what is wanted, who waits for it, how far it is and what came out."""

    def __init__(self, key: Hashable, function: Callable[[Job], Any], label: str, number: int) -> None:
        """Create a queued job; `Worker.submit` is the only caller."""
        self.key = key
        self.function = function
        self.label = label
        self.number = number
        self.state = "queued"
        self.progress = Progress()
        self.result: Any = None
        self.error: BaseException | None = None
        self.seconds = 0.0
        self.waiters: dict[str, float] = {}
        self._cancel = threading.Event()
        self._finished = threading.Event()
        self._liveness: Callable[[Job], bool] = lambda job: True

    @property
    def done(self) -> bool:
        """Whether there is a result, an error or a cancellation to read."""
        return self._finished.is_set()

    @property
    def cancelled(self) -> bool:
        """Whether somebody asked for this run to stop."""
        return self._cancel.is_set()

    def cancel(self) -> None:
        """Ask the run to stop at its next report."""
        self._cancel.set()

    def report(
        self,
        fraction: float,
        text: str = "",
        *,
        seconds_left: float | None = None,
        partial: Any = None,
    ) -> None:
        """Say how far the run is; called by the worker as often as it likes.

        Args:
            fraction: share that is done, 0 to 1.
            text: what is being done, in words.
            seconds_left: estimate of the remaining time in seconds, if there is one.
            partial: what can be drawn already; None keeps the last one.

        Raises:
            Cancelled: when nobody wants the result any more.
        """
        last = self.progress
        shown, version = (last.partial, last.version) if partial is None else (partial, last.version + 1)
        self.progress = Progress(min(max(fraction, 0.0), 1.0), text, seconds_left, shown, version)
        if self._cancel.is_set() or not self._liveness(self):
            self._cancel.set()
            raise Cancelled

    def wait(self, timeout: float) -> bool:
        """Wait at most `timeout` seconds; True when the job is done."""
        return self._finished.wait(timeout)

    def value(self) -> Any:
        """The result of a finished job.

        Raises:
            CancelledError: when it was stopped before there was anything to keep.
            BaseException: what the run raised.
        """
        if self.error is not None:
            raise self.error
        if self.state == "cancelled":
            raise CancelledError
        return self.result
