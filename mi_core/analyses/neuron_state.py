"""Running statistics of all neurons of a layer, and their strongest contexts, in bounded memory.

Nothing grows with the number of texts: per neuron there are a few sums and `contexts` keys. A key is one
64-bit number, the float32 magnitude of an activation above the number of its token, so that the largest keys
are the strongest activations and, among equal ones, the earliest tokens: ties come out the same whatever the
batches are.

    key = |activation| as float32 bits (31) . inverted token number (31) . sign (1)
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

LAST_TOKEN = 2**31 - 1
"""Token numbers are inverted against this, so that earlier tokens give larger keys."""

NO_KEY = -1


def state_bytes(n_layers: int, d_mlp: int, n_categories: int, contexts: int) -> int:
    """Memory that the running statistics of a whole model take."""
    sums = 8 * n_categories + 3 * 8 + 2 * 4  # category sums, squares, absolute values, active; max and min
    return n_layers * d_mlp * (sums + 8 * contexts)


@dataclass(slots=True)
class LayerState:
    """What is known so far about the neurons of one layer, on the layer's device.

    Attributes:
        sums: [category, d_mlp] sum of activations.
        squares: [d_mlp] sum of squares.
        absolute: [d_mlp] sum of absolute values.
        active: [d_mlp] number of tokens with an activation above 0.
        maximum: [d_mlp] largest activation.
        minimum: [d_mlp] smallest.
        keys: [contexts, d_mlp] the largest keys, in descending order; -1 where there are none yet.
        not_finite: activations that were infinite or no number; they count as 0.
    """

    sums: Float[Tensor, "category d_mlp"]
    squares: Float[Tensor, "d_mlp"]
    absolute: Float[Tensor, "d_mlp"]
    active: Int[Tensor, "d_mlp"]
    maximum: Float[Tensor, "d_mlp"]
    minimum: Float[Tensor, "d_mlp"]
    keys: Int[Tensor, "contexts d_mlp"]
    not_finite: int = 0

    @classmethod
    def empty(cls, d_mlp: int, n_categories: int, contexts: int, device: torch.device) -> "LayerState":
        """Nothing counted yet."""
        exact = {"dtype": torch.float64, "device": device}
        return cls(
            torch.zeros(n_categories, d_mlp, **exact),
            torch.zeros(d_mlp, **exact),
            torch.zeros(d_mlp, **exact),
            torch.zeros(d_mlp, dtype=torch.long, device=device),
            torch.full((d_mlp,), -torch.inf, device=device),
            torch.full((d_mlp,), torch.inf, device=device),
            torch.full((contexts, d_mlp), NO_KEY, dtype=torch.long, device=device),
        )

    def add(
        self,
        values: Float[Tensor, "token d_mlp"],
        categories: Int[Tensor, "token"],
        numbers: Int[Tensor, "token"],
    ) -> None:
        """Count some tokens.

        Args:
            values: activations, any float type.
            categories: category of each token.
            numbers: number of each token in the set, below 2^31; every token is counted once.
        """
        values, categories, numbers = (part.to(self.sums.device) for part in (values, categories, numbers))
        wrong = int((~torch.isfinite(values)).sum())
        self.not_finite += wrong
        exact = torch.nan_to_num(values.double(), 0.0, 0.0, 0.0) if wrong else values.double()
        self.sums.index_add_(0, categories, exact)
        self.squares += exact.square().sum(0)
        self.absolute += exact.abs().sum(0)
        self.active += (exact > 0).sum(0)
        single = exact.float()
        self.maximum = torch.maximum(self.maximum, single.amax(0))
        self.minimum = torch.minimum(self.minimum, single.amin(0))
        joined = torch.cat([self.keys, keys_of(single, numbers)])
        self.keys = joined.topk(len(self.keys), dim=0).values


def keys_of(
    values: Float[Tensor, "token d_mlp"], numbers: Int[Tensor, "token"]
) -> Int[Tensor, "token d_mlp"]:
    """The key of every activation (see the module's text); `values` are finite float32."""
    magnitude = values.abs().view(torch.int32).long() << 32
    return magnitude | ((LAST_TOKEN - numbers) << 1)[:, None] | (values < 0).long()


def read_keys(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Signed float32 activations (0 where there is no key) and token numbers (-1) of some keys."""
    there = keys != NO_KEY
    safe = np.where(there, keys, 0).astype(np.int64)
    magnitude = (safe >> 32).astype(np.int32).view(np.float32)
    values = np.where(safe & 1, -magnitude, magnitude)
    numbers = LAST_TOKEN - ((safe >> 1) & LAST_TOKEN)
    return np.where(there, values, np.float32(0)), np.where(there, numbers, -1)


def state_device(device: torch.device) -> torch.device:
    """Where sums are kept: with the activations, except on MPS, which has no float64."""
    return torch.device("cpu") if device.type == "mps" else device
