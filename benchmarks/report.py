"""Turns what the workers measured into a table for docs/benchmarks.md, with command, machine and date."""

import importlib.metadata
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch

from benchmarks.traces import Shape, minimal_flops
from benchmarks.worker import Task

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "benchmarks.md"


def run_worker(task: Task) -> dict:
    """Measure `task` in a fresh process; `{"error": ...}` when that fails."""
    pairs = {**asdict(task), **{f"shape.{name}": value for name, value in asdict(task.shape).items()}}
    del pairs["shape"]
    options = [text for name, value in pairs.items() for text in (f"--{name.replace('_', '-')}", str(value))]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.worker", *options],
        cwd=ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1", "WANDB_MODE": "disabled"},
    )  # fmt: skip
    if done.returncode:
        return {"task": asdict(task), "error": done.stderr.strip().splitlines()[-1]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def machine(device: str) -> dict:
    """What the numbers depend on besides the code."""
    cpuinfo = Path("/proc/cpuinfo")
    names = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    cpu = next((line.partition(":")[2].strip() for line in names if line.startswith("model name")), "")
    packages = ("torch", "transformers", "transformer-lens")
    return {
        "cpu": cpu or platform.processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_average": os.getloadavg()[0],
        "gpu": torch.cuda.get_device_name() if device == "cuda" else None,
        "python": platform.python_version(),
        "versions": {name: version(name) for name in packages},
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "command": "python -m " + shlex.join([f"benchmarks.{Path(sys.argv[0]).stem}", *sys.argv[1:]]),
    }


def version(package: str) -> str | None:
    """Installed version, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def table(records: list[dict], reference: str) -> str:
    """Markdown: one row for each way of one prompt length; differences are from the grid of `reference`."""
    done = {record["task"]["way"]: record for record in records if "error" not in record}
    ours = min(done["lantern" if "lantern" in done else reference]["seconds"])
    grids = {way: np.array(record["grid"]) for way, record in done.items()}
    scale = np.ptp(grids[reference])
    lines = [
        "| way | seconds, min | median | repeats | against ours | memory beside the model | difference |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for record in records:
        way = record["task"]["way"]
        if "error" in record:
            lines.append(f"| {way} | not run: {record['error'].replace('|', '/')} | | | | | |")
            continue
        seconds, extra = record["seconds"], max(record["peak_mib"] - record["model_mib"], 0)
        gap = np.abs(grids[way] - grids[reference]).max() / scale
        lines.append(
            f"| {way} | {min(seconds):.3f} | {statistics.median(seconds):.3f} | {len(seconds)} "
            f"| {min(seconds) / ours:.1f}x | {extra:.0f} MiB | {gap:.0e} |"
        )
    return "\n".join(lines)


def rates(record: dict) -> str:
    """One sentence: the share of the machine's matrix rate that the sweep reaches on the least arithmetic."""
    shape = Shape(**record["task"]["shape"])
    least, fastest = minimal_flops(shape, record["task"]["n_positions"]), min(record["seconds"])
    rate, limit = least / fastest, record["matmul_flops"]
    return (
        f"The least arithmetic is {least / 1e9:.1f} GFLOP, so ours runs at {rate / 1e9:.0f} GFLOP/s: "
        f"{100 * rate / limit:.0f} % of the {limit / 1e9:.0f} GFLOP/s of a plain matrix product here."
    )


def heading(title: str, where: dict) -> str:
    """Title, command, date, machine and versions of a benchmark run."""
    processor = where["gpu"] or f"{where['cpu']}, {where['cores']} cores, {where['threads']} threads"
    versions = ", ".join(f"{name} {number}" for name, number in where["versions"].items() if number)
    return (
        f"## {title}\n\n`{where['command']}`  \n{where['date']}; {processor}; "
        f"load average {where['load_average']:.1f} at the start; Python {where['python']}, {versions}"
    )


def rates_of(records: list[dict]) -> list[str]:
    """The sentence of `rates` for our own way, if it ran."""
    return [rates(one) for one in records if one["task"]["way"] == "lantern" and "error" not in one]


def section(
    title: str,
    where: dict,
    runs: dict[int, list[dict]],
    reference: str,
    remark: Callable[[list[dict]], list[str]] | None = None,
) -> str:
    """The Markdown of one benchmark run; `remark` makes the sentences under a table (default: the rates)."""
    parts = [heading(title, where)]
    for n_positions, records in runs.items():
        parts += [f"### {n_positions} tokens", table(records, reference)]
        parts += rates_of(records) if remark is None else remark(records)
    return "\n\n".join(parts)


def publish(name: str, text: str, data: dict) -> None:
    """Replace the section `name` of docs/benchmarks.md and write the raw figures beside it."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    page = PAGE.read_text(encoding="utf-8")
    head, _, rest = page.partition(begin)
    tail = rest.partition(end)[2]
    PAGE.write_text(f"{head.rstrip()}\n\n{begin}\n{text}\n{end}\n{tail}".rstrip() + "\n", encoding="utf-8")
    raw = ROOT / "docs" / "benchmarks" / f"{name}.json"
    raw.parent.mkdir(exist_ok=True)
    raw.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
