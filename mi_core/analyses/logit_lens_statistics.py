"""Numbers of a lens, read from logits in chunks: no array of [layer, position, vocabulary] ever exists.

    entropy  = -sum_v p(v) log p(v)
    KL       = sum_v p_final(v) (log p_final(v) - log p_lens(v))
    rank     = 1 + number of tokens whose logit is higher than the target's

Natural logarithms, nats. KL is taken from the final output to the lens, and no term of it is dropped. Rank 1
is the top token; tied tokens share the best rank. Everything is computed from one log-softmax, in float32 or,
for float64 models, in float64.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mi_core.errors import ModelError
from mi_core.metrics import exact_logits

CHUNK_BYTES = 192 * 2**20
"""What the logits of one chunk and everything computed from them may take."""

_COPIES = 6  # logits, log-probabilities, probabilities, and temporaries of their products


@dataclass(frozen=True, eq=False, slots=True)
class LensNumbers:
    """Statistics of some distributions, on their device.

    Attributes:
        top_ids: ids of the most probable tokens, most probable first.
        top_probabilities: their probabilities.
        log_probability: of each distribution's target, nats.
        rank: of each distribution's target, 1 = top.
        entropy: nats.
        kl: KL(final || this), nats.
        word_log_probability: of each word, nats.
        word_rank: of each word, 1 = top.
    """

    top_ids: Int[Tensor, "n top"]
    top_probabilities: Float[Tensor, "n top"]
    log_probability: Float[Tensor, " n"]
    rank: Int[Tensor, " n"]
    entropy: Float[Tensor, " n"]
    kl: Float[Tensor, " n"]
    word_log_probability: Float[Tensor, "n word"]
    word_rank: Int[Tensor, "n word"]


def lens_numbers(
    logits: Float[Tensor, "n vocab"],
    final: Float[Tensor, "n vocab"],
    targets: Int[Tensor, " n"],
    words: Int[Tensor, " word"],
    k: int,
) -> LensNumbers:
    """All statistics of some distributions.

    Args:
        logits: of the lens.
        final: log-probabilities of the model's output at the same positions.
        targets: the token that each distribution is asked about.
        words: further tokens that every distribution is asked about.
        k: top tokens to keep; fewer come back when the vocabulary is smaller.

    Raises:
        ModelError: a logit is NaN, or all logits of a distribution are infinite.
    """
    exact = exact_logits(logits)
    log_p = torch.log_softmax(exact, dim=-1)
    if bool(log_p.isnan().any()):
        raise ModelError(
            "The lens gives numbers that are not finite",
            kind="unsupported",
            why=f"a vector overflows in {str(logits.dtype).removeprefix('torch.')}",
            fix="Load the model in float32",
        )
    top_probabilities, top_ids = log_p.topk(min(k, log_p.shape[-1]), dim=-1)
    return LensNumbers(
        top_ids=top_ids,
        top_probabilities=top_probabilities.exp(),
        log_probability=log_p.gather(-1, targets[:, None])[:, 0],
        rank=ranks(exact, targets[:, None])[:, 0],
        entropy=entropy_of(log_p),
        kl=divergence(final, log_p),
        word_log_probability=log_p[:, words],
        word_rank=ranks(exact, words.expand(len(exact), -1)),
    )


def ranks(logits: Float[Tensor, "n vocab"], tokens: Int[Tensor, "n token"]) -> Int[Tensor, "n token"]:
    """1 + the number of tokens with a strictly higher logit: 1 = top; tied tokens share the best rank."""
    chosen = logits.gather(-1, tokens)
    columns = [1 + (logits > chosen[:, index, None]).sum(-1) for index in range(chosen.shape[1])]
    return torch.stack(columns, dim=-1) if columns else tokens.new_zeros(tokens.shape)


def entropy_of(log_p: Float[Tensor, "n vocab"]) -> Float[Tensor, " n"]:
    """Entropy in nats from log-probabilities: 0 = certain, log(vocabulary size) = uniform."""
    # A token of probability 0 has log-probability -inf: 0 * -inf is NaN, where its limit is 0.
    return -torch.where(log_p > -torch.inf, log_p.exp() * log_p, 0.0).sum(-1).clamp_max(0)


def divergence(final: Float[Tensor, "n vocab"], log_p: Float[Tensor, "n vocab"]) -> Float[Tensor, " n"]:
    """KL(final || lens) >= 0 in nats, from log-probabilities; rounding cannot make it negative."""
    terms = torch.where(final > -torch.inf, final.exp() * (final - log_p), 0.0)
    return terms.sum(-1).clamp_min(0)


def rows_per_chunk(d_vocab: int, dtype: torch.dtype) -> int:
    """How many distributions are computed at once.

    Args:
        d_vocab: size of the vocabulary.
        dtype: of the model; numbers are kept in at least float32.
    """
    bytes_each = torch.promote_types(dtype, torch.float32).itemsize * d_vocab * _COPIES
    return max(1, CHUNK_BYTES // bytes_each)
