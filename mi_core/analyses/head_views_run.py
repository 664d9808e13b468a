"""Reads one head's OV or QK circuit through the vocabulary; see `head_views_result` for the formula.

Cost: two QR decompositions of [d_model d_head], one SVD of [d_head d_head] and 4 * d_vocab * d_model *
directions floating-point operations; the weights of one layer in float64 are held meanwhile. No prompt is
needed; the only forward pass is that of six tokens on which the weights are compared with the model.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.causal_trace_result import Step
from mi_core.analyses.circuit_algebra import frobenius, low_rank_svd
from mi_core.analyses.circuit_vocabulary import VocabularyWatch, read_embedding, read_unembedding
from mi_core.analyses.circuit_weights import LayerCircuits, layer_circuits, weights_check
from mi_core.analyses.head_views_result import HeadViewsInputs, HeadViewsResult
from mi_core.errors import Cancelled, InputError
from mi_core.model.model import LoadedModel
from mi_core.provenance import Provenance
from mi_core.tokens import visible_token

OnHeadViewsStep = Callable[[Step[HeadViewsResult]], None]

NEGLIGIBLE = 1e-6
"""Directions weaker than this share of the strongest are rounding, not the head's."""
ALMOST_EQUAL = 0.01
"""Singular values closer than this have no directions of their own, only a plane in common."""
EXACT = 1e-9  # relative rounding of the float64 identities below


def head_views(
    model: LoadedModel, inputs: HeadViewsInputs, *, on_step: OnHeadViewsStep | None = None
) -> HeadViewsResult:
    """The strongest directions of a head's circuit, read through the vocabulary.

    Args:
        model: a loaded model.
        inputs: which head and circuit.
        on_step: told of progress over the vocabulary; may raise `Cancelled` to stop.

    Returns:
        The directions; after `Cancelled`, only the singular values.

    Raises:
        InputError: the model has no such layer or head.
        ModelError: the weights cannot be read as circuits (see `circuit_weights`).
    """
    started = time.perf_counter()
    _require_head(model, inputs)
    layer = layer_circuits(model, inputs.layer)
    factors = circuit_factors(layer, inputs)
    u, s, v = low_rank_svd(*factors)
    kept = min(inputs.directions, int((s > NEGLIGIBLE * s[0]).sum()) if s[0] > 0 else 0)
    directions = _Directions(factors, u[:, :kept], s, v[:, :kept])
    watch = VocabularyWatch(2 * model.dims.d_vocab, started, on_step)
    try:
        readings = _readings(model, inputs, directions, watch) if kept else None
    except Cancelled:
        return _result(model, inputs, layer, directions, None, started, cancelled=True)
    return _result(model, inputs, layer, directions, readings, started)


def circuit_factors(
    layer: LayerCircuits, inputs: HeadViewsInputs
) -> tuple[Float[Tensor, "d_model d_head"], Float[Tensor, "d_head d_model"]]:
    """(A, B) with A B = the head's OV or QK matrix, on the CPU."""
    if inputs.circuit == "OV":
        return layer.value[inputs.head].cpu(), layer.output[inputs.head].cpu()
    return layer.query[inputs.head].cpu(), layer.key[inputs.head].T.cpu()


@dataclass(frozen=True, slots=True, eq=False)
class _Directions:
    """A circuit's factors, the directions that are shown, and all singular values."""

    factors: tuple[Tensor, Tensor]
    left: Float[Tensor, "d_model direction"]
    singular_values: Float[Tensor, "rank"]
    right: Float[Tensor, "d_model direction"]


def _require_head(model: LoadedModel, inputs: HeadViewsInputs) -> None:
    for name, count in (("layer", model.dims.n_layers), ("head", model.dims.n_heads)):
        if getattr(inputs, name) >= count:
            raise InputError(
                f"This model has no {name} {getattr(inputs, name)}", why=f"its {name}s are 0 to {count - 1}"
            )


