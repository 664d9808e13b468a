"""One causal-trace grid, computed in four ways, and how much arithmetic it needs at least.

The grid is the one that transformer-lens calls `get_act_patch_resid_pre`: the residual stream that enters
block l at position t is taken from the clean run and put into the corrupted run, for every (l, t); each cell
is a logit difference at the last position. Every way starts from token ids and ends with the grid, so each
pays for its own clean and corrupted runs.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

ANSWER, DISTRACTOR = 11, 12  # token ids; the weights are random, so any two will do


@dataclass(frozen=True)
class Shape:
    """Sizes of the GPT-2 that is timed. The defaults are GPT-2 small.

    Attributes:
        n_layers: blocks.
        d_model: width; the MLP is four times as wide.
        n_heads: attention heads.
        d_vocab: vocabulary.
    """

    n_layers: int = 12
    d_model: int = 768
    n_heads: int = 12
    d_vocab: int = 50257

    def build(self, device: str, dtype: torch.dtype) -> GPT2LMHeadModel:
        """A GPT-2 of this shape with seeded random weights, the same in every process."""
        torch.manual_seed(0)
        config = GPT2Config(
            n_layer=self.n_layers, n_embd=self.d_model, n_head=self.n_heads, vocab_size=self.d_vocab,
            bos_token_id=0, eos_token_id=0,
        )  # fmt: skip
        model = GPT2LMHeadModel(config).eval()
        torch.nn.Module.to(model, device=torch.device(device), dtype=dtype)
        return model


def prompts(n_positions: int, d_vocab: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Two prompts [1, position] that differ from the first token on, so no cell of the grid is free."""
    generator = np.random.default_rng(0)
    clean, corrupted = generator.integers(100, d_vocab, size=(2, 1, n_positions))
    corrupted[0, 1::2] = clean[0, 1::2]
    return torch.tensor(clean), torch.tensor(corrupted)


def difference(logits: torch.Tensor) -> torch.Tensor:
    """Logit of the answer minus logit of the distractor, over the last axis."""
    return logits[..., ANSWER] - logits[..., DISTRACTOR]


def minimal_flops(shape: Shape, n_positions: int) -> float:
    """Multiply-adds (counted as 2) that the grid needs at least, whoever computes it.

    For one row of T positions, L layers, width d, an MLP of 4d and a vocabulary of V. Norms, softmax and
    non-linearities are left out; attention is counted in full. Products of one token in one block: query, key
    and value 2d^2 each, attention output 2d^2, MLP 16d^2; attention 4d for each key that a query sees.

    - Clean run: blocks 0 to L-2 at all positions (what enters the last block is still needed).
    - Corrupted run: the same, then the last block for the last query only, with everybody's keys and values.
    - Cell (l, t): positions before t never change. In block l only position t has a new query, key and value,
      but all T - t positions from t on have new attention and MLP; in the blocks after it they need
      everything. The last block computes the keys and values that changed and then one query, the last.
    - The unembedding, 2dV, once for each cell and once for the corrupted run.
    """
    d, last = shape.d_model, shape.n_layers - 1
    qkv, rest, key_value, query = 6 * d * d, 18 * d * d, 4 * d * d, 2 * d * d
    everywhere = range(n_positions)

    def attention(first: int) -> float:
        return sum(4.0 * d * (position + 1) for position in range(first, n_positions))

    final_query = query + rest + 4.0 * d * n_positions
    full_block = n_positions * (qkv + rest) + attention(0)
    total = last * full_block * 2 + n_positions * key_value + final_query
    for t in everywhere:
        live = n_positions - t
        middle = live * (qkv + rest) + attention(t)
        for layer in range(shape.n_layers):
            if layer == last:
                total += key_value + (final_query if t == n_positions - 1 else final_query - query)
                continue
            total += qkv + live * rest + attention(t)  # the block that is patched
            total += (last - layer - 1) * middle + live * key_value + final_query
    return total + 2.0 * d * shape.d_vocab * (n_positions * shape.n_layers + 1)


