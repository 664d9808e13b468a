"""Identities that every trace must satisfy, tried on the trace itself and shown with it."""

from collections.abc import Iterator, Mapping

import numpy as np
import torch

from mi_core.analyses.causal_trace_inputs import KIND_LABELS, Kind
from mi_core.analyses.causal_trace_parts import Check, TraceGrid
from mi_core.analyses.causal_trace_prepare import Prepared
from mi_core.analyses.causal_trace_variants import Cell
from mi_core.engine import Variant, sweep

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5, torch.float16: 5e-3, torch.bfloat16: 4e-2}
"""Largest difference of probabilities, or of states relative to their size, that rounding explains."""


def trace_checks(
    prepared: Prepared,
    grids: Mapping[Kind, TraceGrid],
    cells: list[Cell],
    variants: list[Variant],
    method: str,
) -> tuple[Check, ...]:
    """Try all identities that apply.

    Args:
        prepared: the two runs.
        grids: complete.
        cells: the computed cells.
        variants: theirs.
        method: how they were computed.
    """
    return tuple(
        [
            *_before_the_first_difference(prepared),
            *_last_layer(prepared, grids),
            *_no_noise(prepared, grids),
            *_recomputed(prepared, grids, cells, variants, method),
        ]
    )


def _before_the_first_difference(prepared: Prepared) -> Iterator[Check]:
    """Those rows were not computed, trusting the causal mask: look whether the runs' states agree there."""
    first = prepared.shape.first_difference
    if first == 0:
        return
    place = ("resid_post", prepared.shape.n_layers - 1)
    one, other = prepared.source_run[place][:, :first], prepared.base_run[place][:, :first]
    largest = float((one - other).abs().max())
    size = max(1.0, float(one.abs().max()))
    yield Check(
        "before the first difference both runs agree",
        largest <= TOLERANCE[prepared.model.dtype] * size,
        f"{first} positions; their last states differ by at most {largest:.1e} (their size is {size:.1e}), "
        "so patching them changes nothing.",
    )


def _last_layer(prepared: Prepared, grids: Mapping[Kind, TraceGrid]) -> Iterator[Check]:
    """After the last block only the position that predicts the answer is read."""
    grid, last = grids.get("state"), prepared.shape.n_prompt - 1
    if grid is None or prepared.shape.n_tokens > prepared.shape.n_prompt:
        return
    column = grid.samples["probability"][:, -1]
    others = [index for index, position in enumerate(grid.rows) if position != last]
    gaps = [np.abs(column[others] - prepared.base_reading.samples["probability"]).max(initial=0.0)]
    if last in grid.rows:
        gaps.append(np.abs(column[grid.row_of(last)] - prepared.source_reading.samples["probability"]).max())
    yield Check(
        "last layer: everything at the last token, nothing elsewhere",
        bool(max(gaps) <= TOLERANCE[prepared.model.dtype]),
        f"Probabilities differ from that by at most {max(gaps):.1e}.",
    )


def _no_noise(prepared: Prepared, grids: Mapping[Kind, TraceGrid]) -> Iterator[Check]:
    if prepared.noise is None or prepared.noise.scale > 0:
        return
    clean = prepared.clean.mean("probability")
    gap = max(float(np.abs(grid.samples["probability"] - clean).max()) for grid in grids.values())
    yield Check(
        "no noise: every cell equals the clean run",
        gap <= TOLERANCE[prepared.model.dtype],
        f"Probabilities differ by at most {gap:.1e}.",
    )


def _recomputed(
    prepared: Prepared,
    grids: Mapping[Kind, TraceGrid],
    cells: list[Cell],
    variants: list[Variant],
    method: str,
) -> Iterator[Check]:
    """The strongest cell of each kind once more, by whole forward passes that share nothing."""
    chosen = [index for kind in grids if (index := _strongest(prepared, grids[kind], cells)) is not None]
    if not chosen or method == "full":
        return
    again = sweep(
        prepared.model,
        prepared.base,
        [variants[index] for index in chosen],
        read=prepared.reader,
        method="full",
        read_positions=prepared.read_positions,
    )
    gaps = []
    for index, samples in zip(chosen, again.values["probability"], strict=True):
        cell = cells[index]
        gaps.append(
            float(np.abs(grids[cell.kind].samples["probability"][cell.row, cell.layer] - samples).max())
        )
    shown = ", ".join(_name(grids[cells[index].kind], cells[index]) for index in chosen)
    yield Check(
        "the strongest cells by whole forward passes",
        bool(max(gaps) <= TOLERANCE[prepared.model.dtype]),
        f"{shown}: probabilities differ by at most {max(gaps):.1e}.",
    )


def _name(grid: TraceGrid, cell: Cell) -> str:
    return f"{KIND_LABELS[grid.kind]} at layer {cell.layer}, {grid.row_axis} {grid.rows[cell.row]}"


def _strongest(prepared: Prepared, grid: TraceGrid, cells: list[Cell]) -> int | None:
    """Index of the computed cell of a grid that moves the answer's log-probability most.

    Only the lower half of the layers is looked at: above, little is left to compute that could be wrong.
    """
    effect = np.abs(grid.samples["log_probability"].mean(-1) - prepared.base_reading.mean("log_probability"))
    half = (prepared.shape.n_layers + 1) // 2
    own = [index for index, cell in enumerate(cells) if cell.kind == grid.kind and cell.layer < half]
    return max(own, key=lambda index: effect[cells[index].row, cells[index].layer], default=None)
