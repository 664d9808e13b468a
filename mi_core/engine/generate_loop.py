"""Recurrent feedback: one forward pass in which a block of layers runs several times.

    H0 = stream entering layer `start`;   B = layers start .. end - 1
    without a vector:  H = B(B(...B(H0)))                         depth times
    with a vector:     H = B(H0 + vector at the positions)         (each of the passes begins at the same H0,
                                                                   so a larger depth changes nothing)
    then the remaining layers, norm and unembedding

depth 1 without a vector is the model's own pass, bit for bit: it *is* that pass, with the extra rounds put
behind layer end - 1 and run with the arguments that the model itself gave to those layers. Cost: a forward
pass plus (depth - 1) * (end - start) layers. Experiment: candle-mi's recurrent feedback.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mi_core.engine.layout import dense_layout
from mi_core.engine.run import check_tokens, forward, memory_errors
from mi_core.engine.session import Session, first_tensor, with_first
from mi_core.errors import InputError
from mi_core.model.model import LoadedModel


@dataclass(frozen=True, slots=True, eq=False)
class Loop:
    """Which layers are repeated, and what is fed back.

    Attributes:
        start: first layer of the block.
        end: one past its last layer.
        depth: how many times it runs; 1 = once, as in the model.
        vector: what is added to the block's input, its strength included; None = the block's output is its
            next input.
    """

    start: int
    end: int
    depth: int
    vector: Float[Tensor, " d_model"] | None = None


def loop_logits(
    model: LoadedModel, token_ids: Sequence[int], loop: Loop, positions: Sequence[int]
) -> Float[Tensor, " d_vocab"]:
    """Logits after the last token of a pass with a repeated block; float64 on the CPU.

    Args:
        model: the loaded model.
        token_ids: the text.
        loop: the block.
        positions: where the vector is added; not used without one.

    Raises:
        InputError: there is no such block, or no such position.
    """
    tokens = torch.tensor([list(token_ids)], dtype=torch.long)
    _, n_pos = check_tokens(model, tokens)
    if not 0 <= loop.start < loop.end <= model.dims.n_layers or loop.depth < 1:
        raise InputError(
            f"Layers {loop.start} to {loop.end - 1} cannot be run {loop.depth} times",
            why=f"the model's layers are 0 to {model.dims.n_layers - 1}",
        )
    if any(not 0 <= position < n_pos for position in positions):
        raise InputError(f"Feedback at tokens {list(positions)!r:.60} of {n_pos}")
    session = Session(model, dense_layout(1, n_pos))
    blocks = list(model.structure.blocks[loop.start : loop.end])
    with torch.inference_mode(), memory_errors(model), session, ExitStack() as stack:
        rounds = _Rounds(blocks, loop, positions)
        for place, block in enumerate(blocks):
            hook = rounds.entering(place)
            stack.callback(block.register_forward_pre_hook(hook, with_kwargs=True).remove)
        stack.callback(blocks[-1].register_forward_hook(rounds.leaving).remove)
        return forward(session, tokens, 1)[0, -1].cpu().double()


class _Rounds:
    """Hooks that remember the block's arguments, add the vector, and run the block again."""

    def __init__(self, blocks: list[nn.Module], loop: Loop, positions: Sequence[int]) -> None:
        self._blocks, self._loop, self._positions = blocks, loop, list(positions)
        self._calls: dict[int, tuple[tuple[Any, ...], dict[str, Any]]] = {}
        self._again = False

    def entering(self, place: int) -> Callable[..., Any]:
        """Before a layer of the block, in the model's own round."""

        def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if self._again:
                return None
            self._calls[place] = (args, kwargs)
            if place or self._loop.vector is None:
                return None
            fed = self._feed(args[0] if args else kwargs["hidden_states"])
            self._calls[0] = _with_hidden(args, kwargs, fed)
            return self._calls[0]

        return hook

    def _feed(self, hidden: Tensor) -> Tensor:
        out = hidden.clone()
        if self._loop.vector is not None and self._positions:
            out[:, self._positions] += self._loop.vector.to(hidden.device, hidden.dtype)
        return out

    def leaving(self, _module: nn.Module, _args: tuple[Any, ...], output: Any) -> Any:
        """After the block's last layer: the other rounds."""
        if self._again:
            return None
        self._again = True
        try:
            hidden = first_tensor(output)
            for _ in range(self._loop.depth - 1):
                if self._loop.vector is not None:  # each round begins at H0 + vector
                    args, kwargs = self._calls[0]
                    hidden = args[0] if args else kwargs["hidden_states"]
                for place, block in enumerate(self._blocks):
                    args, kwargs = _with_hidden(*self._calls[place], hidden)
                    hidden = first_tensor(block(*args, **kwargs))
        finally:
            self._again = False
        return with_first(output, hidden)


def _with_hidden(
    args: tuple[Any, ...], kwargs: dict[str, Any], hidden: Tensor
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return ((hidden, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": hidden})
