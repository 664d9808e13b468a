"""Computes composition scores of all pairs of heads; see `composition_result` for the formulas.

No matrix of a pair is made. With OV1 = A1 B1 and R the triangular factor of a QR decomposition (which has the
norm of what it came from), a head is two small matrices:

    writer    W1 = R(A1) B1                    [d_head d_model]     ||W1|| = ||OV1||
    reader    X2 = Wq R(Wk)^T   for Q          [d_model d_head]     ||X2|| = ||QK2||
                   Wk R(Wq)^T   for K
                   A2 R(B2^T)^T for V                               ||X2|| = ||OV2||
    score     ||W1 X2||, with both scaled to length 1 before

so all pairs of two layers are one product of matrices [head*d_head, d_model] and [d_model, head*d_head], of
which blocks of d_head by d_head are squared and summed. Factors are made in float64 and rounded to float32
for the products: that is 1.7 times as fast on a CPU, 60 times on a consumer GPU, and scores then differ by
about 1e-7 (measured; a check repeats the strongest pair in float64, without QR and in another order).

Cost: 2 (heads d_head)^2 d_model floating-point operations per kind and pair of layers. Memory: the writers,
layers * heads * d_head * d_model numbers of four bytes, in the CPU's memory.
"""

import math
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
from mi_core.analyses.circuit_weights import (
    LayerCircuits,
    layer_circuits,
    probe_run,
    weights_check,
    worst,
)
from mi_core.analyses.composition_result import CompositionInputs, CompositionKind, CompositionResult
from mi_core.engine import Observation
from mi_core.errors import Cancelled, InputError
from mi_core.model.model import LoadedModel
from mi_core.provenance import Provenance

OnCompositionStep = Callable[[Step[CompositionResult]], None]

MAX_SCORES = 4_000_000  # 1,000 by 1,000 heads of three kinds: 36 MB as JSON
AGREE = 1e-5
"""Largest difference of a score between float32 products and float64 ones."""
SECONDS_BETWEEN_PARTIALS = 0.5  # a partial result copies all scores


def composition(
    model: LoadedModel, inputs: CompositionInputs | None = None, *, on_step: OnCompositionStep | None = None
) -> CompositionResult:
    """Composition scores between heads.

    Args:
        model: a loaded model.
        inputs: kinds and layers.
        on_step: told of progress after every pair of layers, now and then with the scores so far; may raise
            `Cancelled` to stop.

    Returns:
        The scores; after `Cancelled`, those done until then (NaN for the rest).

    Raises:
        InputError: the model has no such layer, no two layers follow each other, or there are too many heads.
        ModelError: the weights cannot be read as circuits (see `circuit_weights`).
    """
    work = _Work(model, inputs or CompositionInputs(), on_step)
    try:
        work.run()
    except Cancelled:
        return work.result(cancelled=True)
    return work.result()


