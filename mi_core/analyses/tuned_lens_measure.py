"""Residual states of a batch, and KL(model || lens) of every layer; differentiable in the translators.

    KL_l = mean over tokens of  sum_v p_v (log p_v - log q_v),   p = the model's output, q = lens_l

The model runs once per batch; its own output is read from the last residual by the same door as the lenses
(final norm, unembedding, softcaps), in pieces, so that [tokens, d_vocab] never exists whole.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mi_core.analyses.tuned_lens import affine
from mi_core.analyses.tuned_lens_text import Context, in_order
from mi_core.engine import run, unembed
from mi_core.metrics import log_probabilities
from mi_core.model.model import LoadedModel

PIECE_NUMBERS = 16_000_000
"""Logits of one piece; about five tensors of this size live at once while a gradient is taken."""

Tick = Callable[[], None]


@dataclass(frozen=True, slots=True, eq=False)
class States:
    """Residual states of a batch at the tokens that count, on the model's device.

    Attributes:
        entering: per layer, what enters its block [token, d_model].
        last: what the last block puts out.
        context: [token] index of the token's context in the batch.
    """

    entering: tuple[Float[Tensor, "token d_model"], ...]
    last: Float[Tensor, "token d_model"]
    context: np.ndarray

    @property
    def n_tokens(self) -> int:
        """Tokens of the batch that count."""
        return len(self.last)


def states_of(model: LoadedModel, batch: Sequence[Context]) -> States:
    """Run the model once over a batch.

    Rows are filled up at their right end; a causal model's tokens do not see what follows them.
    """
    longest = max(len(context.ids) for context in batch)
    tokens = torch.zeros(len(batch), longest, dtype=torch.long)
    counted = torch.zeros(len(batch), longest, dtype=torch.bool)
    for row, context in enumerate(batch):
        tokens[row, : len(context.ids)] = torch.tensor(context.ids)
        counted[row, context.skipped : len(context.ids)] = True

    def keep(_place: object, value: Tensor) -> Tensor:
        return value[counted.to(value.device)].to(model.device)

    seen = run(model, tokens, capture=["embed", "resid_post"], last=1, reduce=keep)
    n_layers = model.dims.n_layers
    # Clones, because torch lets no gradient pass tensors that were made in inference mode.
    stream = [seen["embed", None].clone(), *(seen["resid_post", layer].clone() for layer in range(n_layers))]
    rows = counted.nonzero()[:, 0].numpy()
    return States(tuple(stream[:-1]), stream[-1], rows)


def pieces(model: LoadedModel, n_tokens: int) -> Iterator[slice]:
    """Slices of a batch whose logits fit into `PIECE_NUMBERS`."""
    size = max(1, PIECE_NUMBERS // model.dims.d_vocab)
    for start in range(0, n_tokens, size):
        yield slice(start, min(start + size, n_tokens))


def target(model: LoadedModel, states: States, piece: slice) -> Float[Tensor, "token d_vocab"]:
    """Log-probabilities of the model's own output."""
    with torch.no_grad():
        return log_probabilities(unembed(model, states.last[piece])).clone()


def kl_of(
    model: LoadedModel,
    hidden: Float[Tensor, "token d_model"],
    expected: Float[Tensor, "token d_vocab"],
) -> Float[Tensor, "token"]:
    """KL(model || lens) at each token, in nats, for states that a lens has translated.

    Args:
        model: the model.
        hidden: states in the words of the last layer.
        expected: log-probabilities of the model's output.
    """
    read = log_probabilities(unembed(model, hidden))
    expected = expected.to(read.device)
    return (expected.exp() * (expected - read)).sum(-1)


def measure(
    model: LoadedModel,
    weight: Tensor | None,
    bias: Tensor | None,
    contexts: Sequence[Context],
    batch_tokens: int,
    tick: Tick,
) -> Float[np.ndarray, "context layer"]:
    """Sum of KL(model || lens) over the tokens of each context, for every layer.

    Args:
        model: the model.
        weight: [layer, d_model, d_model]; None = the plain lens, no translator at all.
        bias: [layer, d_model]; None with `weight`.
        contexts: what to read.
        batch_tokens: tokens per forward pass.
        tick: called after every layer of every piece; may raise.

    Returns:
        Nats, summed in float64.
    """
    parts = []
    for batch in in_order(contexts, batch_tokens):
        states = states_of(model, batch)
        sums = np.zeros((len(batch), model.dims.n_layers))
        for piece in pieces(model, states.n_tokens):
            expected = target(model, states, piece)
            for layer, entering in enumerate(states.entering):
                hidden = entering[piece]
                with torch.no_grad():
                    if weight is not None and bias is not None:
                        hidden = affine(hidden, weight[layer], bias[layer])
                    kl = kl_of(model, hidden, expected).double().cpu().numpy()
                np.add.at(sums[:, layer], states.context[piece], kl)
                tick()
        parts.append(sums)
    return np.concatenate(parts)
