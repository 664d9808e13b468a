"""What a head does with its attention, as numbers: one per head, means over the queries of a prompt.

With A[q, k] the weight of query q on key k (0 for k > q) and t the tokens:

    entropy         - sum over k of A ln A                       nats; 0 ln 0 = 0
    distance        sum over k of A (q - k)                      tokens
    previous_token  A[q, q - 1]                                  share
    duplicate_token sum of A over k < q with t_k = t_q           share; queries that have such a key
    induction       sum of A over k < q with t_(k-1) = t_q       share; queries that have such a key
    first_token     A[q, 0]                                      share

Means leave out query 0, which can only read itself. Masked, key 0 is left out of every number but its own,
and the rest is not renormalised: a head that rests on the first token then has small numbers, not blown-up
ones. A mean over no query at all is NaN. Induction heads: Olsson et al. 2022; duplicate-token heads: Wang et
al. 2022.

Cost: a few passes over the pattern, `QUERY_BLOCK` queries at a time.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

ROW_METRICS = ("entropy", "distance", "previous_token", "duplicate_token", "induction", "first_token")

QUERY_BLOCK = 256
"""Queries that are looked at together: a 2,000-token pattern needs no second copy of itself."""


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """All metrics of some consecutive queries; NaN where a query has no key that the metric is about.

    Attributes:
        plain: name -> one number per head and query.
        masked: the same with key 0 left out.
    """

    plain: dict[str, Float[Tensor, "head query"]]
    masked: dict[str, Float[Tensor, "head query"]]


def row_metrics(
    pattern: Float[Tensor, "head query key"], tokens: Int[Tensor, " key"], first_query: int = 0
) -> Rows:
    """All metrics, row by row.

    Args:
        pattern: rows of attention weights, over all keys.
        tokens: id of every key.
        first_query: position of the first row.
    """
    weights = pattern.to(torch.promote_types(pattern.dtype, torch.float32))
    keys = torch.arange(pattern.shape[-1], device=pattern.device)
    queries = first_query + torch.arange(pattern.shape[1], device=pattern.device)
    first = weights[..., 0]  # what a mask takes away
    same = tokens[queries][:, None] == tokens
    after_same = torch.zeros_like(same)
    after_same[:, 1:] = same[:, :-1]
    earlier = keys < queries[:, None]
    before = weights[:, torch.arange(len(queries), device=keys.device), (queries - 1).clamp_min(0)]
    entropy = torch.special.entr(weights).sum(-1)
    distance = weights.sum(-1) * queries - weights @ keys.to(weights.dtype)
    duplicate, induction = same & earlier, after_same & earlier
    on_duplicates, on_induction = _sums(weights, duplicate), _sums(weights, induction)
    plain = {
        "entropy": entropy,
        "distance": distance,
        "previous_token": _only(before, queries >= 1),
        "duplicate_token": _only(on_duplicates, duplicate.any(-1)),
        "induction": _only(on_induction, induction.any(-1)),
        "first_token": first,
    }
    masked = plain | {
        "entropy": entropy - torch.special.entr(first),
        "distance": distance - first * queries,
        "previous_token": _only(before, queries >= 2),
        "duplicate_token": _only(on_duplicates - first * duplicate[:, 0], duplicate[:, 1:].any(-1)),
    }
    return Rows(plain, masked)  # induction never reads key 0: nothing came before it


def _sums(weights: Tensor, targets: Tensor) -> Float[Tensor, "head query"]:
    """Weight on the target keys of each query."""
    return torch.einsum("hqk,qk->hq", weights, targets.to(weights.dtype))


def _only(values: Tensor, counts: Tensor) -> Float[Tensor, "head query"]:
    """NaN for the queries that do not count."""
    return values.masked_fill(~counts, torch.nan)


def head_metrics(
    pattern: Float[Tensor, "head query key"], tokens: Int[Tensor, " key"]
) -> tuple[Float[Tensor, "metric head"], Float[Tensor, "metric head"]]:
    """Means of `row_metrics` over all queries but the first, in the order of `ROW_METRICS`.

    Args:
        pattern: the whole square of one layer.
        tokens: id of every token.

    Returns:
        Plain and with key 0 left out, float64; NaN where no query counts.
    """
    shape = (2, len(ROW_METRICS), pattern.shape[0])
    sums = torch.zeros(shape, dtype=torch.float64)  # on the CPU: some devices have no float64
    counts = torch.zeros_like(sums)
    for first in range(1, pattern.shape[1], QUERY_BLOCK):
        # Keys behind the block's last query have no weight.
        last = min(first + QUERY_BLOCK, pattern.shape[1])
        rows = row_metrics(pattern[:, first:last, :last], tokens[:last], first)
        values = torch.stack(
            [torch.stack([kind[name] for name in ROW_METRICS]) for kind in (rows.plain, rows.masked)]
        ).cpu()
        sums += values.double().nansum(-1)
        counts += (~values.isnan()).sum(-1)
    plain, masked = torch.where(counts > 0, sums / counts, torch.nan)
    return plain, masked
