"""Computes the copying score of every head; see `copying_scores_result` for the formula and the cost."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.causal_trace_result import Step
from mi_core.analyses.circuit_cost import seconds_for
from mi_core.analyses.circuit_gains import Gain, final_gain
from mi_core.analyses.circuit_vocabulary import CHUNK, embeddings, unembeddings
from mi_core.analyses.circuit_weights import (
    LayerCircuits,
    layer_circuits,
    probe_run,
    weights_check,
    worst,
)
from mi_core.analyses.copying_scores_result import CopyingScoresInputs, CopyingScoresResult
from mi_core.errors import Cancelled
from mi_core.model.model import LoadedModel
from mi_core.provenance import Provenance

OnCopyingStep = Callable[[Step[CopyingScoresResult]], None]
EXACT = 1e-8  # relative rounding of sums over the vocabulary in float64


def copying_scores(
    model: LoadedModel, inputs: CopyingScoresInputs | None = None, *, on_step: OnCopyingStep | None = None
) -> CopyingScoresResult:
    """The copying score of every head.

    Args:
        model: a loaded model.
        inputs: nothing to choose.
        on_step: told of progress, with the layers done so far; may raise `Cancelled` to stop.

    Returns:
        The scores; after `Cancelled`, those of the layers done until then.

    Raises:
        ModelError: the weights cannot be read as circuits (see `circuit_weights`).
    """
    work = _Work(model, inputs or CopyingScoresInputs(), on_step)
    try:
        work.run()
    except Cancelled:
        return work.result(cancelled=True)
    return work.result()


def copying_seconds(model: LoadedModel) -> float:
    """Expected duration, from the number of operations and this device's measured speed."""
    return seconds_for(copying_flops(model), model.device, torch.float64)


def copying_flops(model: LoadedModel) -> float:
    """Floating-point operations: W_U W_E, two products and the eigenvalues of every head, and the check."""
    dims = model.dims
    width = dims.n_heads * dims.d_head
    per_layer = 2.0 * dims.d_model * width * (dims.d_model + dims.d_head) + 25.0 * width * dims.d_head**2
    vocabulary = 2.0 * dims.d_vocab * dims.d_model * (dims.d_model + 2 * dims.d_head)
    return vocabulary + dims.n_layers * per_layer


@dataclass(slots=True)
class _Work:
    """The scores so far."""

    model: LoadedModel
    inputs: CopyingScoresInputs
    on_step: OnCopyingStep | None
    started: float = field(default_factory=time.perf_counter)
    scores: list[np.ndarray] = field(default_factory=list)
    totals: list[np.ndarray] = field(default_factory=list)
    errors: list[dict[str, float]] = field(default_factory=list)
    checks: tuple[Check, ...] = ()
    done: int = 0

    def run(self) -> None:
        """All layers, then the check; may raise Cancelled."""
        seen, gain = probe_run(self.model), final_gain(self.model)
        through = self._through_vocabulary(gain)
        strongest: tuple[float, int, int, LayerCircuits] | None = None
        for layer in range(self.model.dims.n_layers):
            circuits = layer_circuits(self.model, layer, seen)
            values = eigenvalues(circuits, through)
            total = np.abs(values).sum(-1)
            nothing = np.full_like(total, np.nan)
            self.scores.append(np.divide(np.real(values).sum(-1), total, nothing, where=total > 0))
            self.totals.append(total)
            self.errors.append(dict(circuits.errors))
            head = int(total.argmax())
            if strongest is None or total[head] > strongest[0]:
                strongest = float(total[head]), layer, head, circuits
            self._report(f"layer {layer + 1} of {self.model.dims.n_layers}")
        if strongest is not None:
            self.checks = tuple(self._trace_check(gain, *strongest))

    @property
    def _steps(self) -> int:
        return -(-self.model.dims.d_vocab // CHUNK) + self.model.dims.n_layers

    def _report(self, text: str) -> None:
        self.done += 1
        if self.on_step is None:
            return
        left = (time.perf_counter() - self.started) / self.done * (self._steps - self.done)
        partial = self.result() if self.scores else None
        self.on_step(Step(self.done, self._steps, left, partial, text))

    def _through_vocabulary(self, gain: Gain) -> Float[Tensor, "d_model d_model"]:
        """F W_U W_E: from the stream to logits and back to embeddings."""
        d_model = self.model.dims.d_model
        product = torch.zeros(d_model, d_model, dtype=torch.float64, device=gain.vector.device)
        for columns, rows in zip(unembeddings(self.model), embeddings(self.model), strict=True):
            product += (columns @ rows.to(columns.device)).to(product.device)
            self._report("vocabulary")
        return gain.before(product)

    def _trace_check(
        self, gain: Gain, _total: float, layer: int, head: int, circuits: LayerCircuits
    ) -> Iterator[Check]:
        """The eigenvalues add up to what every token adds to its own logit, summed over the vocabulary."""
        a, b = circuits.value[head], gain.after(circuits.output[head].to(gain.vector.device))
        own = 0.0
        for columns, rows in zip(unembeddings(self.model), embeddings(self.model), strict=True):
            read, written = rows @ a.to(rows.device), b.to(columns.device) @ columns
            own += float((read.to(written.device).T * written).sum())
        total = float(self.totals[layer][head])
        gap = abs(own - float(self.scores[layer][head]) * total) / total if total > 0 else 0.0
        yield Check(
            "eigenvalues add up to the logits that tokens give themselves",
            gap <= EXACT,
            f"L{layer}H{head}: {own:.6g} summed over all tokens; relative difference {gap:.1e}.",
        )

    def result(self, *, cancelled: bool = False) -> CopyingScoresResult:
        """The scores so far; NaN for layers that were not reached."""
        shape = (self.model.dims.n_layers, self.model.dims.n_heads)
        scores, totals = np.full(shape, np.nan), np.full(shape, np.nan)
        if self.scores:
            scores[: len(self.scores)], totals[: len(self.totals)] = self.scores, self.totals
        checks = (weights_check(worst(iter(self.errors))),) if self.errors else ()
        return CopyingScoresResult(
            inputs=self.inputs,
            provenance=Provenance.of(self.model),
            scores=scores,
            totals=totals,
            warnings=tuple(_warnings(scores, totals, len(self.scores))),
            checks=(*self.checks, *checks),
            seconds=time.perf_counter() - self.started,
            cancelled=cancelled,
        )


def eigenvalues(circuits: LayerCircuits, through: Float[Tensor, "d_model d_model"]) -> np.ndarray:
    """Nonzero eigenvalues of every head's full OV circuit, complex [head, d_head].

    Args:
        circuits: one layer.
        through: F W_U W_E.
    """
    device = circuits.output.device
    small = circuits.output @ through.to(device) @ circuits.value
    return np.linalg.eigvals(small.cpu().numpy()).astype(np.complex128)


def _warnings(scores: np.ndarray, totals: np.ndarray, n_done: int) -> Iterator[str]:
    silent = [f"L{layer}H{head}" for layer, head in np.argwhere(totals == 0).tolist()]
    if silent:
        yield f"The OV weights of {', '.join(silent[:10])} are zero: they have no score."
    if n_done < len(scores):
        yield f"It was stopped after {n_done} of {len(scores)} layers."
