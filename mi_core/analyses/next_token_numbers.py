"""Log-probabilities, ranks and alternatives from logits, in float64, a block of positions at a time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mi_core.analyses.next_token_result import ALTERNATIVES, RowRole

CHUNK = 1 << 22  # logits that are widened to float64 at a time: 32 MB


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Rows of the next-token table; fields as in `NextTokenResult`."""

    ids: Int[np.ndarray, "row"]
    roles: tuple[RowRole, ...]
    logits: Float[np.ndarray, "row"]
    log_probabilities: Float[np.ndarray, "row"]
    ranks: Int[np.ndarray, "row"]
    entropy: float


@dataclass(frozen=True, slots=True, eq=False)
class Surprises:
    """What every token of the prompt is worth in the prediction before it; the first has none.

    Attributes:
        log_probabilities, ranks, entropies, alternative_ids, alternative_log_probabilities: as in
            `NextTokenResult`.
        worst_sum: largest deviation of a position's probabilities from 1.
    """

    log_probabilities: Float[np.ndarray, "pos"]
    ranks: Int[np.ndarray, "pos"]
    entropies: Float[np.ndarray, "pos"]
    alternative_ids: Int[np.ndarray, "pos alternative"]
    alternative_log_probabilities: Float[np.ndarray, "pos alternative"]
    worst_sum: float


def _double(logits: Float[Tensor, "*rest d_vocab"]) -> Float[Tensor, "*rest d_vocab"]:
    return (logits.cpu() if logits.device.type == "mps" else logits).double()


def _entropy(log_p: Float[Tensor, "*rest d_vocab"]) -> Float[Tensor, "*rest"]:
    """A token of probability 0 adds nothing."""
    return -torch.where(log_p > -torch.inf, log_p.exp() * log_p, 0.0).sum(-1)


def table_at(
    logits: Float[Tensor, " d_vocab"], k: int, temperature: float, named: Mapping[RowRole, int]
) -> Table:
    """The most probable tokens, and the named ones.

    Args:
        logits: at the position.
        k: how many; the whole vocabulary if it is smaller.
        temperature: the logits are divided by it before the softmax.
        named: role -> token id that gets a row in any case.
    """
    exact = _double(logits)
    log_p = (exact / temperature).log_softmax(-1)
    ids = exact.topk(min(k, len(exact))).indices.tolist()
    ids += [token_id for token_id in dict.fromkeys(named.values()) if token_id not in ids]
    role_of: dict[int, RowRole] = {token_id: role for role, token_id in reversed(list(named.items()))}
    index = torch.tensor(ids, device=exact.device)
    own = exact[index]
    return Table(
        np.array(ids, np.int64),
        tuple(role_of.get(token_id, "top") for token_id in ids),
        own.cpu().numpy(),
        log_p[index].cpu().numpy(),
        np.array([int((exact > one).sum()) for one in own], np.int64),
        float(_entropy(log_p)),
    )


def surprises_of(logits: Float[Tensor, "pos d_vocab"], ids: Sequence[int]) -> Surprises:
    """Log-probability and rank of every token in the prediction before it, with what else was likely.

    Args:
        logits: of the whole prompt.
        ids: its tokens.
    """
    n_pos, width = len(ids), min(ALTERNATIVES, logits.shape[-1] - 1)
    found = Surprises(
        np.full(n_pos, np.nan),
        np.full(n_pos, -1, np.int64),
        np.full(n_pos, np.nan),
        np.full((n_pos, ALTERNATIVES), -1, np.int64),
        np.full((n_pos, ALTERNATIVES), np.nan),
        worst_sum=0.0,
    )
    worst = 0.0
    for start in range(0, n_pos, max(1, CHUNK // logits.shape[-1])):
        exact = _double(logits[start : start + max(1, CHUNK // logits.shape[-1])])
        log_p = exact.log_softmax(-1)
        worst = max(worst, float((log_p.exp().sum(-1) - 1).abs().max()))
        wanted = ids[start + 1 : start + 1 + len(exact)]
        _fill(found, exact[: len(wanted)], log_p[: len(wanted)], wanted, start + 1, width)
    return Surprises(
        found.log_probabilities, found.ranks, found.entropies, found.alternative_ids,
        found.alternative_log_probabilities, worst,
    )  # fmt: skip


def _fill(
    found: Surprises,
    exact: Float[Tensor, "part d_vocab"],
    log_p: Float[Tensor, "part d_vocab"],
    wanted: Sequence[int],
    first: int,
    width: int,
) -> None:
    """Write the numbers of consecutive positions, beginning at `first`."""
    if not wanted:
        return
    place, index = slice(first, first + len(wanted)), torch.tensor(wanted, device=exact.device)[:, None]
    found.log_probabilities[place] = log_p.gather(-1, index)[:, 0].cpu().numpy()
    found.ranks[place] = (exact > exact.gather(-1, index)).sum(-1).cpu().numpy()
    found.entropies[place] = _entropy(log_p).cpu().numpy()
    others = log_p.scatter(-1, index, -torch.inf).topk(width)  # without the token itself
    found.alternative_ids[place, :width] = others.indices.cpu().numpy()
    found.alternative_log_probabilities[place, :width] = others.values.cpu().numpy()
