"""Prompt pairs as tensors: groups that can be run side by side, what a head wrote in them, how they score.

    logit difference of a prompt = logit(answer) - logit(wrong answer) at its last token, logits

A group holds prompts of one length whose roles (IO, S1, S2, end) stand at the same positions, so that "the
same position" means the same in all its prompts, and a mean over them is a mean over one template, as Wang et
al. 2022 (arXiv 2211.00593, section 2) take it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mi_core.engine import run
from mi_core.errors import InputError
from mi_core.metrics import exact_logits
from mi_core.model.model import LoadedModel

ROWS_AT_ONCE = 96
"""Rows of a pass that keeps whole activations."""


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Prompts that run side by side.

    Attributes:
        tokens: the clean prompts.
        counterfactual: their partners (for IOI: three other names, ABC), of the same length.
        answers: right answer's token.
        wrong: wrong answer's token.
        roles: name of a role -> its position, the same in every prompt.
        index: place of every prompt in the task.
    """

    tokens: Int[Tensor, "row pos"]
    counterfactual: Int[Tensor, "row other"]
    answers: Int[Tensor, " row"]
    wrong: Int[Tensor, " row"]
    roles: Mapping[str, int]
    index: Int[np.ndarray, " row"]

    def __post_init__(self) -> None:
        """A patch needs partners of equal length."""
        if self.tokens.shape != self.counterfactual.shape:
            raise InputError(
                "A prompt and its counterfactual have different numbers of tokens",
                why=f"{tuple(self.tokens.shape)} and {tuple(self.counterfactual.shape)}",
            )

    @property
    def n_pos(self) -> int:
        """Tokens per prompt."""
        return self.tokens.shape[1]

    def __len__(self) -> int:
        return self.tokens.shape[0]

    def difference(self, logits: Float[Tensor, "variant row d_vocab"]) -> Float[Tensor, "variant row"]:
        """Logit difference of every row, float64."""
        exact = exact_logits(logits)
        rows = torch.arange(len(self), device=logits.device)
        return exact[:, rows, self.answers.to(logits.device)] - exact[:, rows, self.wrong.to(logits.device)]

    def read(self, logits: Float[Tensor, "variant row read d_vocab"]) -> dict[str, Tensor]:
        """Reader of a sweep over this group."""
        return {"difference": self.difference(logits[:, :, -1])}


def heads_written(
    model: LoadedModel, tokens: Int[Tensor, "row pos"]
) -> list[Float[Tensor, "row pos head d_head"]]:
    """`z` of every layer: what every head has gathered, before W_O."""
    parts = [run(model, part, capture=["z"], last=1) for part in tokens.split(ROWS_AT_ONCE)]
    return [torch.cat([part["z", layer] for part in parts]) for layer in range(model.dims.n_layers)]


def clean_scores(model: LoadedModel, group: Group) -> Float[np.ndarray, " row"]:
    """Logit differences of the clean prompts."""
    return _scores(model, group, group.tokens)


def counterfactual_scores(model: LoadedModel, group: Group) -> Float[np.ndarray, " row"]:
    """Logit differences of the counterfactual prompts, for the clean prompts' answers."""
    return _scores(model, group, group.counterfactual)


def _scores(model: LoadedModel, group: Group, tokens: Tensor) -> np.ndarray:
    logits = torch.cat([run(model, part, last=1).logits[:, -1] for part in tokens.split(ROWS_AT_ONCE)])
    return group.difference(logits[None])[0].cpu().numpy()


def gather(parts: Sequence[np.ndarray], groups: Sequence[Group], axis: int = -1) -> np.ndarray:
    """Values per group joined along their prompt axis, in the task's order."""
    order = np.argsort(np.concatenate([group.index for group in groups]), kind="stable")
    return np.take(np.concatenate(parts, axis=axis), order, axis=axis)
