"""The worker: equal runs are one run, sessions take turns, leaving cancels, and nothing a run does ends the
thread."""

import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError

import pytest

from mi_core.errors import Cancelled, InputError, OutOfMemory
from pages.shared import jobs
from pages.shared.job import Job
from pages.shared.jobs import SERVER, Worker

SOON = 120.0


@pytest.fixture
def worker() -> Iterator[Worker]:
    made = Worker("test-worker")
    yield made
    made.close()


class Gate:
    """A run that says when it has started and waits until it may end."""

    def __init__(self) -> None:
        self.started, self.open = threading.Event(), threading.Event()
        self.calls = 0

    def __call__(self, job: Job) -> str:
        self.calls += 1
        self.started.set()
        while not self.open.wait(0.002):
            job.report(0.5, "waiting", partial="half")
        return "whole"


def busy(worker: Worker) -> Gate:
    """Keep the worker occupied by somebody else."""
    gate = Gate()
    worker.submit("busy", "somebody else", gate)
    assert gate.started.wait(SOON)
    return gate


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.002)


def test_a_run_gives_its_result(worker: Worker) -> None:
    job = worker.submit("key", "a", lambda job: 42)
    assert job.wait(SOON)
    assert job.value() == 42
    assert job.state == "done"


def test_equal_keys_share_one_run_and_different_keys_do_not(worker: Worker) -> None:
    gate = Gate()
    first, second = worker.submit("key", "a", gate), worker.submit("key", "b", gate)
    other = worker.submit("other key", "b", lambda job: "other")
    assert first is second
    assert other is not first
    gate.open.set()
    assert first.wait(SOON)
    assert gate.calls == 1
    assert other.wait(SOON)
    assert other.value() == "other"


def test_a_key_is_run_again_after_it_has_finished(worker: Worker) -> None:
    calls: list[int] = []
    for _ in range(2):
        assert worker.submit("key", "a", lambda job: calls.append(1)).wait(SOON)
    assert len(calls) == 2


def test_the_last_one_to_leave_cancels(worker: Worker) -> None:
    gate = Gate()
    job = worker.submit("key", "a", gate)
    worker.submit("key", "b", gate)
    assert gate.started.wait(SOON)
    assert not worker.leave(job, "a")
    assert not job.cancelled
    assert worker.leave(job, "b")
    assert job.wait(SOON)
    assert job.state == "cancelled"
    with pytest.raises(CancelledError):
        job.value()


def test_a_new_submission_does_not_join_a_cancelled_run(worker: Worker) -> None:
    gate, again = Gate(), Gate()
    job = worker.submit("key", "a", gate)
    assert gate.started.wait(SOON)
    worker.leave(job, "a")
    second = worker.submit("key", "a", again)
    assert second is not job
    again.open.set()
    assert second.wait(SOON)
    assert second.value() == "whole"


def test_stop_keeps_what_is_done(worker: Worker) -> None:
    """An analysis turns the cancellation into a partial result; the waiter still gets it."""

    def analysis(job: Job) -> str:
        done = 0
        try:
            while True:
                job.report(0.1, partial=done)
                done += 1
        except Cancelled:
            return "partial"

    job = worker.submit("key", "a", analysis)
    until(lambda: job.progress.version > 3)
    assert worker.stop(job, "a")
    assert job.wait(SOON)
    assert job.value() == "partial"


def test_stop_of_one_does_not_end_the_run_of_another(worker: Worker) -> None:
    gate = Gate()
    job = worker.submit("key", "a", gate)
    worker.submit("key", "b", gate)
    until(lambda: job.progress.partial == "half")
    assert not worker.stop(job, "a")
    assert job.progress.partial == "half"
    gate.open.set()
    assert job.wait(SOON)
    assert job.value() == "whole"


def test_a_waiting_run_that_is_left_never_starts(worker: Worker) -> None:
    gate, waiting = busy(worker), Gate()
    job = worker.submit("waiting", "a", waiting)
    worker.leave(job, "a")
    assert job.done
    gate.open.set()
    assert worker.submit("after", "b", lambda job: None).wait(SOON)
    assert waiting.calls == 0


def test_sessions_take_turns(worker: Worker) -> None:
    gate, order = busy(worker), []
    for number in range(3):
        worker.submit(f"a{number}", "a", lambda job, n=number: order.append(f"a{n}"))
    last = worker.submit("b0", "b", lambda job: order.append("b0"))
    assert worker.runs_ahead(last) == 2  # the one that runs, and a's first
    gate.open.set()
    until(lambda: len(order) == 4)
    assert order == ["a0", "b0", "a1", "a2"]
    assert worker.runs_ahead(last) == 0


