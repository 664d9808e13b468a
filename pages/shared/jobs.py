"""Runs shared by all browser tabs: one worker thread, fair turns, equal runs computed once.

Streamlit runs every script in its own thread and starts the next one while the last is still busy. Torch work
done there would overlap with itself, so a single daemon thread owns the model and the scripts only submit,
watch and cancel. Nothing in this file knows Streamlit or torch.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
import traceback
from collections.abc import Callable, Hashable
from typing import Any

from mi_core.errors import Cancelled, InputError, LanternError, OutOfMemory
from pages.shared.job import Job

logger = logging.getLogger(__name__)

SERVER = "server"
"""Waiter name of work that the server itself wants (preloading): it never goes away."""

MAX_PENDING = 4
"""Runs that one session may have waiting or running at a time."""

GRACE_SECONDS = 20.0
"""How long a session may be unreachable (reload, sleeping laptop) before its runs are cancelled."""

_LIVENESS_INTERVAL = 1.0


class Worker:
    """One daemon thread that runs jobs one after the other, sessions in turn."""

    def __init__(
        self,
        name: str,
        *,
        alive: Callable[[str], bool] = lambda waiter: True,
        on_memory_error: Callable[[], None] = lambda: None,
    ) -> None:
        """Start the thread.

        Args:
            name: name of the thread, for logs.
            alive: whether a waiter (a browser session) can still be reached.
            on_memory_error: frees what can be freed after a run ran out of memory.
        """
        self._alive = alive
        self._on_memory_error = on_memory_error
        self._condition = threading.Condition()
        self._pending: list[Job] = []
        self._running: Job | None = None
        self._turns: dict[str, int] = {}
        self._numbers = itertools.count(1)
        self._closed = False
        # A daemon: a running forward pass must not keep the server alive after SIGTERM.
        self._thread = threading.Thread(target=self._loop, name=name, daemon=True)
        self._thread.start()

    def submit(self, key: Hashable, waiter: str, function: Callable[[Job], Any], label: str = "Run") -> Job:
        """Queue a run, or join an equal one that is waiting or running.

        Args:
            key: everything that determines the result; equal keys share one run.
            waiter: the session that asks.
            function: called on the worker thread with the job; its return value is the result.
            label: what is shown while it waits and runs.

        Raises:
            InputError: when the session already has `MAX_PENDING` runs, or the worker is closed.
        """
        with self._condition:
            if self._closed:
                raise InputError("The server is stopping", fix="Start it again")
            job = self._live_job(key)
            if job is None:
                self._check_cap(waiter)
                job = Job(key, function, label, next(self._numbers))
                job._liveness = self._wanted
                self._pending.append(job)
                self._condition.notify_all()
            job.waiters[waiter] = time.monotonic()
            return job

    def leave(self, job: Job, waiter: str) -> bool:
        """Stop waiting for a job; the last one to leave cancels it. True when it was cancelled."""
        with self._condition:
            job.waiters.pop(waiter, None)
            if job.waiters or job.done:
                return False
            job.cancel()
            if job in self._pending:
                self._pending.remove(job)
                self._finish(job, "cancelled")
            return True

    def stop(self, job: Job, waiter: str) -> bool:
        """Cancel for this waiter but keep what is done: it stays interested in the partial result.

        Returns:
            True when the run itself stops (its result will hold what is done); False when other sessions
            still want it, then `job.progress.partial` is what this session can keep.
        """
        with self._condition:
            if set(job.waiters) - {waiter}:
                job.waiters.pop(waiter, None)
                return False
            job.cancel()
            if job in self._pending:
                self._pending.remove(job)
                self._finish(job, "cancelled")
            return True

    def runs_ahead(self, job: Job) -> int:
        """How many runs come before this one (0 when it is running or done)."""
        with self._condition:
            if job not in self._pending:
                return 0
            ahead = 0 if self._running is None else 1
            return ahead + self._fair_order().index(job)

    def pending(self, waiter: str) -> list[Job]:
        """The jobs that a session waits for, oldest first."""
        with self._condition:
            return [job for job in self._all_live() if waiter in job.waiters]

    def close(self) -> None:
        """Cancel everything and let the thread end."""
        with self._condition:
            self._closed = True
            for job in self._all_live():
                job.cancel()
            self._condition.notify_all()

    def _all_live(self) -> list[Job]:
        running = [] if self._running is None else [self._running]
        return running + self._pending

    def _live_job(self, key: Hashable) -> Job | None:
        return next((job for job in self._all_live() if job.key == key and not job.cancelled), None)

    def _check_cap(self, waiter: str) -> None:
        waiting = sum(waiter in job.waiters and not job.cancelled for job in self._all_live())
        if waiter != SERVER and waiting >= MAX_PENDING:
            raise InputError(
                f"This tab already has {waiting} runs waiting",
                why="one tab may not fill the queue for everybody",
                fix="Cancel one of them or wait",
            )

    def _fair_order(self) -> list[Job]:
        """Pending jobs in the order in which they will run: the session served longest ago goes first."""
        turns, left, order = dict(self._turns), list(self._pending), []
        turn = max(turns.values(), default=0)
        while left:
            job = min(left, key=lambda j: (min((turns.get(w, 0) for w in j.waiters), default=0), j.number))
            left.remove(job)
            order.append(job)
            turn += 1
            turns.update(dict.fromkeys(job.waiters, turn))
        return order

    def _wanted(self, job: Job) -> bool:
        """Whether a waiter of the job can still be reached (checked at most once a second)."""
        now = time.monotonic()
        with self._condition:
            for waiter, seen in job.waiters.items():
                if now - seen > _LIVENESS_INTERVAL and (waiter == SERVER or self._alive(waiter)):
                    job.waiters[waiter] = now
            return any(now - seen < GRACE_SECONDS for seen in job.waiters.values())

    def _next(self) -> Job | None:
        with self._condition:
            while not self._pending and not self._closed:
                self._condition.wait()
            if self._closed:
                return None
            job = self._fair_order()[0]
            self._pending.remove(job)
            turn = max(self._turns.values(), default=0) + 1
            self._turns = {**self._turns, **dict.fromkeys(job.waiters, turn)}
            self._trim_turns()
            self._running = job
            job.state = "running"
            return job

    def _trim_turns(self) -> None:
        """Forget sessions that have nothing waiting once there are many of them."""
        if len(self._turns) > 1000:
            waiting = {waiter for job in self._all_live() for waiter in job.waiters}
            self._turns = {waiter: turn for waiter, turn in self._turns.items() if waiter in waiting}

    def _loop(self) -> None:
        while (job := self._next()) is not None:
            self._work(job)
            with self._condition:
                self._running = None

    def _work(self, job: Job) -> None:
        started = time.monotonic()
        try:
            job.report(0.0, "starting")
            job.result = job.function(job)
            state = "done"
        except Cancelled:
            state = "cancelled"
        except LanternError as error:
            job.error, state = _detached(error), "failed"
            if isinstance(error, OutOfMemory):
                self._on_memory_error()
        except MemoryError:
            self._on_memory_error()
            job.error, state = _out_of_memory(), "failed"
        except (
            BaseException
        ) as error:  # the thread must survive whatever a run does; the page shows the error
            # As text: a log record with the traceback object would keep its frames and activations alive.
            logger.error("run %r failed\n%s", job.label, traceback.format_exc())
            if _is_memory_error(error):
                self._on_memory_error()
                error = _out_of_memory()
            job.error, state = _detached(error), "failed"
        job.seconds = time.monotonic() - started
        with self._condition:
            self._finish(job, state)

    def _finish(self, job: Job, state: str) -> None:
        job.state = state
        job.function = _finished_function  # closures hold inputs and models; results must not keep them alive
        job._finished.set()


def _finished_function(job: Job) -> None:
    raise RuntimeError(f"{job.label} has already run")


def _detached(error: BaseException) -> BaseException:
    """The error without its frames, which would keep activations alive."""
    error.__context__ = None
    return error.with_traceback(None)


def _is_memory_error(error: BaseException) -> bool:
    """Whether this is the accelerator's way of running out of memory (torch is not imported here)."""
    return type(error).__name__ == "OutOfMemoryError" or "not enough memory" in str(error)


def _out_of_memory() -> OutOfMemory:
    return OutOfMemory(
        "There was not enough memory for this run",
        why="its activations did not fit beside the model; what could be freed was freed",
        fix="Try fewer samples, a shorter prompt, fewer kinds, or a smaller dtype",
    )
