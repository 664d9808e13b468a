"""A second, deliberately simple implementation of edits: whole forward passes of the untouched Hugging Face
model, eager attention, one plain hook per edit, written for one test edit at a time. It shares no code
with `mi_core.engine`.

Only what the tests need: set/add/zero at single positions of module outputs and inputs, one head of z, and
edits of attention through a hand-written attention function.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import AttentionInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface

PATHS = {
    "gpt2": ("transformer.h", "attn", "attn.c_proj", "attn", "mlp", "mlp.c_proj"),
    "gpt_neox": ("gpt_neox.layers", "attention", "attention.dense", "attention", "mlp", "mlp.dense_4h_to_h"),
    "opt": ("model.decoder.layers", "self_attn", "self_attn.out_proj", "self_attn", "fc2", "fc2"),
    "phi": ("model.layers", "self_attn", "self_attn.dense", "self_attn", "mlp", "mlp.fc2"),
    "starcoder2": ("model.layers", "self_attn", "self_attn.o_proj", "self_attn", "mlp", "mlp.c_proj"),
}
SANDWICH = (
    "model.layers",
    "self_attn",
    "self_attn.o_proj",
    "post_attention_layernorm",
    "post_feedforward_layernorm",
    "mlp.down_proj",
)
LLAMA = ("model.layers", "self_attn", "self_attn.o_proj", "self_attn", "mlp", "mlp.down_proj")
for _name in ("gemma2", "gemma3_text", "olmo2"):
    PATHS[_name] = SANDWICH

Change = Callable[[Tensor], Tensor]


def _get(root: Any, path: str) -> Any:
    for part in path.split("."):
        root = getattr(root, part)
    return root


class Oracle:
    """An untouched model with its own weights.

    Args:
        hf: a fresh Hugging Face model (never one that `build_model` has seen).
    """

    def __init__(self, hf: Any) -> None:
        self.hf = hf
        model_type = hf.config.model_type
        blocks, self.attention, self.projection, self.attn_write, self.mlp_write, self.down = PATHS.get(
            model_type, LLAMA
        )
        self.blocks = _get(hf, blocks)
        self.n_heads = hf.config.num_attention_heads
        self.square: dict[int, Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]] = {}
        self.probability: dict[int, Change] = {}
        AttentionInterface.register("oracle", self._attention)
        AttentionMaskInterface.register("oracle", ALL_MASK_ATTENTION_FUNCTIONS["eager"])
        hf.set_attn_implementation("oracle")

    def _attention(
        self,
        module: nn.Module,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Tensor,
        scaling: float | None = None,
        softcap: float | None = None,
        **_: object,
    ) -> tuple[Tensor, Tensor]:
        layer = next(i for i, block in enumerate(self.blocks) if _get(block, self.attention) is module)
        groups = q.shape[1] // k.shape[1]
        k = torch.stack([k[:, h // groups] for h in range(q.shape[1])], 1)
        v = torch.stack([v[:, h // groups] for h in range(q.shape[1])], 1)
        s = torch.einsum("bhqd,bhkd->bhqk", q, k) * (q.shape[-1] ** -0.5 if scaling is None else scaling)
        if softcap:
            s = torch.tanh(s / softcap) * softcap
        allowed = mask > torch.finfo(mask.dtype).min / 2
        if layer in self.square:
            s, allowed = self.square[layer](s, allowed.expand_as(s))
        e = torch.where(allowed, torch.exp(s - s.max()), torch.zeros((), dtype=s.dtype))
        total = e.sum(-1, keepdim=True)
        p = torch.where(total > 0, e / total.clamp_min(1e-300), torch.zeros((), dtype=s.dtype))
        if layer in self.probability:
            p = self.probability[layer](p)
        return torch.einsum("bhqk,bhkd->bqhd", p, v).contiguous(), p

    def logits(self, tokens: Tensor, hooks: list[tuple[str, int, Change]]) -> Tensor:
        """Logits [row, pos, vocab] of one whole pass.

        Args:
            tokens: [row, pos].
            hooks: (kind, layer, change); kind is block_input, block_output, attn_out, mlp_out, z or
                mlp_post, and `change` maps [row, pos, width] to the same shape.
        """
        handles = [self._hook(kind, layer, change) for kind, layer, change in hooks]
        try:
            with torch.no_grad():
                return self.hf(input_ids=tokens, use_cache=False).logits
        finally:
            for handle in handles:
                handle.remove()

    def _hook(self, kind: str, layer: int, change: Change) -> RemovableHandle:
        block = self.blocks[layer]

        def on_output(_module: nn.Module, _args: object, output: Any) -> Any:
            tensor = output[0] if isinstance(output, tuple) else output
            new = change(tensor.reshape(self.shape[0], self.shape[1], -1).clone()).reshape(tensor.shape)
            return (new, *output[1:]) if isinstance(output, tuple) else new

        def on_input(_module: nn.Module, args: tuple, kwargs: dict) -> object:
            tensor = args[0] if args else kwargs["hidden_states"]
            new = change(tensor.reshape(self.shape[0], self.shape[1], -1).clone()).reshape(tensor.shape)
            return ((new, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": new})

        outputs = {
            "block_output": block,
            "attn_out": _get(block, self.attn_write),
            "mlp_out": _get(block, self.mlp_write),
        }
        if kind in outputs:
            return outputs[kind].register_forward_hook(on_output)
        inputs = {"block_input": block, "z": _get(block, self.projection), "mlp_post": _get(block, self.down)}
        return inputs[kind].register_forward_pre_hook(on_input, with_kwargs=True)

    shape: tuple[int, int] = (1, 1)
