"""How a model represents the number of characters since the line began: a curve of means, layer by layer.

Texts are wrapped at every width (`character_helix_lines`); every token has a character count. For each layer

    m[c] = mean over all tokens with count c of the residual stream at the token

and the row of points m[0], m[1], ... is described by its principal components (`character_helix_geometry`).
Gurnee et al. 2025, "When Models Manipulate Manifolds: The Geometry of a Counting Task" (Transformer
Circuits), found that Claude 3.5 Haiku keeps this count on a curve in about six dimensions that winds like a
helix, so that the cosine of two counts rings: it falls below 0 and rises again with their distance.

Control: the same sums with the counts shuffled among all tokens (seeded). It has the same n per count and no
counting in it, so what it shows is the noise of means over so few tokens.

Cost: one forward pass over every wrapped piece, which captures all layers at once. Memory does not grow
with the texts: 16 bytes per layer, count and dimension (two float64 sums). Then two eigendecompositions of a
matrix count x count per layer.
"""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mi_core.analyses.causal_trace_result import Step
from mi_core.analyses.character_helix_checks import helix_checks, helix_warnings
from mi_core.analyses.character_helix_geometry import Geometry, geometry
from mi_core.analyses.character_helix_inputs import CharacterHelixInputs
from mi_core.analyses.character_helix_lines import Piece
from mi_core.analyses.character_helix_plan import helix_pieces, shuffled_counts, state_bytes
from mi_core.analyses.character_helix_result import CharacterHelixResult
from mi_core.analyses.neuron_state import state_device
from mi_core.analyses.neuron_texts import context_of
from mi_core.engine import run
from mi_core.errors import Cancelled, ModelError
from mi_core.model.model import LoadedModel
from mi_core.provenance import Provenance

OnHelixStep = Callable[[Step[CharacterHelixResult]], None]

SECONDS_BETWEEN_PARTIALS = 2.0


def character_helix(
    model: LoadedModel, inputs: CharacterHelixInputs, *, on_step: OnHelixStep | None = None
) -> CharacterHelixResult:
    """Average the residual stream by characters since the line's start; the module docstring has the method.

    Args:
        model: a loaded model.
        inputs: texts, widths, what is kept.
        on_step: told of progress after every pass, now and then with the result so far; may raise
            `Cancelled` to stop.

    Returns:
        The shape of the means in every layer; after `Cancelled`, over the texts read until then.

    Raises:
        SiteMissing: the model lacks the site.
        InputError: too few tokens per character count, or sums that would not fit (`MAX_STATE_BYTES`).
        ModelError: the residual stream is not finite.
    """
    for layer in range(model.dims.n_layers):
        model.structure.require(inputs.site, layer)
    made, left_out = helix_pieces(model.tokenizer, inputs, context_of(model))
    state_bytes(model.dims, inputs)
    work = _Helix(model, inputs, made, left_out)
    for piece in made:
        try:
            work.report(on_step)
        except Cancelled:
            return work.result(cancelled=True)
        work.add(piece)
    with contextlib.suppress(Cancelled):  # everything is done already
        work.report(on_step)
    return work.result()


@dataclass(slots=True)
class _Sums:
    """Sums of the residual stream by count: the counts' own, and the shuffled ones."""

    layers: dict[int, Tensor] = field(default_factory=dict)
    n: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    def means(self, layer: int, kept: np.ndarray) -> np.ndarray:
        """Means of one layer at some counts."""
        return self.layers[layer].cpu().numpy()[kept] / self.n[kept, None]


