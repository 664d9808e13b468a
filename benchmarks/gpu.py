"""The causal-trace benchmark on a CUDA device, after checking that it computes what the CPU computes.

python -m benchmarks.gpu            # prints, writes nothing
python -m benchmarks.gpu --publish  # also writes docs/benchmarks.md and docs/benchmarks/gpu.json
"""

import sys
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
import tyro

from benchmarks import report
from benchmarks.causal_trace import REFERENCE, measure_all
from benchmarks.traces import WAYS, Shape, difference, prompts
from benchmarks.worker import Task
from mi_core.engine import Base, Edit, Variant, build_model, run, sweep
from mi_core.model.model import LoadedModel

SITES = ("resid_pre", "attn_out", "mlp_out", "z", "mlp_post", "pattern")
TOLERANCE = 1e-3  # of the grid's range; float32 on two devices sums in different orders


@dataclass(frozen=True)
class Options:
    """What to run.

    Attributes:
        positions: prompt lengths.
        ways: which of the four ways.
        dtype: "float32" or "bfloat16".
        repeats: timed runs at most, of each way.
        budget: seconds of timed runs at most, of each way.
        publish: write the figures into docs/.
        shape: sizes of the model.
    """

    positions: tuple[int, ...] = (10, 24, 128)
    ways: tuple[str, ...] = tuple(WAYS)
    dtype: str = "float32"
    repeats: int = 7
    budget: float = 30.0
    publish: bool = False
    shape: Shape = field(default_factory=Shape)


def variants(model: LoadedModel, site: str, clean: torch.Tensor) -> list[Variant]:
    """One variant for each layer and position: that activation of the clean run."""
    source = run(model, clean, capture=[(site, None)])
    axis = 2 if site == "pattern" else 1  # [row, head, query, key], else [row, pos, ...]
    return [
        Variant((Edit(site, layer, "set", positions=(t,), value=source[(site, layer)].narrow(axis, t, 1)),))
        for layer in range(model.dims.n_layers)
        for t in range(clean.shape[1])
    ]


def grid(model: LoadedModel, site: str, method: Literal["auto", "full"]) -> np.ndarray:
    """Logit difference of every cell, on the device of the model."""
    clean, corrupted = (tokens.to(model.device) for tokens in prompts(7, model.dims.d_vocab))
    out = sweep(
        model, Base(corrupted), variants(model, site, clean), method=method,
        read=lambda logits: {"difference": difference(logits[:, 0, -1]).float()},
    )  # fmt: skip
    return out.values["difference"]


def check(shape: Shape) -> list[str]:
    """Compare every site's grid on the GPU with the CPU's, and with whole passes on the GPU.

    Returns:
        One Markdown row for each site.

    Raises:
        SystemExit: a difference is larger than the tolerance.
    """
    cpu, cuda = (build_model(shape.build(device, torch.float32)) for device in ("cpu", "cuda"))
    rows, failed = ["| site | GPU against CPU | GPU sweep against whole passes |", "|---|---:|---:|"], []
    for site in SITES:
        reference, shared, full = grid(cpu, site, "auto"), grid(cuda, site, "auto"), grid(cuda, site, "full")
        scale = np.ptp(reference)
        gaps = [float(np.abs(shared - other).max() / scale) for other in (reference, full)]
        rows.append(f"| `{site}` | {gaps[0]:.0e} | {gaps[1]:.0e} |")
        if not scale or not max(gaps) < TOLERANCE:
            failed.append(site)
    if failed:
        rows.append(f"The GPU does not compute what the CPU computes: {', '.join(failed)}.")
        raise SystemExit("\n".join(rows))
    return rows


def main(options: Options) -> None:
    """Check, measure, print, and publish when asked to."""
    if not torch.cuda.is_available():
        print("benchmarks.gpu needs a CUDA device, and torch finds none.", file=sys.stderr)
        raise SystemExit(2)
    where = report.machine("cuda")
    checks = check(Shape(n_layers=4, d_model=256, n_heads=8, d_vocab=5000))
    print("\n".join(checks), flush=True)
    task = Task(
        device="cuda",
        dtype=options.dtype,
        repeats=options.repeats,
        budget=options.budget,
        shape=options.shape,
    )
    runs = measure_all(options.positions, options.ways, task)
    text = report.section(f"Causal trace on a GPU, {options.dtype}", where, runs, REFERENCE)
    text += (
        "\n\n### The same numbers as on the CPU\n\nLargest difference, as a share of the grid's range.\n\n"
    )
    text += "\n".join(checks)
    print(f"\n{text}")
    if options.publish:
        report.publish("gpu", text, {"machine": where, "runs": runs, "checks": checks})


if __name__ == "__main__":
    main(tyro.cli(Options))