def composition_layers(
    model: LoadedModel, inputs: CompositionInputs
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(layers of the writers, layers of the readers).

    Raises:
        InputError: see `composition`.
    """
    n_layers, n_heads = model.dims.n_layers, model.dims.n_heads
    written = tuple(range(n_layers - 1)) if inputs.from_layers is None else inputs.from_layers
    reading = tuple(range(1, n_layers)) if inputs.to_layers is None else inputs.to_layers
    for name, layers in (("from layers", written), ("to layers", reading)):
        beyond = [layer for layer in layers if layer >= n_layers]
        if beyond:
            raise InputError(
                f"This model has no layer {beyond[0]} ({name})", why=f"its layers are 0 to {n_layers - 1}"
            )
    if not written or not reading or written[0] >= reading[-1]:
        raise InputError(
            "No head can read what another writes here",
            why="every reading layer must come after some writing layer",
            fix="Choose earlier writers or later readers" if n_layers > 1 else "",
        )
    count = len(inputs.kinds) * len(written) * len(reading) * n_heads**2
    if count > MAX_SCORES:
        raise InputError(
            f"These are {count:,} scores, more than {MAX_SCORES:,}",
            fix="Choose fewer kinds, or layers to write and to read",
        )
    return written, reading


def composition_flops(model: LoadedModel, inputs: CompositionInputs) -> float:
    """Floating-point operations of the products.

    Raises:
        InputError: see `composition`.
    """
    written, reading = composition_layers(model, inputs)
    pairs = sum(one < other for one in written for other in reading)
    width = model.dims.n_heads * model.dims.d_head
    return 2.0 * len(inputs.kinds) * pairs * width**2 * model.dims.d_model


def composition_seconds(model: LoadedModel, inputs: CompositionInputs) -> float:
    """Expected duration, from the number of operations and this device's measured speed."""
    return seconds_for(composition_flops(model, inputs), model.device, torch.float32)


@dataclass(slots=True)
class _Work:
    """The scores so far."""

    model: LoadedModel
    inputs: CompositionInputs
    on_step: OnCompositionStep | None
    started: float = field(default_factory=time.perf_counter)
    written: tuple[int, ...] = ()
    reading: tuple[int, ...] = ()
    scores: np.ndarray = field(default_factory=lambda: np.zeros((0, 0, 0), np.float32))
    errors: list[dict[str, float]] = field(default_factory=list)
    checks: tuple[Check, ...] = ()
    done: int = 0
    drawn: float = 0.0

    def __post_init__(self) -> None:
        """What is asked for exists."""
        self.written, self.reading = composition_layers(self.model, self.inputs)
        n_heads, kinds = self.model.dims.n_heads, len(self.inputs.kinds)
        shape = (kinds, len(self.written) * n_heads, len(self.reading) * n_heads)
        self.scores = np.full(shape, np.nan, np.float32)

    def run(self) -> None:
        """Layer by layer upwards: first what it reads of the writers before, then what it writes."""
        seen, writers = probe_run(self.model), dict[int, Tensor]()
        for layer in range(min(self.written[0], self.reading[0]), self.reading[-1] + 1):
            reads, writes = layer in self.reading and bool(writers), layer in self.written
            if not (reads or writes):
                continue
            circuits = layer_circuits(self.model, layer, seen)
            self.errors.append(dict(circuits.errors))
            if reads:
                self._read(layer, circuits, writers)
            if writes:
                writers[layer] = unit(writer(circuits)).cpu()
        self.checks = tuple(self._check(seen))

    def _read(self, layer: int, circuits: LayerCircuits, writers: dict[int, Tensor]) -> None:
        """The scores of all earlier writers with this layer's heads."""
        readers = [unit(reader(circuits, kind)) for kind in self.inputs.kinds]
        n_heads, column = self.model.dims.n_heads, self.reading.index(layer)
        to = slice(column * n_heads, (column + 1) * n_heads)
        for from_layer, wrote in writers.items():
            row = self.written.index(from_layer)
            at = slice(row * n_heads, (row + 1) * n_heads)
            for kind, reads in enumerate(readers):
                self.scores[kind, at, to] = pair_scores(wrote.to(reads.device), reads).cpu().numpy()
            self._report(f"layer {from_layer} to layer {layer}")

    @property
    def _pairs(self) -> int:
        return sum(one < other for one in self.written for other in self.reading)

    def _report(self, text: str) -> None:
        self.done += 1
        if self.on_step is None:
            return
        now, partial = time.perf_counter(), None
        if now - self.drawn > SECONDS_BETWEEN_PARTIALS:
            partial, self.drawn = self.result(), now
        left = (now - self.started) / self.done * (self._pairs - self.done)
        self.on_step(Step(self.done, self._pairs, left, partial, text))

    def _check(self, seen: Observation) -> Iterator[Check]:
        """The strongest pair of every kind again, by Gram matrices in float64."""
        result, gaps = self.result(), []
        for kind in self.inputs.kinds:
            for (layer1, head1), (layer2, head2), score in result.top(kind, 1):
                first, second = (layer_circuits(self.model, layer, seen) for layer in (layer1, layer2))
                gaps.append((abs(score - gram_score(first, head1, second, head2, kind)),
                             f"{kind}: L{layer1}H{head1} to L{layer2}H{head2}"))  # fmt: skip
        if gaps:
            largest = max(gap for gap, _ in gaps)
            yield Check(
                "the strongest pairs in float64, by another formula",
                largest <= AGREE,
                f"{'; '.join(name for _, name in gaps)}; scores differ by at most {largest:.1e}.",
            )

    def result(self, *, cancelled: bool = False) -> CompositionResult:
        """The scores so far."""
        checks = (weights_check(worst(iter(self.errors))),) if self.errors else ()
        return CompositionResult(
            inputs=self.inputs,
            provenance=Provenance.of(self.model),
            n_heads=self.model.dims.n_heads,
            from_layers=self.written,
            to_layers=self.reading,
            scores=self.scores.copy(),
            baseline=1 / math.sqrt(self.model.dims.d_model),
            warnings=self._warnings(),
            checks=(*self.checks, *checks),
            seconds=time.perf_counter() - self.started,
            cancelled=cancelled,
        )

    def _warnings(self) -> tuple[str, ...]:
        if self.done < self._pairs:
            return (f"It was stopped after {self.done} of {self._pairs} pairs of layers.",)
        earlier = np.repeat(self.written, self.model.dims.n_heads)[:, None] < np.repeat(
            self.reading, self.model.dims.n_heads
        )
        nothing = int((np.isnan(self.scores) & earlier).sum())
        if nothing:
            return (f"{nothing} scores do not exist, because the weights of one of their heads are zero.",)
        return ()


def writer(circuits: LayerCircuits) -> Float[Tensor, "head d_head d_model"]:
    """R(A) B of every head: as long as OV, and turned in d_head only."""
    return triangular(circuits.value) @ circuits.output


def reader(circuits: LayerCircuits, kind: CompositionKind) -> Float[Tensor, "head d_model d_head"]:
    """What every head reads by its queries, keys or values."""
    if kind == "Q":
        return circuits.query @ triangular(circuits.key).transpose(-1, -2)
    if kind == "K":
        return circuits.key @ triangular(circuits.query).transpose(-1, -2)
    return circuits.value @ triangular(circuits.output.transpose(-1, -2)).transpose(-1, -2)


def triangular(matrix: Float[Tensor, "head rows columns"]) -> Float[Tensor, "head r columns"]:
    """R of the QR decomposition: ||matrix X|| = ||R X|| for every X."""
    return torch.linalg.qr(matrix, mode="r").R


def unit(matrices: Float[Tensor, "head rows columns"]) -> Float[Tensor, "head rows columns"]:
    """Every head's matrix at length 1, in float32; NaN where it is zero."""
    return (matrices / torch.linalg.matrix_norm(matrices)[:, None, None]).float()


def pair_scores(
    writers: Float[Tensor, "head r d_model"], readers: Float[Tensor, "head2 d_model s"]
) -> Float[Tensor, "head head2"]:
    """||W X|| of all pairs of two layers, from matrices of length 1; NaN where a head's weights are zero."""
    heads, r, _ = writers.shape
    heads2, _, s = readers.shape
    products = writers.flatten(0, 1) @ readers.transpose(0, 1).flatten(1)
    return products.view(heads, r, heads2, s).square_().sum((1, 3)).sqrt()


def gram_score(
    first: LayerCircuits, head1: int, second: LayerCircuits, head2: int, kind: CompositionKind
) -> float:
    """One score without QR, in float64: ||A B C D||^2 = trace((A^T A) (B C) (D D^T) (B C)^T)."""
    a, b = first.value[head1], first.output[head1]
    c, d = {
        "Q": (second.query[head2], second.key[head2].T),
        "K": (second.key[head2], second.query[head2].T),
        "V": (second.value[head2], second.output[head2]),
    }[kind]
    c, d = c.to(b.device), d.to(b.device)
    middle = b @ c
    square = torch.trace(a.T @ a @ middle @ (d @ d.T) @ middle.T)
    own = torch.trace(a.T @ a @ b @ b.T) * torch.trace(c.T @ c @ d @ d.T)
    return float((square / own).clamp_min(0).sqrt())
