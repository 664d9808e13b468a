"""Numbers read from logits. Natural logarithm, nats.

All functions take logits with any leading axes and the vocabulary last. Half precisions are computed in
float32; float64 stays float64.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def exact_logits(logits: Float[Tensor, "*rest vocab"]) -> Float[Tensor, "*rest vocab"]:
    """The logits in float32, or in float64 if that is what they are."""
    return logits if logits.dtype in (torch.float32, torch.float64) else logits.float()


def log_probabilities(logits: Float[Tensor, "*rest vocab"]) -> Float[Tensor, "*rest vocab"]:
    """Log softmax over the vocabulary, in nats."""
    return torch.log_softmax(exact_logits(logits), dim=-1)


def log_probability(logits: Float[Tensor, "*rest vocab"], token: int) -> Float[Tensor, "*rest"]:
    """Log-probability of one token, in nats, <= 0. Does not make the whole softmax."""
    exact = exact_logits(logits)
    return exact[..., token] - torch.logsumexp(exact, dim=-1)


def probability(logits: Float[Tensor, "*rest vocab"], token: int) -> Float[Tensor, "*rest"]:
    """Probability of one token, 0 to 1."""
    return log_probability(logits, token).exp()


def sequence_log_probability(
    logits: Float[Tensor, "*rest read vocab"], tokens: Int[Tensor, " read"]
) -> Float[Tensor, "*rest"]:
    """Teacher-forced log-probability of several tokens: the sum of each one's, given those before it.

    Args:
        logits: at the positions that predict the tokens, in order.
        tokens: the tokens.

    Returns:
        Nats; its exponential is the probability of the whole sequence.
    """
    exact = exact_logits(logits)
    index = tokens.to(exact.device).expand(exact.shape[:-1])[..., None]
    chosen = exact.gather(-1, index)[..., 0] - torch.logsumexp(exact, dim=-1)
    return chosen.sum(dim=-1)


def logit_difference(
    logits: Float[Tensor, "*rest vocab"], token: int, distractor: int
) -> Float[Tensor, "*rest"]:
    """Logit of one token minus that of another: their log odds, in logits."""
    exact = exact_logits(logits)
    return exact[..., token] - exact[..., distractor]


def rank(logits: Float[Tensor, "*rest vocab"], token: int) -> Int[Tensor, "*rest"]:
    """1 + the number of tokens with a strictly higher logit: 1 = top; tied tokens share the best rank."""
    exact = exact_logits(logits)
    return 1 + (exact > exact[..., token, None]).sum(dim=-1)


def kl_divergence(
    clean: Float[Tensor, "*rest vocab"], other: Float[Tensor, "*more vocab"]
) -> Float[Tensor, "*most"]:
    """KL(clean || other) in nats: how surprising `other` finds what the clean run predicts.

        sum_v p_clean(v) * (log p_clean(v) - log p_other(v))

    Args:
        clean: logits of the reference distribution.
        other: logits of the other one; leading axes broadcast.

    Returns:
        >= 0. Not symmetric. Rounding cannot make it negative.
    """
    log_p, log_q = log_probabilities(clean), log_probabilities(other)
    p = log_p.exp()
    # A token with probability 0 may add 0 * inf, which is NaN, where its limit is 0.
    terms = torch.where(p > 0, p * (log_p - log_q), 0.0)
    return terms.sum(dim=-1).clamp_min(0)


def entropy(logits: Float[Tensor, "*rest vocab"]) -> Float[Tensor, "*rest"]:
    """Entropy of the predicted distribution in nats: 0 = certain, log(vocabulary size) = uniform."""
    log_p = log_probabilities(logits)
    return -torch.where(log_p > -torch.inf, log_p.exp() * log_p, 0.0).sum(dim=-1)


def top_tokens(
    probabilities: Float[Tensor, "*rest vocab"], count: int
) -> tuple[Int[Tensor, "*rest top"], Float[Tensor, "*rest top"]]:
    """The most probable tokens, most probable first.

    Args:
        probabilities: any numbers that order tokens; a mean of probabilities over samples, for instance.
        count: how many; fewer come back when the vocabulary is smaller.

    Returns:
        (ids, their numbers).
    """
    values, ids = probabilities.topk(min(count, probabilities.shape[-1]), dim=-1)
    return ids, values
