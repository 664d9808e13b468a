"""Times one way of computing a grid in a process of its own, so that its peak memory is its own.

    python -m benchmarks.worker --grid trace --way lantern --n-positions 10

Prints one line of JSON: seconds of every repeat, memory, the grid, and the rate of plain matrix products that
was measured between the repeats.
"""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypeVar

import psutil
import torch
import tyro

from benchmarks import heads, traces
from benchmarks.traces import Shape, prompts

MIB = 2**20
GRIDS = {"trace": traces.WAYS, "heads": heads.WAYS}
Value = TypeVar("Value")


@dataclass(frozen=True)
class Task:
    """What to time.

    Attributes:
        grid: "trace" (`benchmarks.traces`) or "heads" (`benchmarks.heads`).
        way: one of the grid's `WAYS`.
        n_positions: length of both prompts.
        repeats: at most so many timed runs, after one that warms up.
        budget: stop after so many seconds.
        device: "cpu" or "cuda".
        dtype: "float32", "bfloat16" or "float64".
        threads: CPU threads of torch; 0 leaves its default.
        shape: sizes of the model.
    """

    grid: str = "trace"
    way: str = "lantern"
    n_positions: int = 10
    repeats: int = 5
    budget: float = 60.0
    device: str = "cpu"
    dtype: str = "float32"
    threads: int = 0
    shape: Shape = field(default_factory=Shape)


def synchronize(device: str) -> None:
    """Wait until the GPU has finished what was asked of it."""
    if device == "cuda":
        torch.cuda.synchronize()


def timed(function: Callable[[], Value], device: str) -> tuple[float, Value]:
    """Seconds that `function` takes, and what it returns."""
    synchronize(device)
    start = time.perf_counter()
    value = function()
    synchronize(device)
    return time.perf_counter() - start, value


def matmul_rate(task: Task, n_rows: int = 2048) -> float:
    """FLOP/s of [2048, d] @ [d, 4d], the largest product of a block; best of 5."""
    d = task.shape.d_model
    options = {"device": task.device, "dtype": getattr(torch, task.dtype)}
    left, right = torch.randn(n_rows, d, **options), torch.randn(d, 4 * d, **options)
    seconds = min(timed(lambda: left @ right, task.device)[0] for _ in range(5))
    return 2.0 * n_rows * d * 4 * d / seconds


def reset_peak(device: str) -> None:
    """Forget the highest memory use so far."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # Linux: VmHWM starts again from here


def peak_bytes(device: str) -> int:
    """Highest memory use since `reset_peak`: allocated on the GPU, or resident set of this process."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))


def used_bytes(device: str) -> int:
    """Memory in use now, in the sense of `peak_bytes`."""
    return torch.cuda.memory_allocated() if device == "cuda" else psutil.Process().memory_info().rss


def measure(task: Task) -> dict:
    """Run the task; see the module docstring for what comes back."""
    if task.threads:
        torch.set_num_threads(task.threads)
    compute = GRIDS[task.grid][task.way](task.shape, task.device, getattr(torch, task.dtype))
    tokens = [tensor.to(task.device) for tensor in prompts(task.n_positions, task.shape.d_vocab)]
    before = used_bytes(task.device)
    reset_peak(task.device)
    first, grid = timed(
        lambda: compute(*tokens), task.device
    )  # warms up; also the answer, kept even if it is slow
    seconds, rates, spent = [], [matmul_rate(task)], first
    while len(seconds) < task.repeats and (spent < task.budget or not seconds):
        seconds.append(timed(lambda: compute(*tokens), task.device)[0])
        rates.append(matmul_rate(task))
        spent += seconds[-1]
    return {
        "task": asdict(task),
        "seconds": seconds,
        "first_seconds": first,
        "matmul_flops": max(rates),
        "model_mib": before / MIB,
        "peak_mib": peak_bytes(task.device) / MIB,
        "grid": grid.astype(float).tolist(),
    }


if __name__ == "__main__":
    print(json.dumps(measure(tyro.cli(Task))))