@dataclass(slots=True)
class _Helix:
    """A run under way."""

    model: LoadedModel
    inputs: CharacterHelixInputs
    pieces: list[Piece]
    left_out: int
    started: float = field(default_factory=time.perf_counter)
    drawn: float = 0.0
    done: int = 0
    tokens: int = 0
    own: _Sums = field(default_factory=_Sums)
    control: _Sums = field(default_factory=_Sums)
    dealt: list[np.ndarray] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.dealt = shuffled_counts(self.pieces, self.inputs.max_count, self.inputs.seed)
        self.own.n = np.zeros(self.inputs.max_count + 1, np.int64)
        self.control.n = np.zeros(self.inputs.max_count + 1, np.int64)

    def add(self, piece: Piece) -> None:
        """Run one piece and add its tokens to the sums of all layers."""
        counts, size = np.array(piece.counts), self.inputs.max_count + 1
        there = (counts >= 0) & (counts < size)
        at = torch.from_numpy(np.flatnonzero(there))
        labels = ((self.own, counts[there]), (self.control, self.dealt[self.done][there]))

        def keep(place: tuple[str, int | None], value: Tensor) -> None:
            device, layer = state_device(value.device), place[1] or 0
            rows = value[0].to(device).index_select(0, at.to(device)).double()
            for sums, label in labels:
                if layer not in sums.layers:
                    sums.layers[layer] = rows.new_zeros(size, rows.shape[-1])
                sums.layers[layer].index_add_(0, torch.from_numpy(label).to(device), rows)

        run(self.model, torch.tensor([piece.ids]), capture=[self.inputs.site], reduce=keep, last=1)
        for sums, label in labels:
            sums.n += np.bincount(label, minlength=size)
        self.done += 1
        self.tokens += len(piece.ids)

    def report(self, on_step: OnHelixStep | None) -> None:
        """Tell the caller; may raise Cancelled."""
        if on_step is None:
            return
        now, total = time.perf_counter(), sum(len(piece.ids) for piece in self.pieces)
        left = (now - self.started) / self.tokens * (total - self.tokens) if self.tokens else None
        partial = None
        if self.ready and self.tokens < total and now - self.drawn > SECONDS_BETWEEN_PARTIALS:
            partial, self.drawn = self.result(partial=True), time.perf_counter()
        text = f"piece {self.done:,} of {len(self.pieces):,}"
        on_step(Step(self.tokens, total, left, partial, text))

    @property
    def ready(self) -> bool:
        """Whether enough counts have enough tokens."""
        return bool(self.kept.sum() >= 3)

    @property
    def kept(self) -> np.ndarray:
        """Counts that are reported; the control too must have a token at each."""
        return (self.own.n >= self.inputs.n_min) & (self.control.n > 0)

    def result(self, *, cancelled: bool = False, partial: bool = False) -> CharacterHelixResult:
        """The shape of what has been summed so far."""
        if not self.ready:
            raise Cancelled  # stopped before anything could be said
        kept, layers = np.flatnonzero(self.kept), range(self.model.dims.n_layers)
        own = [self._shape(self.own, layer, kept) for layer in layers]
        control = [self._shape(self.control, layer, kept) for layer in layers]
        result = CharacterHelixResult(
            inputs=self.inputs,
            provenance=Provenance.of(self.model),
            n_layers=self.model.dims.n_layers,
            counts=kept.astype(np.int64),
            n=self.own.n[kept],
            **_stacked(own),
            control_explained_variance=np.stack([one.shares for one in control]),
            control_total_variance=np.array([one.total for one in control]),
            control_dimensions=np.array([one.dimensions for one in control]),
            control_ringing=np.array([one.ringing for one in control]),
            passages=len({piece.passage for piece in self.pieces[: self.done]}),
            tokens=self.tokens,
            counted=int(self.own.n.sum()),
            seconds=time.perf_counter() - self.started,
            cancelled=cancelled,
        )
        if partial:
            return result
        checks = helix_checks(result, [*own, *control], self.pieces, self.done, (self.own.n, self.control.n))
        warnings = helix_warnings(result, self.pieces, self.done, self.left_out)
        return replace(result, warnings=warnings, checks=checks)

    def _shape(self, sums: _Sums, layer: int, kept: np.ndarray) -> Geometry:
        means = sums.means(layer, kept)
        if not np.isfinite(means).all():
            raise ModelError(
                f"The residual stream of layer {layer} holds numbers that are not finite",
                kind="unsupported",
                fix="Load the model in float32",
            )
        return geometry(means, kept, self.inputs.components)


def _stacked(shapes: list[Geometry]) -> dict[str, Any]:
    return {
        "explained_variance": np.stack([one.shares for one in shapes]),
        "total_variance": np.array([one.total for one in shapes]),
        "projections": np.stack([one.projections for one in shapes]),
        "cosine_similarity": np.stack([one.cosine for one in shapes]).astype(np.float32),
        "uncentred_cosine": np.array([one.uncentred for one in shapes]),
        "dimensions": np.array([one.dimensions for one in shapes]),
        "ringing": np.array([one.ringing for one in shapes]),
    }