def test_runs_ahead_counts_what_really_comes_before(worker: Worker) -> None:
    gate = busy(worker)
    mine = [worker.submit(f"a{n}", "a", lambda job: None) for n in range(3)]
    yours = worker.submit("b0", "b", lambda job: None)
    assert [worker.runs_ahead(job) for job in mine] == [1, 3, 4]
    assert worker.runs_ahead(yours) == 2
    gate.open.set()


def test_one_session_cannot_fill_the_queue(worker: Worker) -> None:
    gate = busy(worker)
    for number in range(jobs.MAX_PENDING):
        worker.submit(number, "a", lambda job: None)
    with pytest.raises(InputError, match="runs waiting"):
        worker.submit("one more", "a", lambda job: None)
    worker.submit("b", "b", lambda job: None)
    worker.submit(0, "a", lambda job: None)  # joining its own run is no new run
    gate.open.set()


def test_an_error_reaches_the_page_and_the_thread_lives_on(worker: Worker) -> None:
    def fails(job: Job) -> None:
        raise InputError("The prompt is empty", fix="Type one")

    job = worker.submit("bad", "a", fails)
    assert job.wait(SOON)
    assert job.state == "failed"
    with pytest.raises(InputError, match="prompt is empty"):
        job.value()
    assert worker.submit("good", "a", lambda job: 1).wait(SOON)


@pytest.mark.parametrize("error", [ZeroDivisionError("x"), KeyboardInterrupt(), SystemExit(1)])
def test_a_bug_in_a_run_does_not_end_the_thread(worker: Worker, error: BaseException) -> None:
    def fails(job: Job) -> None:
        raise error

    job = worker.submit("bad", "a", fails)
    assert job.wait(SOON)
    with pytest.raises(type(error)):
        job.value()
    assert worker.submit("good", "a", lambda job: 1).wait(SOON)


class OutOfMemoryError(RuntimeError):
    """Named as torch names its own."""


@pytest.mark.parametrize(
    "error", [MemoryError(), OutOfMemoryError("CUDA out of memory"), OutOfMemory("Too big")]
)
def test_running_out_of_memory_frees_and_explains(error: Exception) -> None:
    freed: list[int] = []
    worker = Worker("test-worker", on_memory_error=lambda: freed.append(1))

    def fails(job: Job) -> None:
        raise error

    job = worker.submit("big", "a", fails)
    assert job.wait(SOON)
    assert freed == [1]
    with pytest.raises(OutOfMemory):
        job.value()
    worker.close()


def test_a_finished_run_keeps_no_activations_alive(worker: Worker) -> None:
    """Neither the closure nor the frames of an error may hold what a run allocated."""

    class Activations:
        pass

    seen: list[weakref.ref[Activations]] = []

    def fails(job: Job) -> None:
        held = Activations()
        seen.append(weakref.ref(held))
        raise ValueError("with activations in its frame")

    job = worker.submit("key", "a", fails)
    assert job.wait(SOON)
    worker.submit("next", "a", lambda job: None).wait(SOON)
    del fails
    gc.collect()
    assert seen[0]() is None


def test_a_session_that_is_gone_for_long_loses_its_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "GRACE_SECONDS", 0.05)
    monkeypatch.setattr(jobs, "_LIVENESS_INTERVAL", 0.01)
    connected = {"a": True}
    worker = Worker("test-worker", alive=lambda waiter: connected[waiter])
    gate = Gate()
    job = worker.submit("key", "a", gate)
    assert gate.started.wait(SOON)
    assert not job.wait(0.15)  # connected: it goes on far beyond the grace
    connected["a"] = False
    assert job.wait(SOON)
    assert job.state == "cancelled"
    worker.close()


def test_the_servers_own_run_needs_no_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "GRACE_SECONDS", 0.02)
    monkeypatch.setattr(jobs, "_LIVENESS_INTERVAL", 0.01)
    worker = Worker("test-worker", alive=lambda waiter: False)
    gate = Gate()
    job = worker.submit("preload", SERVER, gate)
    assert not job.wait(0.1)
    gate.open.set()
    assert job.wait(SOON)
    assert job.value() == "whole"
    worker.close()


def test_close_stops_the_run_and_refuses_new_ones() -> None:
    worker = Worker("test-worker")
    gate = Gate()
    job = worker.submit("key", "a", gate)
    assert gate.started.wait(SOON)
    worker.close()
    assert job.wait(SOON)
    with pytest.raises(InputError, match="stopping"):
        worker.submit("other", "a", lambda job: None)
    assert worker._thread.daemon


def test_progress_is_bounded_and_versions_count_partial_results() -> None:
    job = Job("key", lambda job: None, "Run", 1)
    job.report(1.7, "late", partial="one")
    job.report(-1.0)
    assert job.progress.fraction == 0.0
    assert (job.progress.partial, job.progress.version) == ("one", 1)
