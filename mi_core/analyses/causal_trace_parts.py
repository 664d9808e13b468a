"""The parts of a causal trace's result: one run's reading, one kind's grid, checks, cost. CPU numpy."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from mi_core.analyses.causal_trace_inputs import STORED_METRICS, Kind
from mi_core.errors import InputError

TOP = 10  # tokens kept per cell and per run
FLOAT64 = np.dtype(np.float64)


@dataclass(frozen=True, slots=True)
class Check:
    """An identity that the numbers must satisfy, tried on this very result.

    Attributes:
        name: what was checked, a short clause.
        passed: whether it holds.
        detail: the figures, one sentence.
    """

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True, slots=True)
class AnswerTokens:
    """A text whose probability is read: the answer or the distractor.

    Attributes:
        text: the text itself.
        ids: its token ids, in order.
        visible: visible text of each token.
        chosen_by: "user", "clean run" (its top token) or "corrupted run" (its top token).
        joint: whether the tokenizer splits prompt and text together in the same way.
    """

    text: str
    ids: tuple[int, ...]
    visible: tuple[str, ...]
    chosen_by: Literal["user", "clean run", "corrupted run"]
    joint: bool = True

    def __post_init__(self) -> None:
        """Ids and texts belong together."""
        if not self.ids or len(self.ids) != len(self.visible):
            raise ValueError(f"{len(self.ids)} ids but {len(self.visible)} texts")


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """What one run says at the position that predicts the answer.

    Attributes:
        samples: stored metric -> one number per noise sample (one number for a run without noise).
        top_ids: ids of the most probable tokens, by mean probability over samples, most probable first.
        top_probabilities: their mean probabilities.
    """

    samples: Mapping[str, Float[np.ndarray, "sample"]]
    top_ids: Int[np.ndarray, "top"]
    top_probabilities: Float[np.ndarray, "top"]

    def __post_init__(self) -> None:
        """All metrics have the same samples, all tops the same length."""
        lengths = {name: values.shape for name, values in self.samples.items()}
        if len(set(lengths.values())) != 1 or any(len(shape) != 1 for shape in lengths.values()):
            raise ValueError(f"metrics have different sample axes: {lengths}")
        if self.top_ids.shape != self.top_probabilities.shape:
            raise ValueError(f"top ids {self.top_ids.shape} but probabilities {self.top_probabilities.shape}")

    def mean(self, metric: str) -> float:
        """Mean of a stored metric over the samples."""
        return float(self.samples[metric].mean())


@dataclass(frozen=True, slots=True, eq=False)
class TraceGrid:
    """One kind of patch at every row (token position or head) and layer.

    Attributes:
        kind: what was patched.
        row_axis: what `rows` are.
        rows: token positions, or head numbers, one per row of the grid.
        done: whether the cell has been computed (all True unless the trace was cancelled or is under way).
        samples: stored metric -> number per noise sample; NaN where not done.
        top_ids: most probable tokens per cell, -1 where not done.
        top_probabilities: their probabilities (mean over samples), NaN where not done.
    """

    kind: Kind
    row_axis: Literal["position", "head"]
    rows: tuple[int, ...]
    done: Bool[np.ndarray, "row layer"]
    samples: Mapping[str, Float[np.ndarray, "row layer sample"]]
    top_ids: Int[np.ndarray, "row layer top"]
    top_probabilities: Float[np.ndarray, "row layer top"]

    def __post_init__(self) -> None:
        """Shapes agree with each other."""
        if self.done.ndim != 2 or self.done.shape[0] != len(self.rows):
            raise ValueError(f"{self.kind}: {len(self.rows)} rows but done has shape {self.done.shape}")
        lengths = {name: values.shape for name, values in self.samples.items()}
        if len(set(lengths.values())) != 1 or any(s[:2] != self.done.shape for s in lengths.values()):
            raise ValueError(f"{self.kind}: done has shape {self.done.shape}, metrics have {lengths}")
        if self.top_ids.shape != self.top_probabilities.shape or self.top_ids.shape[:2] != self.done.shape:
            raise ValueError(
                f"{self.kind}: done has shape {self.done.shape}, top ids {self.top_ids.shape}, "
                f"top probabilities {self.top_probabilities.shape}"
            )

    def row_of(self, position_or_head: int) -> int:
        """Index of the row that stands for a token position (or a head).

        Raises:
            InputError: it was not traced.
        """
        if position_or_head not in self.rows:
            raise InputError(
                f"{self.row_axis} {position_or_head} was not traced", why=f"the rows are {self.rows}"
            )
        return self.rows.index(position_or_head)


@dataclass(frozen=True, slots=True)
class PlanFigures:
    """The cost of a trace, as the engine's planner gave it.

    Attributes:
        variants: patched runs.
        rows: variants times samples.
        token_layers: tokens times layers that are recomputed.
        token_layers_full: the same with a whole forward pass per cell.
        flops: floating-point operations of the recomputed part.
        seconds: expected duration; None before the model's speed has been measured.
        method: "shared" or "full".
        reason: why that method.
    """

    variants: int
    rows: int
    token_layers: int
    token_layers_full: int
    flops: float
    seconds: float | None
    method: str
    reason: str = ""


def empty_grid(
    kind: Kind,
    rows: tuple[int, ...],
    n_layers: int,
    n_samples: int,
    n_top: int = TOP,
    metrics: tuple[str, ...] = STORED_METRICS,
    dtype: np.dtype = FLOAT64,
) -> TraceGrid:
    """A grid with nothing done yet, to be filled in place by the function that runs the trace."""
    shape = (len(rows), n_layers)
    return TraceGrid(
        kind=kind,
        row_axis="head" if kind == "head" else "position",
        rows=rows,
        done=np.zeros(shape, bool),
        samples={metric: np.full((*shape, n_samples), np.nan, dtype) for metric in metrics},
        top_ids=np.full((*shape, n_top), -1, np.int64),
        top_probabilities=np.full((*shape, n_top), np.nan, dtype),
    )