def _readings(
    model: LoadedModel, inputs: HeadViewsInputs, directions: _Directions, watch: VocabularyWatch
) -> tuple[Tensor, Tensor]:
    """Left and right readings [d_vocab direction], right ones relative to their mean, signs fixed."""
    left = read_embedding(model, directions.left, watch)
    watch.before = model.dims.d_vocab
    read = read_unembedding if inputs.circuit == "OV" else read_embedding
    right = read(model, directions.right, watch)
    right = right - right.mean(0)
    largest = right.gather(0, right.abs().argmax(0, keepdim=True))
    signs = torch.where(largest < 0, -1.0, 1.0)
    return left * signs, right * signs


def _tops(readings: Tensor, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Ids and readings [direction end top] of the most positive and the most negative tokens."""
    k = min(k, len(readings))
    high, low = readings.topk(k, dim=0), readings.topk(k, dim=0, largest=False)
    ids = torch.stack([high.indices.T, low.indices.T], 1)
    values = torch.stack([high.values.T, low.values.T], 1)
    return ids.numpy().astype(np.int64), values.numpy()


def _result(
    model: LoadedModel,
    inputs: HeadViewsInputs,
    layer: LayerCircuits,
    directions: _Directions,
    readings: tuple[Tensor, Tensor] | None,
    started: float,
    *,
    cancelled: bool = False,
) -> HeadViewsResult:
    empty = np.zeros((0, 2, 0), np.int64), np.zeros((0, 2, 0))
    left, right = (empty, empty) if readings is None else (_tops(side, inputs.k) for side in readings)
    ids = sorted({*left[0].ravel().tolist(), *right[0].ravel().tolist()})
    norm = frobenius(*directions.factors)
    return HeadViewsResult(
        inputs=inputs,
        provenance=Provenance.of(model),
        n_layers=model.dims.n_layers,
        n_heads=model.dims.n_heads,
        kv_head=inputs.head // (model.dims.n_heads // model.dims.n_kv_heads),
        frobenius=float(norm),
        singular_values=directions.singular_values.numpy(),
        left_top_ids=left[0],
        left_top_values=left[1],
        right_top_ids=right[0],
        right_top_values=right[1],
        vocabulary={token: _visible(model, token) for token in ids},
        warnings=tuple(_warnings(inputs, directions, cancelled=cancelled)),
        checks=(*_checks(directions, float(norm)), weights_check(layer.errors)),
        seconds=time.perf_counter() - started,
        cancelled=cancelled,
    )


def _visible(model: LoadedModel, token: int) -> str:
    if model.tokenizer is None:
        return f"\u27e8id {token}\u27e9"
    return visible_token(model.tokenizer, token)


def _checks(directions: _Directions, norm: float) -> Iterator[Check]:
    """Two identities of a singular value decomposition, computed without it."""
    s = directions.singular_values
    gap = abs(float(s.square().sum().sqrt()) - norm) / max(norm, 1e-300)
    yield Check(
        "squared singular values add up to the squared norm",
        norm == 0 or gap <= EXACT,
        f"Frobenius norm {norm:.6g} from products of the weights; relative difference {gap:.1e}.",
    )
    if directions.left.shape[1]:
        a, b = directions.factors
        carried = directions.left.T @ a @ b
        wanted = s[: len(carried), None] * directions.right.T
        off = float((carried - wanted).abs().max() / s[0])
        yield Check(
            "each left direction goes to its right direction",
            off <= EXACT,
            f"The weights turn u into s v to {off:.1e} of the strongest singular value.",
        )


def _warnings(inputs: HeadViewsInputs, directions: _Directions, *, cancelled: bool) -> Iterator[str]:
    s, shown = directions.singular_values, directions.left.shape[1]
    if cancelled:
        yield "It was stopped before the vocabulary was read: there are only singular values."
        return
    if not shown:
        yield f"This head's {inputs.circuit} weights are zero: it does nothing."
    elif shown < inputs.directions:
        yield f"This head has only {shown} directions; {inputs.directions} were asked for."
    twins = [i for i in range(shown) if i + 1 < len(s) and s[i + 1] > (1 - ALMOST_EQUAL) * s[i]]
    if twins:
        listed = ", ".join(f"{i} and {i + 1}" for i in twins)
        yield (
            f"Directions {listed} are almost equally strong (within {ALMOST_EQUAL:.0%}): any rotation of "
            "them is as good, so read them together, not one by one."
        )
