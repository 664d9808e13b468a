"""Slow reading in a helper thread, while the caller's thread tells the progress and may stop it."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from typing import TypeVar

from mi_core.errors import Cancelled

INTERVAL_SECONDS = 0.05

Result = TypeVar("Result")


class Counter:
    """Counts bytes from several threads and stops them on request."""

    def __init__(self) -> None:
        self._lock, self._stop, self._count = threading.Lock(), threading.Event(), 0

    @property
    def count(self) -> int:
        """Bytes so far."""
        return self._count

    def stop(self) -> None:
        """Make the next `add` raise."""
        self._stop.set()

    def add(self, count: int) -> None:
        """Count more bytes.

        Raises:
            Cancelled: after `stop`.
        """
        if self._stop.is_set():
            raise Cancelled
        with self._lock:
            self._count += count


def watch(work: Callable[[Callable[[int], None]], Result], tell: Callable[[int], None]) -> Result:
    """Run `work` in a helper thread and tell its progress from this one.

    The callback stays in the caller's thread (a page may draw only there), and it can stop the work at any
    time, also in a moment in which nothing is counted.

    Args:
        work: called with `on_bytes(count)`, which it calls from any thread, and which raises Cancelled once
            the caller wants to stop.
        tell: called here with the bytes so far, about twenty times a second; what it raises (Cancelled,
            KeyboardInterrupt) stops the work and is raised here after the work has ended.

    Returns:
        What `work` returned.
    """
    counter, future = Counter(), Future()

    def body() -> None:
        try:
            future.set_result(work(counter.add))
        except BaseException as error:  # handed to the caller's thread, which raises it
            future.set_exception(error)

    thread = threading.Thread(target=body, name="lantern-reader", daemon=True)
    thread.start()
    try:
        while not wait_for([future], timeout=INTERVAL_SECONDS).done:
            tell(counter.count)
        tell(counter.count)
    except BaseException:
        counter.stop()
        raise
    finally:
        thread.join()
    return future.result()
