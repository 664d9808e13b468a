"""Plain hooked forward passes on Atlas: the simple second computation behind ``measure_atlas.py``.

Nothing here shares code with ``mi_core``; every cell is a whole batched forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerFast

KINDS = ("state", "mlp", "attn")
Edit = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Probe:
    """A loaded model with its tokenizer."""

    model: LlamaForCausalLM
    tokenizer: PreTrainedTokenizerFast

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return int(self.model.config.num_hidden_layers)

    def module(self, kind: str, layer: int) -> nn.Module:
        """The module whose output is the block output (``state``), the MLP output or the attention output."""
        block = self.model.model.layers[layer]
        return {"state": block, "mlp": block.mlp, "attn": block.self_attn}[kind]

    def answer_id(self, answer: str) -> int:
        """First token of the answer, with the space before it."""
        return int(self.tokenizer.encode(f" {answer}", add_special_tokens=False)[0])

    def encode(self, prompt: str) -> list[int]:
        """Token ids, with the begin token first."""
        return list(self.tokenizer.encode(prompt))

    def name_span(self, prompt: str, subject: str) -> tuple[int, int]:
        """Token range ``[start, end)`` of the subject."""
        begin = prompt.lower().index(subject.lower())
        offsets = self.tokenizer(prompt, return_offsets_mapping=True)["offset_mapping"]
        inside = [i for i, (a, b) in enumerate(offsets) if b > a and a < begin + len(subject) and b > begin]
        return inside[0], inside[-1] + 1

    @torch.no_grad()
    def last_logits(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Logits [rows, vocabulary] at the last position; ``ids`` is [rows, pos]."""
        return self.model(ids, attention_mask=mask, use_cache=False, logits_to_keep=1).logits[:, -1]

    def prompt_logits(self, prompts: list[str], chunk: int = 256) -> Tensor:
        """Last-position logits [prompts, vocabulary] of texts of any length (left-padded batches)."""
        out = []
        for i in range(0, len(prompts), chunk):
            coded = self.tokenizer(prompts[i : i + chunk], return_tensors="pt", padding=True)
            places = (coded["attention_mask"].cumsum(-1) - 1).clamp(min=0)
            with torch.no_grad():
                out.append(
                    self.model(
                        coded["input_ids"],
                        attention_mask=coded["attention_mask"],
                        position_ids=places,
                        use_cache=False,
                        logits_to_keep=1,
                    ).logits[:, -1]
                )
        return torch.cat(out)


def load(path: Path) -> Probe:
    """Loads model and tokenizer from a folder, in float32, with attention weights available."""
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager")
    if not isinstance(model, LlamaForCausalLM):
        raise TypeError(f"{path} holds a {type(model).__name__}, not a LlamaForCausalLM")
    return Probe(model.eval(), AutoTokenizer.from_pretrained(path))


def untrained(probe: Probe, seed: int = 0) -> Probe:
    """The same architecture with fresh random weights (a control)."""
    torch.manual_seed(seed)
    model = LlamaForCausalLM(probe.model.config).eval()
    return Probe(model, probe.tokenizer)


@contextmanager
def edited(edits: list[tuple[nn.Module, Edit]]) -> Iterator[None]:
    """Applies functions to module outputs inside the block."""

    def hook_for(edit: Edit) -> Callable[..., object]:
        def hook(module: nn.Module, args: object, output: Tensor | tuple[Tensor, ...]) -> object:
            if isinstance(output, tuple):
                return (edit(output[0]), *output[1:])
            return edit(output)

        return hook

    handles = [module.register_forward_hook(hook_for(edit)) for module, edit in edits]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def capture(probe: Probe, ids: Tensor, kinds: tuple[str, ...] = KINDS) -> dict[str, Tensor]:
    """Outputs of a plain run: per kind [layer, row, pos, d_model], and ``logits`` [row, vocabulary]."""
    kept: dict[str, list[Tensor]] = {kind: [] for kind in kinds}

    def keep(kind: str) -> Edit:
        def edit(value: Tensor) -> Tensor:
            kept[kind].append(value.detach().clone())
            return value

        return edit

    edits = [(probe.module(kind, layer), keep(kind)) for kind in kinds for layer in range(probe.n_layers)]
    with edited(edits):
        logits = probe.last_logits(ids)
    return {kind: torch.stack(values) for kind, values in kept.items()} | {"logits": logits}


@contextmanager
def heads_zeroed(probe: Probe, layer: int, head: int) -> Iterator[None]:
    """Sets the output of one head (before the output projection) to zero, at every position."""
    size = probe.model.config.hidden_size // probe.model.config.num_attention_heads

    def cut(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        value = args[0].clone()
        value[..., head * size : (head + 1) * size] = 0
        return (value, *args[1:])

    handle = probe.module("attn", layer).get_submodule("o_proj").register_forward_pre_hook(cut)
    try:
        yield
    finally:
        handle.remove()
