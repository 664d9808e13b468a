"""How fast is the ablation of every head? Ours, the full recompute, plain transformers, and transformer-lens.

    python -m benchmarks.head_sweep            # minutes; prints, writes nothing
    python -m benchmarks.head_sweep --publish  # also writes docs/benchmarks.md and docs/benchmarks/*.json

GPT-2-small shape, random weights, float32, 144 heads, one at a time. Ends with an error if any way's grid is
not equal to that of the plain loop to 1e-5. Run it on a quiet machine: the load average is written beside the
numbers.
"""

import os
import sys
from dataclasses import dataclass, field, replace

import numpy as np
import tyro

from benchmarks import report
from benchmarks.heads import WAYS, least_flops
from benchmarks.traces import Shape
from benchmarks.worker import Task

REFERENCE = "transformers"  # the independent computation that every grid is compared with
EQUAL = 1e-5
"""Largest difference of a logit difference between two ways."""


@dataclass(frozen=True)
class Options:
    """What to run.

    Attributes:
        positions: prompt length.
        ways: which of the four ways.
        repeats: timed runs at most, of each way.
        budget: seconds of timed runs at most, of each way.
        threads: CPU threads; 0 leaves torch's default.
        device: "cpu" or "cuda".
        publish: write the figures into docs/.
        shape: sizes of the model.
    """

    positions: int = 16
    ways: tuple[str, ...] = tuple(WAYS)
    repeats: int = 7
    budget: float = 60.0
    threads: int = 0
    device: str = "cpu"
    publish: bool = False
    shape: Shape = field(default_factory=Shape)


def largest_differences(records: list[dict]) -> dict[str, float]:
    """Way -> its largest difference from the plain loop, in logits."""
    grids = {one["task"]["way"]: np.array(one["grid"]) for one in records if "error" not in one}
    return {way: float(np.abs(grid - grids[REFERENCE]).max()) for way, grid in grids.items()}


def remark(records: list[dict]) -> list[str]:
    """What stands under the table: equality, load, and how near the arithmetic's limit ours is."""
    largest, load = max(largest_differences(records).values()), max(os.getloadavg())
    said = [
        f"All grids equal the plain loop's to {largest:.0e} logits (asked: {EQUAL:g}). "
        f"Load average at the end, largest of 1, 5 and 15 minutes: {load:.1f}."
    ]
    for record in records:
        if record["task"]["way"] == "lantern" and "error" not in record:
            least = least_flops(Shape(**record["task"]["shape"]), record["task"]["n_positions"])
            rate, fastest = record["matmul_flops"], min(record["seconds"])
            said.append(
                f"The least arithmetic is {least / 1e9:.0f} GFLOP: at the {rate / 1e9:.0f} GFLOP/s of a "
                "plain "
                f"matrix product here, {least / rate:.2f} s; ours takes {fastest:.2f} s."
            )
    return said


def main(options: Options) -> None:
    """Measure, compare, print, and publish when asked to."""
    where = report.machine(options.device)
    task = Task(
        grid="heads", n_positions=options.positions, repeats=options.repeats, budget=options.budget,
        threads=options.threads, device=options.device, shape=options.shape,
    )  # fmt: skip
    records = []
    for way in options.ways:
        records.append(report.run_worker(replace(task, way=way)))
        print(way, records[-1].get("error") or [round(one, 3) for one in records[-1]["seconds"]], flush=True)
    text = report.section("Head sweep", where, {options.positions: records}, REFERENCE, remark)
    print(f"\n{text}")
    off = {way: gap for way, gap in largest_differences(records).items() if gap > EQUAL}
    if off:
        sys.exit(f"Not equal to the plain loop: {off}")
    if options.publish:
        report.publish("head_sweep", text, {"machine": where, "runs": {options.positions: records}})


if __name__ == "__main__":
    main(tyro.cli(Options))
