"""One prompt's attention as it is needed: per layer the window of the pattern, and numbers of all its rows.

A prompt that fits the window is observed, so the pass is shared with all other pages. Of a longer one every
pattern is reduced inside the pass to its window and its numbers: nothing of size query * key * layer is ever
kept, only heads * window^2 per layer.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mi_core.analyses.attention_metrics import QUERY_BLOCK, head_metrics
from mi_core.analyses.attention_weighing import moved_norms
from mi_core.engine import observe, run
from mi_core.engine.place import Place
from mi_core.model.model import LoadedModel
from mi_core.model.weights import weight

OnLayer = Callable[[int], None]
"""Told after each layer; may raise Cancelled."""


@dataclass(frozen=True, slots=True, eq=False)
class LayerLook:
    """The pattern of one layer, reduced.

    Attributes:
        weights: [head query key] the window's square of the pattern.
        outside: [head query] of the window's queries, the weight on keys before the window.
        metrics: [metric head] means over all queries.
        masked_metrics: the same without key 0.
        norms: [head key] length of v W_O of the window's keys; None unless asked for.
        norms_outside: [head query] sum of weight times that length over the keys before the window, or None.
        row_error: largest distance of a row's sum from 1, over all queries.
        future: largest weight on a later token, over all queries.
    """

    weights: Float[Tensor, "head query key"]
    outside: Float[Tensor, "head query"]
    metrics: Float[Tensor, "metric head"]
    masked_metrics: Float[Tensor, "metric head"]
    norms: Float[Tensor, "head key"] | None
    norms_outside: Float[Tensor, "head query"] | None
    row_error: float
    future: float


@dataclass(frozen=True, slots=True, eq=False)
class Looked:
    """One prompt.

    Attributes:
        layers: one per layer.
        values: [key kv_head d_head] per layer, of the window's keys.
        z: [query head d_head] per layer, of the window's queries and, last, of the last position.
        final: [query d_model] the last residual at the same places.
    """

    layers: list[LayerLook]
    values: list[Float[Tensor, "key kv_head d_head"]]
    z: list[Float[Tensor, "query head d_head"]]
    final: Float[Tensor, "query d_model"]


def look(
    model: LoadedModel,
    token_ids: Sequence[int],
    window: tuple[int, int],
    *,
    norms: bool,
    on_layer: OnLayer,
) -> Looked:
    """Run (or recall) a prompt and reduce its attention.

    Args:
        model: the loaded model.
        token_ids: the whole prompt.
        window: first position and one past the last.
        norms: whether the lengths of v W_O are wanted.
        on_layer: told after each layer.

    Raises:
        SiteMissing: the model's attention cannot be looked into.
    """
    whole = window == (0, len(token_ids))
    return (_observed if whole else _reduced)(model, token_ids, window, norms, on_layer)


def _observed(
    model: LoadedModel, token_ids: Sequence[int], window: tuple[int, int], norms: bool, on_layer: OnLayer
) -> Looked:
    seen = observe(model, token_ids, ["pattern", "v", "z", "resid_post"])
    reducer, layers = Reducer(model, token_ids, window, norms), range(model.dims.n_layers)
    looks = []
    for layer in layers:
        looks.append(reducer.pattern(layer, seen["pattern", layer], seen["v", layer]))
        on_layer(layer)
    return Looked(
        looks,
        [seen["v", layer] for layer in layers],
        [_and_last(seen["z", layer], window) for layer in layers],
        _and_last(seen["resid_post", layers[-1]], window),
    )


def _reduced(
    model: LoadedModel, token_ids: Sequence[int], window: tuple[int, int], norms: bool, on_layer: OnLayer
) -> Looked:
    reducer, last = Reducer(model, token_ids, window, norms), model.dims.n_layers - 1
    held: dict[int, Tensor] = {}

    def keep(place: Place, value: Tensor) -> object:
        name, layer = place[0], place[1] or 0  # every site asked for below has a layer
        if name == "v":  # a layer's values are met before its pattern
            held[layer] = value[0]
            return value[0, window[0] : window[1]].clone()
        if name == "pattern":
            reduced = reducer.pattern(layer, value[0], held.pop(layer))
            on_layer(layer)
            return reduced
        return _and_last(value[0], window)

    tokens = torch.tensor([list(token_ids)], dtype=torch.long)
    done = run(model, tokens, capture=["v", "pattern", "z", ("resid_post", last)], last=1, reduce=keep)
    layers = range(model.dims.n_layers)
    return Looked(
        [done["pattern", layer] for layer in layers],
        [done["v", layer] for layer in layers],
        [done["z", layer] for layer in layers],
        done["resid_post", last],
    )


def _and_last(value: Tensor, window: tuple[int, int]) -> Tensor:
    """The window's positions and, behind them, the last position of the prompt."""
    return torch.cat([value[window[0] : window[1]], value[-1:]])


@dataclass(frozen=True, slots=True)
class Reducer:
    """Makes a `LayerLook` of a layer's pattern.

    Attributes:
        model: the loaded model.
        token_ids: the whole prompt.
        window: first position and one past the last.
        norms: whether the lengths of v W_O are wanted.
    """

    model: LoadedModel
    token_ids: Sequence[int]
    window: tuple[int, int]
    norms: bool

    def pattern(
        self,
        layer: int,
        pattern: Float[Tensor, "head all_queries all_keys"],
        values: Float[Tensor, "all_keys kv_head d_head"],
    ) -> LayerLook:
        """Reduce one layer."""
        start, end = self.window
        tokens = torch.tensor(list(self.token_ids), device=pattern.device)
        rows = pattern[:, start:end].to(torch.promote_types(pattern.dtype, torch.float32))
        norms = norms_outside = None
        if self.norms:
            all_norms = moved_norms(values, weight(self.model.structure, "W_O", layer).to(values.device))
            norms = all_norms[:, start:end].clone()
            norms_outside = torch.einsum("hqk,hk->hq", rows[..., :start], all_norms[:, :start].to(rows.dtype))
        metrics, masked_metrics = head_metrics(pattern, tokens)
        return LayerLook(
            weights=rows[..., start:end].clone(),
            outside=rows[..., :start].sum(-1),
            metrics=metrics,
            masked_metrics=masked_metrics,
            norms=norms,
            norms_outside=norms_outside,
            **_soundness(pattern),
        )


def _soundness(pattern: Float[Tensor, "head query key"]) -> dict[str, float]:
    """How far rows are from summing to 1, and from reading nothing that comes later."""
    row_error = future = 0.0
    keys = torch.arange(pattern.shape[-1], device=pattern.device)
    for first in range(0, pattern.shape[1], QUERY_BLOCK):
        block = pattern[:, first : first + QUERY_BLOCK]
        total = block.sum(-1, dtype=torch.promote_types(block.dtype, torch.float32))
        later = keys > first + torch.arange(block.shape[1], device=pattern.device)[:, None]
        row_error = max(row_error, float((total - 1).abs().max()))
        future = max(future, float((block * later).max()))
    return {"row_error": row_error, "future": future}
