"""How fast is one causal-trace grid? Ours, the full recompute, plain transformers, and transformer-lens.

    python -m benchmarks.causal_trace            # minutes; prints, writes nothing
    python -m benchmarks.causal_trace --publish  # also writes docs/benchmarks.md and docs/benchmarks/*.json

GPT-2-small shape, random weights, float32. Run it on a quiet machine: the load average is written beside the
numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import tyro

from benchmarks import report
from benchmarks.traces import WAYS, Shape
from benchmarks.worker import Task

REFERENCE = "transformers"  # the independent computation that every grid is compared with


@dataclass(frozen=True)
class Options:
    """What to run.

    Attributes:
        positions: prompt lengths.
        ways: which of the four ways.
        repeats: timed runs at most, of each way.
        budget: seconds of timed runs at most, of each way.
        threads: CPU threads; 0 leaves torch's default.
        publish: write the figures into docs/.
        shape: sizes of the model.
    """

    positions: tuple[int, ...] = (10, 24)
    ways: tuple[str, ...] = tuple(WAYS)
    repeats: int = 7
    budget: float = 60.0
    threads: int = 0
    publish: bool = False
    shape: Shape = field(default_factory=Shape)


def measure_all(positions: Sequence[int], ways: Sequence[str], task: Task) -> dict[int, list[dict]]:
    """Every way at every prompt length, one after the other."""
    runs: dict[int, list[dict]] = {}
    for n_positions in positions:
        for way in ways:
            record = report.run_worker(replace(task, way=way, n_positions=n_positions))
            print(
                n_positions,
                way,
                record.get("error") or [round(value, 3) for value in record["seconds"]],
                flush=True,
            )
            runs.setdefault(n_positions, []).append(record)
    return runs


def main(options: Options) -> None:
    """Measure, print, and publish when asked to."""
    where = report.machine("cpu")
    task = Task(repeats=options.repeats, budget=options.budget, threads=options.threads, shape=options.shape)
    runs = measure_all(options.positions, options.ways, task)
    text = report.section("Causal trace on the CPU", where, runs, REFERENCE)
    print(f"\n{text}")
    if options.publish:
        report.publish("causal_trace", text, {"machine": where, "runs": runs})


if __name__ == "__main__":
    main(tyro.cli(Options))
