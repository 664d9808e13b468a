"""What is read from the logits of a run: all stored metrics and the top tokens, from one softmax."""

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mi_core.analyses.causal_trace_parts import TOP, Reading
from mi_core.metrics import exact_logits, sequence_log_probability, top_tokens


class Reader:
    """Turns logits into numbers; one object serves the clean run, the base run and every cell.

    Probability and log-probability are of the whole answer; the other numbers, where there is one token to
    speak of, are of its first token, read at the last position of the prompt.

    Args:
        answer: token ids of the answer.
        distractor: id of the (first) token that the answer is compared with, or None.
        clean: logits of the clean run at the positions that predict the answer.
    """

    def __init__(
        self, answer: tuple[int, ...], distractor: int | None, clean: Float[Tensor, "read vocab"]
    ) -> None:
        exact = exact_logits(clean[0])
        self.answer, self.distractor = torch.tensor(answer, device=clean.device), distractor
        self.clean_log_p = torch.log_softmax(exact, dim=-1)
        self.clean_p = self.clean_log_p.exp()
        self.positions = tuple(range(-len(answer), 0))

    def __call__(self, logits: Float[Tensor, "variant row read vocab"]) -> dict[str, Tensor]:
        """Numbers per variant and row.

        Returns:
            The stored metrics but `top1_flip` [variant, row]; `top1` [variant, row], the top token's id;
            `top_ids` and `top_probabilities` [variant, top], by mean probability over rows.
        """
        first = exact_logits(logits[:, :, 0])
        log_p = torch.log_softmax(first, dim=-1)
        token = int(self.answer[0])
        whole = log_p[..., token] if len(self.answer) == 1 else sequence_log_probability(logits, self.answer)
        numbers = {
            "probability": whole.exp(),
            "log_probability": whole,
            "logit": first[..., token],
            "rank": 1 + (first > first[..., token, None]).sum(-1).to(first.dtype),
            "kl": self._kl(log_p),
            "top1": first.argmax(-1),
        }
        if self.distractor is not None:
            numbers["logit_difference"] = first[..., token] - first[..., self.distractor]
        numbers["top_ids"], numbers["top_probabilities"] = top_tokens(log_p.exp().mean(1), TOP)
        return numbers

    def _kl(self, log_p: Float[Tensor, "variant row vocab"]) -> Float[Tensor, "variant row"]:
        """KL(clean || run) >= 0 as a matrix-vector product: no third copy of [variant, row, vocab]."""
        difference = (self.clean_log_p - log_p).masked_fill_(self.clean_p == 0, 0)  # 0 * inf has the limit 0
        return (difference @ self.clean_p).clamp_min_(0)


def make_reading(numbers: Mapping[str, np.ndarray], base_top1: np.ndarray) -> Reading:
    """The reading of one whole run.

    Args:
        numbers: what a `Reader` gave for a single variant, leading axis 1.
        base_top1: [sample or 1] top token of each sample of the run that is patched into.
    """
    samples = {name: values[0] for name, values in numbers.items() if not name.startswith("top")}
    flip = (numbers["top1"][0] != base_top1).astype(samples["probability"].dtype)
    # A clean run without noise has one row; against several corrupted rows its flip is the share of rows that
    # differ.
    samples["top1_flip"] = flip if len(flip) == len(samples["probability"]) else flip.mean(keepdims=True)
    return Reading(samples, numbers["top_ids"][0].astype(np.int64), numbers["top_probabilities"][0])


def to_numpy(numbers: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """The same numbers on the CPU."""
    return {name: values.cpu().numpy() for name, values in numbers.items()}
