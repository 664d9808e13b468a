"""What a head does with its attention, as numbers: one per head, means over the queries of a prompt.

With A[q, k] the weight of query q on key k (0 for k > q) and t the tokens:

    entropy         - sum over k of A ln A                       nats; 0 ln 0 = 0
    distance        sum over k of A (q - k)                      tokens
    previous_token  A[q, q - 1]                                  share
    duplicate_token sum of A over k < q with t_k = t_q           share; queries that have such a key
    induction       sum of A over k < q with t_(k-1) = t_q       share; queries that have such a key
    first_token     A[q, 0]                                      share

Means leave out query 0, which can only read itself. With `mask_first` key 0 is left out of every number but
its own, and the rest is not renormalised: a head that rests on the first token then has small numbers, not
blown-up ones. A mean over no query at all is NaN. Induction and duplicate-token heads: Olsson et al. 2022,
Wang et al. 2022.

Cost: a few passes over the pattern, `QUERY_BLOCK` queries at a time.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

ROW_METRICS = ("entropy", "distance", "previous_token", "duplicate_token", "induction", "first_token")

QUERY_BLOCK = 256
"""Queries that are looked at together: a 2,000-token pattern needs no second copy of itself."""


def row_metrics(
    pattern: Float[Tensor, "head query key"],
    tokens: Int[Tensor, " key"],
    first_query: int = 0,
    *,
    mask_first: bool = False,
) -> dict[str, Float[Tensor, "head query"]]:
    """All metrics for some consecutive queries.

    Args:
        pattern: rows of attention weights, over all keys.
        tokens: id of every key.
        first_query: position of the first row.
        mask_first: leave key 0 out.

    Returns:
        Name -> one number per head and query; NaN where the query has no key that the metric is about.
    """
    weights = pattern.to(torch.promote_types(pattern.dtype, torch.float32))
    start, n_keys = int(mask_first), pattern.shape[-1]
    keys = torch.arange(n_keys, device=pattern.device)
    queries = first_query + torch.arange(pattern.shape[1], device=pattern.device)
    earlier = (keys < queries[:, None]) & (keys >= start)
    same = tokens[queries][:, None] == tokens
    after_same = torch.zeros_like(same)
    after_same[:, 1:] = same[:, :-1]
    kept = weights[..., start:]
    return {
        "entropy": torch.special.entr(kept).sum(-1),
        "distance": kept.sum(-1) * queries - kept @ keys[start:].to(weights.dtype),
        "previous_token": _share(weights, earlier & (keys == queries[:, None] - 1)),
        "duplicate_token": _share(weights, earlier & same),
        "induction": _share(weights, earlier & after_same),
        "first_token": weights[..., 0],
    }


def _share(weights: Tensor, targets: Tensor) -> Tensor:
    """Weight on the target keys of each query; NaN for a query without one."""
    shares = (weights * targets).sum(-1)
    return shares.masked_fill(~targets.any(-1), torch.nan)


def head_metrics(
    pattern: Float[Tensor, "head query key"], tokens: Int[Tensor, " key"], *, mask_first: bool = False
) -> Float[Tensor, "metric head"]:
    """Means of `row_metrics` over all queries but the first, in the order of `ROW_METRICS`.

    Args:
        pattern: the whole square of one layer.
        tokens: id of every token.
        mask_first: leave key 0 out.

    Returns:
        float64; NaN where no query counts.
    """
    sums = torch.zeros(len(ROW_METRICS), pattern.shape[0], dtype=torch.float64, device=pattern.device)
    counts = torch.zeros_like(sums)
    for first in range(1, pattern.shape[1], QUERY_BLOCK):
        block = pattern[:, first : min(first + QUERY_BLOCK, pattern.shape[1])]
        rows = row_metrics(block, tokens, first, mask_first=mask_first)
        values = torch.stack([rows[name] for name in ROW_METRICS]).double()
        sums += values.nansum(-1)
        counts += (~values.isnan()).sum(-1)
    return torch.where(counts > 0, sums / counts, torch.nan)
