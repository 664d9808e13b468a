"""ROME's causal trace the slow way: a whole forward pass per cell, with its own hooks on the model's modules.

Shares no code with `mi_core.analyses` or the engine: raw module outputs, nothing cached, one row at a time.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

BLOCKS = {
    "gpt2": ("transformer.h", "attn", "mlp"),
    "gpt_neox": ("gpt_neox.layers", "attention", "mlp"),
    "llama": ("model.layers", "self_attn", "mlp"),
    "mistral": ("model.layers", "self_attn", "mlp"),
    "gemma2": ("model.layers", "self_attn", "mlp"),
    "qwen3": ("model.layers", "self_attn", "mlp"),
}


def tensor_of(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple) else output


@contextmanager
def changed(module: nn.Module, change: Callable[[Tensor], None]) -> Iterator[None]:
    """While open, `change` may write into a copy of the module's output."""

    def hook(_module: nn.Module, _args: Any, output: Any) -> Any:
        new = tensor_of(output).clone()
        change(new)
        return (new, *output[1:]) if isinstance(output, tuple) else new

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


class Oracle:
    """A model, two token rows, and noise on a span of the corrupted one.

    Args:
        hf: model in float64.
        family: key of `BLOCKS`.
        clean: token ids of the clean run.
        corrupted: token ids of the corrupted run.
        span: noised positions [start, end).
        noise: [sample, position, d_model] added to the embeddings there, or None.
    """

    def __init__(
        self,
        hf: Any,
        family: str,
        clean: list[int],
        corrupted: list[int],
        span: tuple[int, int],
        noise: np.ndarray | None,
    ) -> None:
        path, attention, mlp = BLOCKS[family]
        self.hf, self.clean, self.corrupted = hf, torch.tensor([clean]), torch.tensor([corrupted])
        self.blocks = hf.get_submodule(path)
        self.modules = {
            "state": list(self.blocks),
            "attn": [block.get_submodule(attention) for block in self.blocks],
            "mlp": [block.get_submodule(mlp) for block in self.blocks],
        }
        self.noise = [None] if noise is None else [torch.from_numpy(one).to(hf.dtype) for one in noise]
        self.span = span
        self.known: dict[tuple[int, int], dict[str, list[Tensor]]] = {}

    def run(self, tokens: Tensor, noise: Tensor | None) -> Tensor:
        """Logits [pos, vocab] of one run, under whatever hooks are open."""
        with ExitStack() as own, torch.no_grad():
            if noise is not None:

                def add(embedded: Tensor) -> None:
                    embedded[:, self.span[0] : self.span[1]] += noise

                own.enter_context(changed(self.hf.get_input_embeddings(), add))
            return self.hf(input_ids=tokens, use_cache=False).logits[0]

    def record(self, tokens: Tensor, noise: Tensor | None) -> dict[str, list[Tensor]]:
        """Outputs [1, pos, d_model] of every block, attention and MLP module; looked up when run before."""
        key = (id(tokens), id(noise))
        if key not in self.known:
            seen: dict[str, list[Tensor]] = {kind: [] for kind in self.modules}
            with ExitStack() as stack:
                for kind, modules in self.modules.items():
                    for module in modules:
                        stack.enter_context(changed(module, lambda out, k=kind: seen[k].append(out.clone())))
                self.run(tokens, noise)
            self.known[key] = seen
        return self.known[key]

    def cell(
        self, kind: str, layers: list[int], position: int, severed: str = "", *, noising: bool = False
    ) -> list[Tensor]:
        """Logits [pos, vocab] per noise sample, outputs of the source put into the base at one position."""
        out = []
        for noise in self.noise:
            runs = [(self.clean, None), (self.corrupted, noise)]
            source, base = runs if not noising else runs[::-1]
            values, own = self.record(*source), self.record(*base)
            with ExitStack() as stack:
                for layer in layers:
                    stack.enter_context(
                        changed(self.modules[kind][layer], put(values[kind][layer], position))
                    )
                if severed:  # every layer, as ROME's program does
                    for layer, module in enumerate(self.modules[severed]):
                        stack.enter_context(changed(module, put(own[severed][layer], position)))
                out.append(self.run(*base))
        return out

    def grid(
        self, kind: str, positions: int, window: Callable[[int], list[int]], severed: str = "", **options: Any
    ) -> np.ndarray:
        """[position, layer, sample, vocab] probabilities at the last position."""
        n_layers = len(self.blocks)
        cells = [
            [
                torch.stack([x[-1] for x in self.cell(kind, window(layer), t, severed, **options)])
                for layer in range(n_layers)
            ]
            for t in range(positions)
        ]
        return torch.stack([torch.stack(row) for row in cells]).softmax(-1).numpy()


def put(value: Tensor, position: int) -> Callable[[Tensor], None]:
    def change(output: Tensor) -> None:
        output[:, position] = value[:, position]

    return change