def lantern(
    shape: Shape, device: str, dtype: torch.dtype, method: Literal["auto", "full"]
) -> Callable[..., np.ndarray]:
    """Ours: `mi_core.engine.sweep` with `method` "auto" or "full"."""
    from mi_core.engine import Base, Edit, Variant, build_model, run, sweep

    model = build_model(shape.build(device, dtype))

    def trace(clean: torch.Tensor, corrupted: torch.Tensor) -> np.ndarray:
        source = run(model, clean, capture=[("resid_pre", None)], last=1)
        variants = [
            Variant(
                (
                    Edit(
                        "resid_pre",
                        layer,
                        "set",
                        positions=(t,),
                        value=source[("resid_pre", layer)][:, t : t + 1],
                    ),
                )
            )
            for layer in range(shape.n_layers)
            for t in range(clean.shape[1])
        ]
        out = sweep(
            model, Base(corrupted), variants, method=method,
            read=lambda logits: {"difference": difference(logits[:, 0, -1])},
        )  # fmt: skip
        return out.values["difference"].reshape(shape.n_layers, -1)

    return trace


def plain(shape: Shape, device: str, dtype: torch.dtype) -> Callable[..., np.ndarray]:
    """Plain transformers: one forward pass and one pre-hook a cell; only the last position is unembedded."""
    model = shape.build(device, dtype)
    blocks = model.transformer.h

    @torch.inference_mode()
    def trace(clean: torch.Tensor, corrupted: torch.Tensor) -> np.ndarray:
        states = model(clean, output_hidden_states=True, use_cache=False, logits_to_keep=1).hidden_states
        grid = np.zeros((shape.n_layers, clean.shape[1]))
        for layer in range(shape.n_layers):
            for t in range(clean.shape[1]):

                def patch(_module, args, kwargs, layer=layer, t=t):
                    hidden = (args[0] if args else kwargs["hidden_states"]).clone()
                    hidden[:, t] = states[layer][:, t]
                    return (
                        ((hidden, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": hidden})
                    )

                handle = blocks[layer].register_forward_pre_hook(patch, with_kwargs=True)
                grid[layer, t] = difference(model(corrupted, use_cache=False, logits_to_keep=1).logits[0, -1])
                handle.remove()
        return grid

    return trace


def bridge(shape: Shape, device: str, dtype: torch.dtype) -> Any:
    """The model as transformer-lens wraps it."""
    from transformer_lens.model_bridge import TransformerBridge  # pyright: ignore[reportMissingImports]  # optional

    tokenizer = Tokenizer(WordLevel({"<s>": 0}, unk_token="<s>"))
    with tempfile.TemporaryDirectory() as folder:  # transformer-lens reads the tokenizer again, by its name
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="<s>").save_pretrained(
            folder
        )
        wrapped = TransformerBridge.boot_transformers(
            "gpt2",
            hf_model=shape.build(device, dtype),
            tokenizer=PreTrainedTokenizerFast.from_pretrained(folder),
            device=device,
            dtype=dtype,
        )
    wrapped.eval()
    return wrapped


def transformer_lens(shape: Shape, device: str, dtype: torch.dtype) -> Callable[..., np.ndarray]:
    """transformer-lens: `get_act_patch_resid_pre`, a pass per cell."""
    from transformer_lens import patching  # pyright: ignore[reportMissingImports]  # optional

    wrapped = bridge(shape, device, dtype)

    @torch.inference_mode()
    def trace(clean: torch.Tensor, corrupted: torch.Tensor) -> np.ndarray:
        names = [f"blocks.{layer}.hook_resid_pre" for layer in range(shape.n_layers)]
        _, cache = wrapped.run_with_cache(clean, names_filter=names)
        grid = patching.get_act_patch_resid_pre(
            wrapped, corrupted, cache, lambda logits: difference(logits[0, -1])
        )
        return grid.cpu().numpy()

    return trace


WAYS: dict[str, Callable[..., Callable[..., np.ndarray]]] = {
    "lantern": partial(lantern, method="auto"),
    "lantern, full": partial(lantern, method="full"),
    "transformers": plain,
    "transformer-lens": transformer_lens,
}
